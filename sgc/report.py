"""How much memory an optimizer holds, counted from what is alive."""

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sgc.optimizer import CompressedAdamW


@dataclasses.dataclass(frozen=True)
class StateRow:
    """One tensor of the state, or one thing that parameters share.

    Attributes:
        owner: position of the parameter (``group.index``), its name where the optimizer knows it,
            or ``shared``.
        what: ``exp_avg``, ``exp_avg_sq`` (the moments), ``basis``, ``step``, ``A gaussian …``.
        shape: of the tensor; empty for shared bytes.
        count: numbers held.
        bytes: bytes held.
    """

    owner: str
    what: str
    shape: tuple[int, ...]
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class StateReport:
    """What an optimizer keeps between two steps, to hold against Table 1 of the paper.

    Attributes:
        rows: one a state tensor, then one a shared thing.
        moments: numbers in M and V together (``2k`` a parameter for SGC), whatever their form.
        full_moments: numbers that AdamW would hold for the same parameters (``2d``).
        state_bytes: bytes of all per-parameter tensors: moments, subspaces, step counters.
        shared_bytes: bytes of what parameters share: A and what the solver keeps for it.
        scratch_bytes: peak of temporary memory in one step, where it was measured, else None.
    """

    rows: tuple[StateRow, ...]
    moments: int
    full_moments: int
    state_bytes: int
    shared_bytes: int
    scratch_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """State and shared bytes together: the honest size to compare methods at."""
        return self.state_bytes + self.shared_bytes

    def to_dict(self) -> dict[str, Any]:
        """For result files: the totals, and the sum of bytes by kind of tensor."""
        kinds: dict[str, int] = {}
        for row in self.rows:
            kinds[row.what] = kinds.get(row.what, 0) + row.bytes
        return {
            "moments": self.moments,
            "full_moments": self.full_moments,
            "state_bytes": self.state_bytes,
            "shared_bytes": self.shared_bytes,
            "bytes": self.bytes,
            "scratch_bytes": self.scratch_bytes,
            "by_kind": kinds,
        }

    def __str__(self) -> str:
        lines = [f"{'owner':<24} {'what':<44} {'shape':>16} {'count':>12} {'bytes':>12}"]
        for row in self.rows:
            shape = "×".join(map(str, row.shape))
            lines.append(
                f"{row.owner:<24} {row.what:<44} {shape:>16} {row.count:>12,} {row.bytes:>12,}"
            )
        share = 100 * self.moments / self.full_moments if self.full_moments else 0.0
        lines.append(
            f"moments {self.moments:,} of AdamW's {self.full_moments:,} ({share:.3g} %); "
            f"{self.state_bytes:,} bytes of state + {self.shared_bytes:,} shared"
        )
        if self.scratch_bytes is not None:
            lines[-1] += f"; scratch in a step: {self.scratch_bytes:,}"
        return "\n".join(lines)


def state_report(
    optimizer: CompressedAdamW,
    params: Iterable[Tensor] | None = None,
    *,
    scratch_bytes: int | None = None,
) -> StateReport:
    """Count the live state of an optimizer. Parameters that never had a gradient hold nothing yet.

    Args:
        optimizer: after at least one step.
        params: count these parameters only (and what their compressors share); None for all.
        scratch_bytes: what :func:`peak_scratch` measured, to be shown with the rest.
    """
    wanted = None if params is None else {id(p) for p in params}
    rows: list[StateRow] = []
    moments = full = 0
    shared: dict[int, Any] = {}
    for g, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"{g}.{i}" for i in range(len(group["params"]))]
        for name, p in zip(names, group["params"], strict=True):
            if wanted is not None and id(p) not in wanted:
                continue
            shared[id(group["compressor"])] = group["compressor"]
            full += 2 * p.numel()
            for what, tensor in optimizer.state.get(p, {}).items():
                rows.append(
                    StateRow(name, what, tuple(tensor.shape), tensor.numel(), tensor.nbytes)
                )
                moments += tensor.numel() * what.startswith("exp_avg")
    state_bytes = sum(row.bytes for row in rows)
    for compressor in shared.values():
        for what, size in compressor.shared_tensors().items():
            rows.append(StateRow("shared", what, (), 0, size))
    shared_bytes = sum(row.bytes for row in rows) - state_bytes
    return StateReport(tuple(rows), moments, full, state_bytes, shared_bytes, scratch_bytes)


@dataclasses.dataclass(frozen=True)
class LiveRank:
    """How much of its subspace a parameter uses, where the rank follows the gradients.

    Attributes:
        owner: as in :class:`StateRow`.
        rank: that is in use now.
        largest: that memory is held for.
        in_use: numbers of basis and moments that belong to the rank in use.
        held: numbers of basis and moments.
    """

    owner: str
    rank: int
    largest: int
    in_use: int
    held: int


def effective_ranks(optimizer: CompressedAdamW) -> list[LiveRank]:
    """The live ranks of all parameters whose compressor adapts them, after a step."""
    found = []
    for name, p in _named(optimizer):
        state = optimizer.state.get(p, {})
        if not {"rank", "basis"} <= state.keys():
            continue
        rank, largest = int(state["rank"]), state["basis"].shape[1]
        in_use = held = 0
        for what, tensor in state.items():
            if what == "basis" or what.startswith("exp_avg"):
                held += tensor.numel()
                shrinks = largest in tensor.shape
                in_use += tensor.numel() * rank // largest if shrinks else tensor.numel()
        found.append(LiveRank(name, rank, largest, in_use, held))
    return found


def _named(optimizer: CompressedAdamW) -> Iterator[tuple[str, Tensor]]:
    """Parameters by the names that reports give them."""
    for g, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"{g}.{i}" for i in range(len(group["params"]))]
        yield from zip(names, group["params"], strict=True)


def peak_scratch(step: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """Run ``step`` once and return the peak of the memory it took beyond what was held before.

    What stays allocated afterwards (state made at a first step) is part of the peak, so measure a
    later step. CUDA's allocator is asked; elsewhere every tensor that an operation returns is
    counted while it lives (temporary memory inside one operation is not seen).

    Args:
        step: called once, ``optimizer.step`` for instance.
        device: where the memory is taken.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveMemory() as memory:
        step()
    return memory.peak


class _LiveMemory(TorchDispatchMode):
    """Bytes of the storages that came to life under this mode and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        arguments = [*args, *(kwargs or {}).values()]
        known = {t.untyped_storage()._cdata for t in tree_leaves(arguments) if _is_tensor(t)}
        result = func(*args, **(kwargs or {}))
        for tensor in filter(_is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            if storage._cdata not in known and storage._cdata not in self._alive:
                self._follow(storage)
        self.peak = max(self.peak, self._held)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def gone(_: Any) -> None:
            del self._alive[key]
            self._held -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._held += size


def _is_tensor(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.device.type != "meta"
