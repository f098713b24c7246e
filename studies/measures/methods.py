"""A method of fine-tuning by its spec: which parameters train, and under which optimizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sgc
from sgc.registry import option_names
from sgc.specs import Spec
from studies.measures import llama

__all__ = ["Training", "training"]

ADAMW = "adamw"
LORA = "lora"


@dataclass(frozen=True)
class Training:
    """The parameters that train, and their optimizer."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer

    def sizes(self) -> dict[str, int]:
        """Numbers that train, numbers in M and V, and all bytes that the optimizer keeps."""
        trained = sum(p.numel() for p in self.parameters)
        if isinstance(self.optimizer, sgc.CompressedAdamW):
            report = sgc.state_report(self.optimizer)
            return {"trained": trained, "moments": report.moments, "state_bytes": report.bytes}
        kept = [t for state in self.optimizer.state.values() for t in state.items()]
        tensors = [(what, t) for what, t in kept if isinstance(t, Tensor)]
        return {
            "trained": trained,
            "moments": sum(t.numel() for what, t in tensors if what != "step"),
            "state_bytes": sum(t.nbytes for _, t in tensors),
        }


@contextmanager
def training(
    spec: Spec, model: Any, *, lr: float, device: torch.device, seed: int
) -> Iterator[Training]:
    """Inside, query and value matrices of ``model`` train; afterwards it is frozen and bare again.

    Args:
        spec: ``adamw`` (torch's, fused on CUDA), ``lora:rank=r`` (peft's adapters under the same),
            or a registered compressor with its options.
        model: made by :func:`studies.measures.llama.build`.
        lr: learning rate.
        device: of the model.
        seed: of LoRA's start and of A.

    Raises:
        MissingDependencyError: a package of the method is not installed.
    """
    options: dict[str, Any] = dict(spec.options)
    if spec.name == LORA:
        trained = llama.adapters(model, **options, device=device, seed=seed)
    else:
        trained = llama.query_and_value(model)
    with trained as parameters:
        optimizer: torch.optim.Optimizer
        if spec.name in (ADAMW, LORA):
            fused = device.type == "cuda"
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=fused)
        else:
            if "seed" in (option_names("compressor", spec.name) or ()):
                options.setdefault("seed", seed)
            compressor = sgc.create("compressor", spec.name, **options)
            optimizer = sgc.CompressedAdamW(parameters, lr=lr, compressor=compressor)
        yield Training(parameters, optimizer)
