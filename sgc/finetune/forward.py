"""One pass through the model."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from sgc.finetune.batches import Batch

__all__ = ["logits"]


def logits(model: nn.Module, batch: Batch, *, precision: str = "full") -> Tensor:
    """``(batch, classes)``.

    Args:
        model: a sequence classifier of transformers; it is told the texts of a pair apart if it
            can tell them.
        batch: on the model's device.
        precision: ``full``, or ``autocast`` for matrix products in bfloat16.
    """
    inputs: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask}
    accepted = inspect.signature(model.forward).parameters
    if batch.types is not None and "token_type_ids" in accepted:
        inputs["token_type_ids"] = batch.types
    if "use_cache" in accepted:  # of keys and values, for generating: nothing is generated
        inputs["use_cache"] = False
    device, low = batch.ids.device.type, torch.bfloat16
    with torch.autocast(device, dtype=low, enabled=precision == "autocast"):
        found: Tensor = model(**inputs).logits
    return found
