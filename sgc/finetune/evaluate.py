"""Accuracy and loss on held-out examples."""

from typing import NamedTuple

import torch
from torch import nn

from sgc.finetune.batches import Tokens, by_length
from sgc.finetune.forward import logits

__all__ = ["Score", "score"]

_BATCH = 64  # texts


class Score(NamedTuple):
    """How well a model does.

    Attributes:
        accuracy: share of the examples whose most likely class is the right one.
        loss: mean cross-entropy, in nats.
    """

    accuracy: float
    loss: float


def score(
    model: nn.Module, tokens: Tokens, *, device: torch.device | str, precision: str = "full"
) -> Score:
    """Accuracy and loss on ``tokens``, in evaluation mode."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with torch.inference_mode():
        for batch in by_length(tokens, batch_size=max(1, _BATCH // tokens.choices)):
            here = batch.to(torch.device(device))
            found = logits(model, here, precision=precision).float()
            right += (found.argmax(-1) == here.labels).sum()
            loss += nn.functional.cross_entropy(found, here.labels, reduction="sum")
    return Score(int(right) / len(tokens), float(loss) / len(tokens))
