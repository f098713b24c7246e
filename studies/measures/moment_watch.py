"""Exact moments of a training's sparsified gradients, beside what a sketch of them gives back."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

import sgc
from projections import Projection
from recovery import Solver
from sgc import adam
from sgc.chunkers.base import Chunker
from sgc.finetune.config import ConfigError
from sgc.top_entries import energies, top_entries

__all__ = [
    "LARGE",
    "Pairs",
    "Plan",
    "Watch",
    "energy_count",
    "gradient",
    "hit_rate",
    "largest",
    "participation",
]

LARGE = 10.0  # |N| of Adam is about 1


def largest(x: Float[Tensor, "n d"], s: int) -> tuple[Int[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Places and magnitudes of the s largest of each row; places where x is 0 are −1."""
    top = x.abs().topk(s, dim=-1)
    return top.indices.masked_fill(top.values == 0, -1), top.values


def energy_count(
    x: Float[Tensor, "n d"], share: float, *, most: int | None = None
) -> Float[Tensor, " n"]:
    """Entries of each row, the largest first, until their squares reach a share of ‖x‖².

    Args:
        x: rows.
        share: in (0, 1].
        most: nonzeros of a row at most, where that is known.
    """
    top = x.abs().topk(min(most or x.shape[-1], x.shape[-1]), dim=-1).values.double()
    sums = top.square().cumsum(-1)
    wanted = share * sums[..., -1:] * (1 - 1e-12)  # the share itself is enough
    return ((sums < wanted).sum(-1) + (sums[..., -1] > 0)).double()


