"""Budget first: how large a method may be to fill so many bytes, before anything is trained."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from sgc import adam
from sgc.compressors.base import Compressor
from sgc.options import whole as integer
from sgc.registry import UnknownPluginError, available, create
from sgc.sizes import BudgetError, fill
from sgc.specs import Spec, Value

__all__ = ["BudgetError", "Plan", "Prediction", "plan", "predict"]

_STEP_BYTES = 4  # the step counter of a parameter, a float32


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Bytes that an optimizer will hold between two steps.

    Attributes:
        state_bytes: of all parameters: moments, subspaces, step counters.
        shared_bytes: of what parameters share: A and what the solver keeps for it.
    """

    state_bytes: int
    shared_bytes: int

    @property
    def bytes(self) -> int:
        """State and shared bytes together."""
        return self.state_bytes + self.shared_bytes


@dataclasses.dataclass(frozen=True)
class Plan:
    """A method of the size that a budget allows.

    Attributes:
        spec: the method with its options, as command lines take it.
        budget_bytes: what it may take.
        predicted: what it will take; :func:`sgc.state_report` counts the same after a step.
        limit: why there is no larger size, where a parameter's shape forbids it, and not the
            budget; else empty.
    """

    spec: Spec
    budget_bytes: int
    predicted: Prediction
    limit: str = ""

    @property
    def options(self) -> Mapping[str, Value]:
        """Of the method, those that set its size included."""
        return MappingProxyType(dict(self.spec.options))

    @property
    def bytes(self) -> int:
        """What it will take."""
        return self.predicted.bytes

    def compressor(self) -> Compressor:
        """A new compressor of this size."""
        return _made(self.spec)

    def __str__(self) -> str:
        limit = f"; no larger size: {self.limit}" if self.limit else ""
        return (
            f"{self.spec.format()}: {self.bytes:,} of {self.budget_bytes:,} bytes "
            f"({self.predicted.state_bytes:,} of state, {self.predicted.shared_bytes:,} shared)"
            f"{limit}"
        )


def plan(
    model: nn.Module | Iterable[Tensor], *, budget_bytes: int, method: str | Spec = "mesgc"
) -> Plan:
    """The largest size of a method whose optimizer holds no more than so many bytes.

    The size is what the method says (:meth:`sgc.compressors.base.Compressor.size`): the rank of a
    subspace, the chunks and entries of a sketch, the entries of an explicit support. Options that
    set it are replaced; every other is left as it is given. :func:`predict` says what a given size
    takes.

    Args:
        model: its parameters that require a gradient; or parameters. A model on the meta device,
            which holds no numbers, is planned for as on the CPU.
        budget_bytes: for all of them together, what they share included.
        method: a registered compressor, or a spec with options (``"mesgc:projection=srht"``).

    Raises:
        BudgetError: even the smallest size takes more, or the method has no size and takes more.
        TypeError: a budget that is no integer.
        ValueError: a parameter that the method cannot take at any size, or none to compress.

    Example:
        >>> layer = torch.nn.Linear(256, 256, bias=False)
        >>> print(plan(layer, budget_bytes=10_000, method="galore"))
        galore:rank=3: 9,224 of 10,000 bytes (9,224 of state, 0 shared)
    """
    parameters, budget_bytes = trainable(model), integer("budget_bytes", budget_bytes)
    if not parameters:
        raise ValueError("there is nothing to plan for: no parameter requires a gradient")
    spec = Spec.parse(method) if isinstance(method, str) else method
    alike = _alike(parameters)
    matrices = [p for p in parameters if p.ndim >= 2]
    sizes = _made(spec).size

    def compressor(spec: Spec) -> Compressor:
        made = _made(spec)
        if sizes(1) is not None and all(_plain(made, p) for p, *_ in alike):
            raise ValueError(
                f"{spec.format()} would leave all of these parameters to plain AdamW: there is "
                "nothing to choose a size for"
            )
        return made

    def cost(spec: Spec, *, shared: bool = True, beyond: int | None = None) -> Prediction:
        return predict(compressor(spec), parameters, shared=shared, beyond=beyond)

    def floor(spec: Spec) -> int:  # vectors are left to plain AdamW where a size exceeds them
        return predict(compressor(spec), matrices, shared=False).bytes

    def stretch(spec: Spec) -> tuple[bool, ...]:
        made = compressor(spec)
        return tuple(_plain(made, p) for p, *_ in alike)

    vectors = len(matrices) < len(parameters)
    found, size = fill(
        spec,
        sizes,
        cost,
        budget_bytes,
        floor=floor if vectors else None,
        stretch=stretch if vectors else None,
    )
    limit = "" if size is None else _limit(spec.updated(**(sizes(size + 1) or {})), matrices)
    return Plan(found, budget_bytes, cost(found), limit)


