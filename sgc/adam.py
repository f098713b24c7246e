"""ρ: Adam's moments, as pure functions of tensors of any shape."""

import torch
from jaxtyping import Float
from torch import Tensor


def accumulate(
    first: Float[Tensor, "..."],
    second: Float[Tensor, "..."],
    p: Float[Tensor, "..."],
    q: Float[Tensor, "..."] | None,
    *,
    beta1: float,
    beta2: float,
) -> None:
    """``M ← β₁ M + (1 − β₁) p`` and ``V ← β₂ V + (1 − β₂) q``, in place; q None stands for p².

    The SGC paper's Algorithm 3, lines 3 and 4 (its eq. 4 prints β₁ for V as well).
    """
    blend(first, p, beta=beta1)
    if q is None:
        second.mul_(beta2).addcmul_(p, p, value=1 - beta2)
    else:
        second.mul_(beta2).add_(q, alpha=1 - beta2)


def blend(average: Float[Tensor, "..."], new: Float[Tensor, "..."], *, beta: float) -> None:
    """``average ← β average + (1 − β) new``, in place."""
    average.lerp_(new.to(average.dtype), 1 - beta)


def moment_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 parameters, float32 for all others, half precision included."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def direction(
    first: Float[Tensor, "..."],
    second: Float[Tensor, "..."] | None,
    *,
    eps: float,
    eps_under_root: bool,
) -> Float[Tensor, "..."]:
    """``M̂/√(V̂+ε)`` as in the paper's Algorithms 1 and 3, or torch's ``M̂/(√V̂+ε)``.

    Args:
        first: bias-corrected M̂.
        second: bias-corrected V̂, not negative, of a shape that broadcasts; None for N = M̂.
        eps: ε.
        eps_under_root: which of the two.
    """
    if second is None:
        return first
    denominator = (second + eps).sqrt_() if eps_under_root else second.sqrt().add_(eps)
    return first / denominator