def participation(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """``(Σx²)²/Σx⁴``: n of n equal entries; 0 of a row of zeros."""
    x = x.double()
    x = x / x.abs().amax(-1, keepdim=True).clamp(min=1e-300)
    squares = x.square()
    return squares.sum(-1).square() / squares.square().sum(-1).clamp(min=1e-300)


def hit_rate(found: Int[Tensor, "n s"], true: Int[Tensor, "n t"]) -> float:
    """Share of the true places that are among the found ones; −1 marks none in either."""
    there = (true[:, :, None] == found[:, None, :]).any(-1) & (true >= 0)
    return float(there.sum() / (true >= 0).sum().clamp(min=1))


#: β₁ and β₂, each.
Pairs = tuple[tuple[float, float], ...]


class Plan(Protocol):
    """What to watch; the study's config says what each is."""

    @property
    def betas(self) -> Pairs: ...
    @property
    def recovered(self) -> Pairs: ...
    @property
    def cells(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def kappas(self) -> tuple[int, ...]: ...
    @property
    def measure(self) -> tuple[int, ...]: ...
    @property
    def scales(self) -> tuple[float, ...]: ...
    @property
    def epsilons(self) -> tuple[float, ...]: ...
    @property
    def decode_kappa(self) -> int: ...
    @property
    def chunker(self) -> str: ...
    @property
    def projection(self) -> str: ...
    @property
    def recovery(self) -> str: ...


class Watch:
    """Accumulates the moments of what MESGC keeps of the gradients, and measures them.

    Args:
        parameters: the matrices, all of one shape.
        plan: what to watch: cells, κ, β and scales.
        seed: of A and of the chunker.

    Raises:
        ConfigError: matrices of several shapes.
    """

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, *, seed: int) -> None:
        shapes = sorted({tuple(p.shape) for p in parameters})
        if len(shapes) != 1:
            raise ConfigError(f"watched matrices must have one shape, got {shapes}")
        self.parameters, self.plan = list(parameters), plan
        self.step, self.energy = 0, torch.zeros(len(parameters), dtype=torch.float64)
        self.cells = [_Cell(plan, int(c), int(s), parameters, seed) for c, s in plan.cells]
        self.found: dict[str, Any] = {"moments": [], "recovery": [], "decodes": [], "rms": []}

    def look(self, step: int) -> None:
        """After an optimizer step, before its gradients are dropped."""
        self.step = step
        gradients = [gradient(p) for p in self.parameters]
        energy = energies(gradients).cpu()
        self.energy += energy
        self.found["rms"].append(_short(float((energy.mean() / gradients[0].numel()).sqrt())))
        for cell in self.cells:
            cell.accumulate(gradients)
        if step not in self.plan.measure:
            return
        for cell in self.cells:
            self.found["moments"] += cell.moments(step)
            self.found["recovery"] += cell.recovery(step)
        if step == max(self.plan.measure):
            rms = (self.energy / (step * gradients[0].numel())).sqrt()
            for cell in self.cells:
                self.found["decodes"] += cell.decodes(step, rms)


class _Cell:
    """One way to cut and sparsify, with moments for every pair of β."""

    def __init__(
        self, plan: Plan, chunks: int, kept: int, parameters: Sequence[Tensor], seed: int
    ) -> None:
        self.plan, self.chunks, self.kept, self.seed = plan, chunks, kept, seed
        self.chunker: Chunker = sgc.create("chunker", plan.chunker, chunks=chunks, seed=seed)
        self.length = self.chunker.length(parameters[0].numel())
        self.device = parameters[0].device
        size = (len(parameters) * chunks, self.length)
        self.M, self.V = ({tuple(b): self._zeros(size) for b in plan.betas} for _ in "MV")
        self.made: dict[int, Projection] = {}

    def _zeros(self, size: tuple[int, int]) -> Tensor:
        return torch.zeros(size, device=self.device)

    @property
    def name(self) -> dict[str, int]:
        return {"chunks": self.chunks, "s": self.kept}

    @cached_property
    def solver(self) -> Solver:
        made: Solver = sgc.create("recovery", self.plan.recovery)
        return made

    def projection(self, k: int) -> Projection:
        """The projection on k numbers."""
        if k not in self.made:
            size = (k, self.length)
            self.made[k] = sgc.create(
                "projection", self.plan.projection, *size, seed=self.seed, device=self.device
            )
        return self.made[k]

    def accumulate(self, gradients: Sequence[Tensor]) -> None:
        """``M ← β₁ M + (1 − β₁) G̃``, ``V ← β₂ V + (1 − β₂) G̃²``."""
        top = top_entries(gradients, self.chunker, self.kept, energy=False)
        index, values = top.index.flatten(0, 1), top.values.flatten(0, 1)
        p = self._zeros((index.shape[0], self.length)).scatter_(1, index, values)
        q = p.square()
        for pair in self.M:
            adam.accumulate(self.M[pair], self.V[pair], p, q, beta1=pair[0], beta2=pair[1])

    def moments(self, step: int) -> list[dict[str, Any]]:
        """How sparse they are, as means over the chunks of all matrices."""
        rows = []
        most = min(self.length, self.kept * step)
        for (beta1, beta2), M in self.M.items():
            V = self.V[beta1, beta2]
            row = {"step": step, **self.name, "beta1": beta1, "beta2": beta2}
            for which, x in (("m", M), ("v", V)):
                row |= _summary(which, x, self.kept, most)
            row["overlap"] = _short(hit_rate(largest(M, self.kept)[0], largest(V, self.kept)[0]))
            rows.append(row)
        return rows

    def recovery(self, step: int) -> list[dict[str, Any]]:
        """What s_c atoms of OMP give back of ``A M`` and ``A V``."""
        rows = []
        for kappa in self.plan.kappas:
            k = round(kappa * self.kept)
            if 2 * k > self.length:  # that compresses nothing
                continue
            for pair in map(tuple, self.plan.recovered):
                found = self._recovered(k, self.M[pair], self.V[pair])
                name = {"step": step, **self.name, "kappa": kappa, "k": k}
                rows.append({**name, "beta1": pair[0], "beta2": pair[1], **found})
        return rows

    def _recovered(self, k: int, M: Tensor, V: Tensor) -> dict[str, float]:
        A = self.projection(k)
        m, v = (self.solver.solve(A, A.matvec(x), sparsity=self.kept) for x in (M, V))
        there = M.gather(1, m.support.clamp(min=0)).masked_fill(m.support < 0, 0)
        top, best = largest(M, self.kept)
        total = M.double().square().sum(1).clamp(min=1e-300)
        lost = m.to_dense(self.length) - M
        used = v.support >= 0
        same = (m.support[:, :, None] == v.support[:, None, :]) & (v.values > 0)[:, None, :]
        read = same.any(-1) & (m.support >= 0)
        found = {
            "hit_m": hit_rate(m.support, top),
            "hit_v": hit_rate(v.support, largest(V, self.kept)[0]),
            "energy": _share(there, total),
            "best": _share(best, total),
            "error": _share(lost, total),
            "negative_v": float(((v.values < 0) & used).sum() / used.sum().clamp(min=1)),
            "no_v": 1 - float(read.sum() / (m.support >= 0).sum().clamp(min=1)),
        }
        return {name: _short(value) for name, value in found.items()}

    def decodes(self, step: int, rms: Float[Tensor, " n"]) -> list[dict[str, Any]]:
        """Entries of N at other gradient scales: ``g·M`` and ``g²·V`` are their moments.

        Args:
            step: for the bias correction.
            rms: of each matrix's gradients so far, which the scale replaces.
        """
        rows: list[dict[str, Any]] = []
        beta1, beta2 = self.plan.recovered[-1]
        k = round(self.plan.decode_kappa * self.kept)
        if 2 * k > self.length:
            return rows
        A = self.projection(k)
        unit = rms.masked_fill(rms == 0, 1)  # moments of a matrix without gradients are 0, too
        unit = unit.to(self.device).repeat_interleave(self.chunks)[:, None]
        M = (self.M[beta1, beta2] / (1 - beta1**step) / unit).float()
        V = (self.V[beta1, beta2] / (1 - beta2**step) / unit**2).float()
        first, second = A.matvec(M), A.matvec(V)
        for name in sgc.available("decode"):
            decode = sgc.create("decode", name)
            for scale in self.plan.scales:
                for eps in self.plan.epsilons:
                    support, N = decode(
                        self.solver,
                        A,
                        first * scale,
                        second * scale**2,
                        sparsity=self.kept,
                        eps=eps,
                    )
                    sizes = N.abs()[support >= 0]
                    rows.append(
                        {
                            **self.name,
                            "decode": name,
                            "scale": scale,
                            "eps": eps,
                            "max": _short(float(sizes.max())),
                            "median": _short(float(sizes.median())),
                            "large": _short(float((sizes > LARGE).double().mean())),
                        }
                    )
        return rows


def _summary(which: str, x: Tensor, kept: int, most: int) -> dict[str, float]:
    top = largest(x, kept)[1].double()
    share = top.square().sum(-1) / x.double().square().sum(-1).clamp(min=1e-300)
    found: Mapping[str, Tensor] = {
        "nonzero": (x != 0).double().sum(-1),
        "90": energy_count(x, 0.9, most=most),
        "99": energy_count(x, 0.99, most=most),
        "participation": participation(x),
        "top": share,
    }
    return {f"{which}_{name}": _short(float(value.mean())) for name, value in found.items()}


def _share(x: Tensor, total: Tensor) -> float:
    """Of the energy of each row, as a mean over the rows."""
    return float((x.double().square().sum(1) / total).mean())


def _short(value: float) -> float:
    """Four digits: the rows are kept."""
    return float(f"{value:.4g}")


def gradient(p: Tensor) -> Tensor:
    """Of a matrix after a backward pass.

    Raises:
        ConfigError: there is none, since adapters train in its place.
    """
    if p.grad is None:
        raise ConfigError("the method does not train the targets themselves: choose one that does")
    return p.grad
