"""One pass through the model."""

import inspect

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
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    if batch.types is not None and "token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["token_type_ids"] = batch.types
    device, low = batch.ids.device.type, torch.bfloat16
    with torch.autocast(device, dtype=low, enabled=precision == "autocast"):
        found: Tensor = model(**inputs).logits
    return found
