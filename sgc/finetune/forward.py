"""One pass through the model."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from sgc.finetune.batches import Batch
from sgc.finetune.readers import DataError

__all__ = ["logits"]


def logits(model: nn.Module, batch: Batch, *, precision: str = "full") -> Tensor:
    """``(batch, classes)``, of a multiple choice ``(batch, answers)``.

    Args:
        model: a sequence classifier of transformers, which is told the texts of a pair apart if it
            can tell them; or a language model, whose mean log-likelihood of an answer's tokens is
            the answer's logit.
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
    if found.ndim == 3:  # texts, tokens, vocabulary
        found = _likelihood(found, batch)
    several = len(found) != len(batch.labels)
    return found.reshape(len(batch.labels), -1) if several else found


def _likelihood(logits: Tensor, batch: Batch) -> Tensor:
    """Mean of log p(token | those before it) over the second text of each pair, in float32."""
    if batch.types is None:
        raise DataError("the tokenizer does not tell question and answer apart: take a fast one")
    told = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.ids[:, 1:].flatten(), reduction="none"
    ).view(len(logits), -1)
    answer = (batch.types[:, 1:] == 1) & (batch.mask[:, 1:] == 1)
    return -(told * answer).sum(1) / answer.sum(1).clamp(min=1)
