"""Accuracy on held-out examples."""

import torch
from torch import nn

from sgc.finetune.batches import Tokens, by_length
from sgc.finetune.forward import logits

__all__ = ["accuracy"]

_BATCH = 64


def accuracy(
    model: nn.Module, tokens: Tokens, *, device: torch.device | str, precision: str = "full"
) -> float:
    """Share of ``tokens`` whose most likely class is the right one, in evaluation mode."""
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode():
        for batch in by_length(tokens, batch_size=_BATCH):
            here = batch.to(torch.device(device))
            right += (logits(model, here, precision=precision).argmax(-1) == here.labels).sum()
    return int(right) / len(tokens)
