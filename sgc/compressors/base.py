"""The contract of a compressor: f before the moments, g after them."""

import abc
import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.residuals.base import Residual, residual_of
from sgc.rules.adam import Adam
from sgc.rules.base import Moments, Rule, Shape, Step
from sgc.updates import Update

__all__ = ["Compressed", "Compressor", "Moments", "Shape", "State", "Step"]


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What f made of the gradients of n parameters.

    Attributes:
        p: what M accumulates.
        q: what V accumulates; None stands for p².
        gradients: of the n parameters, as they came (with what was fed back to them).
        energy: ``ΣG²`` of each in float64 if f found it on its way, else None.
        inner: what the wrapped compressor made, for stages that wrap one.
        bases: ``(n, shorter side, r)``, for stages that project.
    """

    p: Float[Tensor, "n *moment"]
    q: Float[Tensor, "n *moment"] | None
    gradients: Sequence[Tensor]
    energy: Float[Tensor, " n"] | None = None
    inner: "Compressed | None" = None
    bases: Float[Tensor, "n side r"] | None = None


class Compressor(abc.ABC):
    """f and g around the moments ρ that :class:`sgc.CompressedAdamW` keeps by :attr:`rule`.

    A compressor is configuration: all that changes during training lives in the optimizer's state
    dict as plain tensors, and what depends on the configuration alone (A, its Gram) is shared by
    every parameter and rebuilt from the seed.
    """

    #: ρ between f and g.
    rule: Rule = Adam()
    #: What becomes of G where g says nothing: ρ of ``ρ·G/rms(G)`` (0 is the SGC paper), the name of
    #: a residual rule, or one.
    residual: float | str | Residual = 0.0
    #: Whether a stage around this one asks what its updates cover, whatever its own residual is.
    _is_inner: bool = False

    def be_inner(self) -> None:
        """A stage around this one asks what its updates cover, from now on."""
        self._is_inner = True

    @property
    def native(self) -> bool:
        """Whether the update is AdamW's own, so that torch's AdamW takes the parameter."""
        return False

    def take_residual(self, residual: float | str | Residual) -> None:
        """Set :attr:`residual`; a rule that does not exist is refused now, not in a step."""
        self.residual = residual
        self._residual_rule = residual_of(residual)

    @cached_property
    def _residual_rule(self) -> Residual:
        return residual_of(self.residual)

    @property
    def residual_rule(self) -> Residual:
        """The rule that :attr:`residual` stands for."""
        return self._residual_rule

    @abc.abstractmethod
    def refuses(self, shape: Shape) -> str | None:
        """Why a parameter of this shape cannot be compressed, with the numbers; None if it can."""

    @abc.abstractmethod
    def moment_shape(self, shape: Shape) -> Shape:
        """Shape of p (and so of M) for a parameter of this shape."""

    def shared_floor(self, shape: Shape, dtype: torch.dtype) -> int:
        """Bytes that :meth:`prepare` adds to what is shared at least, known without doing it."""
        return 0

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """Further state of one parameter (a subspace), before its first step."""
        return {}

    @abc.abstractmethod
    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        """f: what the moments of n alike parameters accumulate at this step.

        Args:
            gradients: n tensors of equal shape, dtype and device, as the parameters have them.
            states: the parameters' states; may be updated (a subspace refresh).
            step: the same for all n.

        Returns:
            p and q of shape ``(n, *moment_shape)``; q None stands for p².
        """

    @abc.abstractmethod
    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        """g: the updates of the n parameters from their bias-corrected moments.

        Args:
            moments: M̂ and V̂, by :attr:`rule`.
            compressed: what :meth:`compress` returned at this step.
            states: as there.
            step: as there.
        """

    def step_scale(self, weights: Sequence[Tensor]) -> Float[Tensor, " n"] | None:
        """What the learning rate of each parameter is multiplied by; None for 1."""
        return None

    def prepare(  # noqa: B027 — most methods share nothing
        self, shape: Shape, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Make now what all parameters of a shape share and the first step would make (A)."""

    def size(self, size: int) -> dict[str, Any] | None:
        """Options that make this method larger: what a memory budget is filled with.

        Args:
            size: 1 for the smallest; memory grows with it.

        Returns:
            Options to be replaced; None where the method has no such size.
        """
        return None

    def shared_tensors(self) -> dict[str, int]:
        """Bytes shared by all parameters that are alive now, by what they are (A, solver cache)."""
        return {}

    def describe(self) -> str:
        """Configuration as one line of JSON, to be kept in state dicts and result files."""
        return json.dumps(configuration(self), sort_keys=True)


def configuration(part: object) -> dict[str, Any]:
    """Class and public options of a plug-in, and of the plug-ins that it is made of."""

    def plain(value: object) -> Any:
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if isinstance(value, Residual) and value.as_number is not None:
            return value.as_number
        return configuration(value) if hasattr(value, "__dict__") else str(value)

    own = {name: plain(value) for name, value in vars(part).items() if not name.startswith("_")}
    return {"class": getattr(part, "described_as", type(part).__name__), **own}


def agrees(saved: str, own: str) -> bool:
    """Whether a saved description fits a compressor's own; options that it lacks are newer."""

    def fits(old: Any, new: Any) -> bool:
        if isinstance(old, dict) and isinstance(new, dict):
            return all(key in new and fits(value, new[key]) for key, value in old.items())
        return bool(old == new)

    return fits(json.loads(saved), json.loads(own))
