"""Exact moments of a training's sparsified gradients, beside what a sketch of them gives back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import sgc
from projections import Projection
from recovery import Solver
from sgc.finetune.config import ConfigError
from sgc.top_entries import energies
from studies.measures.moment_cells import Cell, Pairs
from studies.measures.moment_statistics import compare, hit_rate, largest, short, summary

__all__ = ["LARGE", "Plan", "Watch", "gradient"]

LARGE = 10.0  # |N| of Adam is about 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to watch.

    Args:
        cells: pairs (c, s_c): chunks of a matrix, entries kept of each chunk at a step.
        kappas: κ; k_c = κ·s_c. Those with k_c > d_c/2 are left out.
        betas: pairs (β₁, β₂) whose moments are followed; (0, 0) is the gradient itself.
        recovered: those of them that are measured and recovered; the last one is decoded.
        measure: steps, from 1, after which the moments are measured; the last one decodes, too.
        scales: root mean squares of a gradient's entries that N is decoded at.
        epsilons: values of ε there.
        decode_kappa: κ there.
        chunker, projection, recovery: registered names.

    Raises:
        ConfigError: a value outside of its limits.
    """

    cells: tuple[tuple[int, int], ...] = ((16, 1), (16, 3), (16, 8), (72, 31))
    kappas: tuple[int, ...] = (4, 8, 16, 32, 64)
    betas: Pairs = ((0.0, 0.0), (0.5, 0.9), (0.9, 0.95), (0.9, 0.999), (0.98, 0.999))
    recovered: Pairs = ((0.0, 0.0), (0.9, 0.999))
    measure: tuple[int, ...] = (1, 3, 10, 30, 60)
    scales: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    epsilons: tuple[float, ...] = (1e-12, 1e-8, 1e-6)
    decode_kappa: int = 8
    chunker: str = "permuted"
    projection: str = "gaussian"
    recovery: str = "omp"

    def __post_init__(self) -> None:
        for name in ("cells", "kappas", "betas", "recovered", "measure"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty: name at least one")
        if any(min(cell) < 1 for cell in self.cells) or min(self.kappas) < 1:
            raise ConfigError(
                f"cells={self.cells}, kappas={self.kappas}: chunks, entries and κ are at least 1"
            )
        for pair in self.betas:
            if not all(0 <= beta < 1 for beta in pair):
                raise ConfigError(f"betas lie in [0, 1), got {pair}")
        missing = [pair for pair in self.recovered if pair not in self.betas]
        if missing:
            raise ConfigError(f"recovered={missing[0]} is not among betas={self.betas}: add it")


class Watch:
    """Accumulates the moments of what MESGC keeps of the gradients, and measures them.

    Args:
        parameters: the matrices, all of one shape.
        plan: what to watch.
        seed: of A and of the chunkers.

    Attributes:
        found: lists of records, see :func:`studies.moment_sparsity.trial`.

    Raises:
        ConfigError: matrices of several shapes.
    """

    def __init__(self, parameters: Sequence[Tensor], plan: Plan, *, seed: int) -> None:
        shapes = sorted({tuple(p.shape) for p in parameters})
        if len(shapes) != 1:
            raise ConfigError(f"watched matrices must have one shape, got {shapes}")
        self.parameters, self.plan, self.seed = list(parameters), plan, seed
        self.energy = torch.zeros(len(parameters), dtype=torch.float64)
        self.cells = [
            Cell(
                sgc.create("chunker", plan.chunker, chunks=chunks, seed=seed),
                kept,
                plan.betas,
                parameters,
            )
            for chunks, kept in plan.cells
        ]
        self.solver: Solver = sgc.create("recovery", plan.recovery)
        self.made: dict[tuple[int, int], Projection] = {}  # (k, d_c) → A
        self.found: dict[str, Any] = {"moments": [], "recovery": [], "decodes": [], "rms": []}

    def look(self, step: int) -> None:
        """After an optimizer step, before its gradients are dropped."""
        gradients = [gradient(p) for p in self.parameters]
        energy = energies(gradients).cpu()
        self.energy += energy
        self.found["rms"].append(short(float((energy.mean() / gradients[0].numel()).sqrt())))
        for cell in self.cells:
            cell.accumulate(gradients)
        if step not in self.plan.measure:
            return
        for cell in self.cells:
            self.found["moments"] += self._moments(cell, step)
            self.found["recovery"] += self._recovery(cell, step)
        if step == max(self.plan.measure):
            rms = (self.energy / (step * gradients[0].numel())).sqrt()
            for cell in self.cells:
                self.found["decodes"] += self._decodes(cell, step, rms)

    def sketch(self, cell: Cell, kappa: int) -> Projection | None:
        """A for the chunks of a cell, with κ·s_c rows; None where that compresses nothing."""
        size = round(kappa * cell.kept), cell.length
        if 2 * size[0] > size[1]:
            return None
        if size not in self.made:
            device = self.parameters[0].device
            self.made[size] = sgc.create(
                "projection", self.plan.projection, *size, seed=self.seed, device=device
            )
        return self.made[size]

    def _moments(self, cell: Cell, step: int) -> list[dict[str, Any]]:
        """How sparse they are, as means over the chunks of all matrices."""
        rows, s, most = [], cell.kept, min(cell.length, cell.kept * step)
        for pair, M in cell.M.items():
            V = cell.V[pair]
            row: dict[str, Any] = {"step": step, **cell.name, "beta1": pair[0], "beta2": pair[1]}
            for which, x in (("m", M), ("v", V)):
                sparse = summary(x, s, most=most)
                row |= {f"{which}_{name}": value for name, value in sparse.items()}
            row["overlap"] = short(hit_rate(largest(M, s)[0], largest(V, s)[0]))
            rows.append(row)
        return rows

    def _recovery(self, cell: Cell, step: int) -> list[dict[str, Any]]:
        """What s_c atoms give back of ``A M`` and ``A V``."""
        rows = []
        for kappa in self.plan.kappas:
            A = self.sketch(cell, kappa)
            if A is None:
                continue
            for beta1, beta2 in self.plan.recovered:
                M, V = cell.M[beta1, beta2], cell.V[beta1, beta2]
                m, v = (self.solver.solve(A, A.matvec(x), sparsity=cell.kept) for x in (M, V))
                name = {"step": step, **cell.name, "kappa": kappa, "k": A.shape[0]}
                found = compare(M, V, m, v, cell.kept)
                rows.append({**name, "beta1": beta1, "beta2": beta2, **found})
        return rows

    def _decodes(self, cell: Cell, step: int, rms: Float[Tensor, " n"]) -> list[dict[str, Any]]:
        """Entries of N at other gradient scales: ``g·M`` and ``g²·V`` are their moments.

        Args:
            cell: whose moments.
            step: for the bias correction.
            rms: of each matrix's gradients so far, which the scale replaces.
        """
        A = self.sketch(cell, self.plan.decode_kappa)
        if A is None:
            return []
        first, second = map(A.matvec, cell.unbiased(self.plan.recovered[-1], step, rms))
        asked = [(scale, eps) for scale in self.plan.scales for eps in self.plan.epsilons]
        rows = []
        for name in sgc.available("decode"):
            decode = sgc.create("decode", name)
            for g, eps in asked:
                sketches = first * g, second * g**2
                support, N = decode(self.solver, A, *sketches, sparsity=cell.kept, eps=eps)
                sizes = N.abs()[support >= 0]
                found = {
                    "max": short(float(sizes.max())),
                    "median": short(float(sizes.median())),
                    "large": short(float((sizes > LARGE).double().mean())),
                }
                rows.append({**cell.name, "decode": name, "scale": g, "eps": eps, **found})
        return rows


def gradient(p: Tensor) -> Tensor:
    """Of a matrix after a backward pass.

    Raises:
        ConfigError: there is none, since adapters train in its place.
    """
    if p.grad is None:
        raise ConfigError("the method does not train the targets themselves: choose one that does")
    return p.grad
