"""The contract of a compressor: f before the moments, g after them."""

import abc
import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.updates import Update

__all__ = ["Compressed", "Compressor", "Shape", "State"]

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Compressed:
    """What f made of the gradients of n parameters.

    Attributes:
        p: what M accumulates.
        q: what V accumulates; None stands for p².
        gradients: of the n parameters, as they came.
        energy: ``ΣG²`` of each in float64 if f found it on its way, else None.
        inner: what the wrapped compressor made, for stages that wrap one.
    """

    p: Float[Tensor, "n *moment"]
    q: Float[Tensor, "n *moment"] | None
    gradients: Sequence[Tensor]
    energy: Float[Tensor, " n"] | None = None
    inner: "Compressed | None" = None


class Compressor(abc.ABC):
    """f and g around the moments that :class:`sgc.CompressedAdamW` keeps.

    A compressor is configuration: all that changes during training lives in the optimizer's state
    dict as plain tensors, and what depends on the configuration alone (A, its Gram) is shared by
    every parameter and rebuilt from the seed.
    """

    #: True: the update is AdamW's own, so the optimizer hands the parameter to torch's AdamW.
    native: ClassVar[bool] = False
    #: ρ: where g says nothing, the update is ``ρ·G/rms(G)``; 0 is the paper. The dense gradient is
    #: there anyway, and throwing it away is what costs accuracy.
    residual: float = 0.0

    @abc.abstractmethod
    def refuses(self, shape: Shape) -> str | None:
        """Why a parameter of this shape cannot be compressed, with the numbers; None if it can."""

    @abc.abstractmethod
    def moment_shape(self, shape: Shape) -> Shape:
        """Shape of M and of V for a parameter of this shape."""

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        """Further state of one parameter (a subspace), before its first step."""
        return {}

    @abc.abstractmethod
    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: int
    ) -> Compressed:
        """f: what the moments of n alike parameters accumulate at this step.

        Args:
            gradients: n tensors of equal shape, dtype and device, as the parameters have them.
            states: the parameters' states; may be updated (a subspace refresh).
            step: 1 for the first step; the same for all n.

        Returns:
            p and q of shape ``(n, *moment_shape)``; q None stands for p².
        """

    @abc.abstractmethod
    def decompress(
        self,
        first: Float[Tensor, "n *moment"],
        second: Float[Tensor, "n *moment"],
        compressed: Compressed,
        states: Sequence[State],
        *,
        eps: float,
    ) -> Update:
        """g: the updates of the n parameters from their bias-corrected moments.

        Args:
            first: M̂.
            second: V̂.
            compressed: what :meth:`compress` returned at this step.
            states: as there.
            eps: ε of Adam.
        """

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


def whole(name: str, value: Any) -> int:
    """An option that must be an integer.

    Raises:
        TypeError: it is not; names the option and the value.
    """
    try:
        return index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error


def number(name: str, value: Any, *, least: float = -math.inf) -> float:
    """An option that must be a finite number.

    Raises:
        TypeError: it is not a number; names the option and the value.
        ValueError: it is not finite, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value >= least):
        above = f" and at least {least:g}" if least > -math.inf else ""
        raise ValueError(f"{name} must be finite{above}, got {value}")
    return float(value)


def takes_options_of(
    inner: type, *, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let an ``__init__(self, *, own…, **options)`` show the options of ``inner`` as its own.

    A method that wraps another accepts the other's options; with this, ``inspect`` (and so the
    registry's check and the command line's help) sees them by name, with their defaults.
    """

    def decorate(init: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(init).parameters.values() if p.kind != p.VAR_KEYWORD]
        taken = {p.name for p in own} | set(without)
        more = [p for p in inspect.signature(inner).parameters.values() if p.name not in taken]
        setattr(init, "__signature__", inspect.Signature([*own, *more]))  # noqa: B010
        return init

    return decorate