def predict(
    compressor: Compressor | Spec | str,
    model: nn.Module | Iterable[Tensor],
    *,
    shared: bool = True,
    beyond: int | None = None,
) -> Prediction:
    """What :class:`sgc.CompressedAdamW` will hold for these parameters once all had a gradient.

    Nothing of the parameters' size is allocated; what they share is made, to be counted. Of
    parameters on the meta device not even that: the bytes are those of the CPU. (On a GPU
    ``recovery=auto`` also keeps A in half precision for its kernels.)

    Args:
        compressor: a new one, or a spec such as ``"galore:rank=4"``.
        model: its parameters that require a gradient; or parameters, or one.
        shared: without it the shared bytes are not looked at, and 0.
        beyond: if more bytes than this are sure to be needed, nothing is made, and a lower bound of
            the shared ones is the answer.

    Raises:
        ValueError: a matrix that the compressor cannot take; or one on the meta device, where the
            bytes of what is shared follow from numbers (:mod:`sgc.counting`).

    Example:
        >>> predict("galore:rank=4", torch.empty(4096, 4096)).bytes
        196616
    """
    if isinstance(compressor, str | Spec):
        compressor = _made(Spec.parse(compressor) if isinstance(compressor, str) else compressor)
    alike = _alike(trainable(model))
    state = sum(len(group) * _state_bytes(compressor, group[0]) for group in alike)
    floors = [
        compressor.shared_floor(tuple(p.shape), adam.moment_dtype(p.dtype))
        for p, *_ in alike
        if shared and not _plain(compressor, p)
    ]
    if beyond is not None and state + max(floors, default=0) > beyond:
        return Prediction(state, max(floors, default=0))
    for p, *_ in alike:
        if shared and not _plain(compressor, p):
            compressor.prepare(tuple(p.shape), p.device, adam.moment_dtype(p.dtype))
    return Prediction(state, sum(compressor.shared_tensors().values()) if shared else 0)


def trainable(model: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    """Its parameters that require a gradient, or the given ones, each once; a tensor is one."""
    if isinstance(model, Tensor):
        return [model]
    if isinstance(model, nn.Module):
        return [p for p in model.parameters() if p.requires_grad]
    return list({id(p): p for p in model}.values())


def _alike(parameters: Iterable[Tensor]) -> Collection[list[Tensor]]:
    """Parameters together that take the same."""
    groups: dict[tuple[object, ...], list[Tensor]] = {}
    for p in parameters:
        groups.setdefault((tuple(p.shape), p.dtype, p.device), []).append(p)
    return groups.values()


def _state_bytes(compressor: Compressor, p: Tensor) -> int:
    if _plain(compressor, p):
        return 2 * p.numel() * p.element_size() + _STEP_BYTES
    shape, meta, dtype = tuple(p.shape), torch.device("meta"), adam.moment_dtype(p.dtype)
    state = {
        **compressor.rule.init_state((1, *compressor.moment_shape(shape)), meta, dtype),
        **compressor.init_state(shape, meta, dtype),
        **compressor.residual_rule.init_state(shape, meta, dtype),
    }
    return sum(tensor.nbytes for tensor in state.values()) + _STEP_BYTES


def _plain(compressor: Compressor, p: Tensor) -> bool:
    """Whether plain AdamW takes the parameter; an error for a matrix that nobody takes."""
    if compressor.native:
        return True
    refusal = compressor.refuses(tuple(p.shape))
    if refusal and p.ndim >= 2:
        raise ValueError(f"{type(compressor).__name__} cannot take a parameter: {refusal}")
    return bool(refusal)


def _limit(larger: Spec, matrices: Iterable[Tensor]) -> str:
    """Why this size does not exist; empty if it does."""
    try:
        made = _made(larger)
    except ValueError as error:
        return str(error)
    reasons = (made.refuses(shape) for shape in dict.fromkeys(tuple(p.shape) for p in matrices))
    return next((reason for reason in reasons if reason), "")


def _made(spec: Spec) -> Compressor:
    if spec.name == "adamw" and spec.name not in available("compressor"):
        raise UnknownPluginError("unknown compressor 'adamw': plain AdamW is the compressor 'none'")
    made: Compressor = create("compressor", spec.name, **spec.options)
    return made
