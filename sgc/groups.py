"""Parameter groups: what is checked in their options, and which parameters go together."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sgc.compressors.base import Compressor, Shape
from sgc.options import whole
from sgc.registry import create, did_you_mean
from sgc.rounding import ROUNDINGS

UNSUPPORTED = {
    "capturable": "the step counters live on the CPU",
    "differentiable": "sparse recovery is not differentiable",
    "fused": "only torch's own AdamW has a fused kernel",
    "amsgrad": "a maximum over sketches is not a sketch",
}
#: Keys that torch's schedulers and others put into groups.
_OF_OTHERS = frozenset({"initial_lr", "max_lr", "min_lr", "name", "param_names", *UNSUPPORTED})


def compressor_of(given: str | Compressor | None) -> Compressor:
    if isinstance(given, Compressor):
        return given
    if given is None or isinstance(given, str):
        return create("compressor", given or "none")
    raise TypeError(
        f"compressor must be a registered name, a Compressor or None, got {type(given).__name__}"
    )


@dataclasses.dataclass(frozen=True)
class Alike:
    """Parameters of one group that share shape, dtype and device, and what belongs to each.

    Attributes:
        positions: of the parameters in the whole optimizer, as a state dict counts them.
    """

    parameters: list[Tensor]
    gradients: list[Tensor]
    positions: list[int]

    def of(self, numbers: Sequence[int]) -> "Alike":
        """Some of them."""
        return Alike(
            [self.parameters[i] for i in numbers],
            [self.gradients[i] for i in numbers],
            [self.positions[i] for i in numbers],
        )


def partition(group: dict[str, Any], first: int) -> tuple[Alike | None, list[Alike]]:
    """The parameters of a group that have gradients: those of plain AdamW, and the others by kind.

    Args:
        group: a parameter group.
        first: position of its first parameter in the optimizer.

    Raises:
        RuntimeError: a sparse gradient.
    """
    compressor: Compressor = group["compressor"]
    kinds: dict[Any, list[tuple[Tensor, Tensor, int]]] = {}
    refused: dict[Shape, bool] = {}  # a compressor is asked once a shape
    for position, p in enumerate(group["params"], first):
        gradient = p.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            raise RuntimeError(
                "CompressedAdamW needs dense gradients; build the embedding with "
                "sparse=False, or give it torch.optim.SparseAdam"
            )
        shape = p.shape
        is_plain = refused.get(shape)
        if is_plain is None:
            is_plain = compressor.native or compressor.refuses(tuple(shape)) is not None
            refused[shape] = is_plain
        kind = None if is_plain else (shape, p.dtype, p.device)
        entry = (p, gradient, position)
        if kind in kinds:
            kinds[kind].append(entry)
        else:
            kinds[kind] = [entry]
    alike = {kind: Alike(*map(list, zip(*entries, strict=True))) for kind, entries in kinds.items()}
    return alike.pop(None, None), list(alike.values())


def refuse_flags(flags: dict[str, Any]) -> None:
    for name, value in flags.items():
        if name not in UNSUPPORTED:
            raise TypeError(f"CompressedAdamW has no option {name!r}")
        if value:
            raise ValueError(
                f"CompressedAdamW does not support {name}={value}: {UNSUPPORTED[name]}"
            )


def refuse_misspelt(group: dict[str, Any], *, known: list[str]) -> None:
    """Groups may carry keys of others (schedulers do), but not a near miss of an option."""
    for key in group:
        near = did_you_mean(key, known) if key not in (*known, *_OF_OTHERS) else ""
        if near:
            raise TypeError(f"a parameter group has no option {key!r}{near}")


def check_options(group: dict[str, Any]) -> None:
    lr, (beta1, beta2) = group["lr"], group["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"a tensor lr must have one element, got shape {tuple(lr.shape)}")
    for name, value in (("lr", lr), ("eps", group["eps"]), ("weight_decay", group["weight_decay"])):
        if not value >= 0.0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    if group["rounding"] not in ROUNDINGS:
        raise ValueError(
            f"rounding must be one of {', '.join(ROUNDINGS)}, got {group['rounding']!r}"
        )
    whole("seed", group["seed"])
    for name, beta in (("betas[0]", beta1), ("betas[1]", beta2)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name} must lie in [0, 1), got {beta}")


def check_parameters(group: dict[str, Any]) -> None:
    compressor: Compressor = group["compressor"]
    plain: list[tuple[int, ...]] = []
    reason = None
    for p in group["params"]:
        shape = tuple(p.shape)
        refusal = compressor.refuses(shape)
        if p.is_complex() and not compressor.native:
            raise ValueError(f"complex parameters (here {p.dtype}) need compressor=None")
        _check_rounding(group["rounding"], p, compressor)
        if refusal and p.ndim >= 2:
            raise ValueError(
                f"the compressor {type(compressor).__name__} cannot take a parameter: {refusal}"
            )
        if refusal:
            plain.append(shape)
            reason = refusal
    if plain:
        numbers = sum(math.prod(shape) for shape in plain)
        warnings.warn(
            f"{len(plain)} parameter(s) with fewer than two dimensions ({numbers} numbers in all) "
            f"get plain AdamW, because {type(compressor).__name__} cannot take them ({reason}); "
            f"put them in a group with compressor=None to say so yourself",
            stacklevel=4,
        )


def _check_rounding(rounding: str, p: Tensor, compressor: Compressor) -> None:
    if rounding == "nearest":
        return
    if p.dtype == torch.float16:
        raise ValueError(
            "stochastic rounding is for bfloat16 weights (float32 and float64 need none), but a "
            "parameter is float16: set rounding='nearest' in its group"
        )
    if compressor.native and p.dtype == torch.bfloat16 and p.ndim >= 2:
        raise ValueError(
            f"compressor=None is torch's AdamW, which rounds to the nearest: a bfloat16 parameter "
            f"of shape {tuple(p.shape)} cannot have rounding={rounding!r}; set rounding='nearest' "
            f"in its group"
        )
