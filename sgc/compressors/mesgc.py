"""MESGC: chunk, keep the top s, project; and back by sparse recovery."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projections import Projection
from recovery import Solver
from sgc import adam, kernels
from sgc.chunkers.base import Chunker
from sgc.compressors.base import Compressed, Moments, Shape, State, Step
from sgc.compressors.measured import Measured
from sgc.counting import counted_cache
from sgc.decodes.base import Decode
from sgc.options import number, part, whole
from sgc.residuals.base import Residual
from sgc.rules.base import Rule
from sgc.sketch import sketch
from sgc.top_entries import top_entries
from sgc.updates import Sparse, Update


class MESGC(Measured):
    """Memory-efficient SGC (the paper, Appendix F), for a parameter of any shape.

    The parameter is a flat vector of d numbers; M and V are ``2·κ·s`` numbers whatever d is
    (Table 1).

    f (eq. 3): cut G into c chunks of length ``d_c = ⌈d/c⌉``, keep the ``s_c = s/c`` entries of each
    that are largest in magnitude, G̃, and measure ``p = A G̃``, ``q = A G̃²`` with one
    ``A ∈ R^{k_c×d_c}``, ``k_c = κ s_c``, shared by all chunks and parameters of that length.
    g: the decode recovers an Adam direction of s_c entries a chunk from the moments of p and q.

    Defaults are the sizes of the paper's smallest setting (Table 9), with the chunks dealt out by a
    seeded permutation; ``chunker="contiguous", decode="literal", alpha=2`` is the paper's own.

    The paper, read where it is ambiguous: eq. 4 prints β₁ for V, Algorithm 3 has β₂ (used here);
    ε stands under the root (Algorithms 1 and 3); there is no weight decay in Algorithm 3 (here it
    is decoupled, and off by default); α (eq. 7) multiplies N.

    With ``s_c = d_c`` and an orthogonal A (``projection="identity"``) nothing is lost or searched:
    the update is Algorithm 1's AdamW, ε under the root.

    Args:
        sparsity: s, entries kept of the whole parameter; divisible by chunks.
        chunks: c, of the whole parameter.
        kappa: κ = k/s, measurements for each entry kept; at least 1. κ·s/c is rounded to a whole
            number.
        alpha: α, scale of the update.
        residual: what the weights do off the recovered support: ρ of ρ·G/rms(G) (0 is the paper),
            a residual rule or its name; only with a decode given by name.
        rule: ρ between f and g, where it works on each measurement alone.
        projection: registered name of A.
        recovery: the solver of the decode, its name or an object.
        chunker: how the parameter is cut, its name or an object.
        decode: how two compressed moments become an update, its name or an object.
        seed: of A and of the chunker.

    Raises:
        ValueError: options that do not fit each other, with the numbers.
    """

    def __init__(
        self,
        *,
        sparsity: int = 256,
        chunks: int = 256,
        kappa: float = 8,
        alpha: float = 1.0,
        residual: float | str | Residual | None = None,
        rule: str | Rule = "adam",
        projection: str = "gaussian",
        recovery: str | Solver = "auto",
        chunker: str | Chunker = "permuted",
        decode: str | Decode = "joint",
        seed: int = 0,
    ) -> None:
        sparsity, chunks = whole("sparsity", sparsity), whole("chunks", chunks)
        if sparsity < 1 or chunks < 1:
            raise ValueError(
                f"sparsity and chunks must be at least 1, got sparsity={sparsity}, chunks={chunks}"
            )
        if sparsity % chunks:
            raise ValueError(
                f"sparsity={sparsity} is not divisible by chunks={chunks}: each chunk keeps "
                f"s/c entries; try sparsity={max(1, round(sparsity / chunks)) * chunks}"
            )
        if residual is not None and isinstance(decode, Decode):
            raise ValueError("give residual to the decode object, not beside it")
        self.sparsity, self.kappa = sparsity, number("kappa", kappa, least=1)
        super().__init__(
            max(1, round(self.kappa * (sparsity // chunks))),
            chunks=chunks,
            chunker=chunker,
            projection=projection,
            rule=rule,
            seed=seed,
        )
        self.alpha = number("alpha", alpha)
        self.recovery: Solver = part("recovery", recovery)
        ours = {} if residual is None else {"residual": residual}
        self.decode: Decode = part("decode", decode, **ours)
        self.residual = self.decode.residual

    @property
    def chunk_sparsity(self) -> int:
        """``s_c = s/c``."""
        return self.sparsity // self.chunks

    def remedies(self, length: int) -> dict[str, str]:
        return {
            "exactly": f"kappa={length / self.chunk_sparsity:.17g}",
            "fewer": f"lower kappa={self.kappa:g} or sparsity={self.sparsity}",
        }

    def refuses_chunks(self, length: int) -> str | None:
        if self.chunk_sparsity > length:
            return f"of which sparsity={self.sparsity} would keep {self.chunk_sparsity}"
        return None

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        length = self.chunk_length(shape)
        A = self.operator(length, device, dtype)
        if device.type == "meta" or self._is_exact(length):
            return
        nothing = torch.zeros(1, A.shape[0], device=device, dtype=dtype)
        self.recovery.solve(A, nothing, sparsity=self.chunk_sparsity)  # fills the solver's cache

    def size(self, size: int) -> dict[str, Any]:
        """More chunks, each as dense and as long to measure as the default's."""
        return {"chunks": size, "sparsity": size * self.chunk_sparsity}

    def compress(
        self, gradients: Sequence[Tensor], states: Sequence[State], *, step: Step
    ) -> Compressed:
        wants_energy = self.residual_rule.active and self.residual_rule.wants_energy
        top = top_entries(gradients, self.chunker, self.chunk_sparsity, energy=wants_energy)
        length = self.chunker.length(gradients[0].numel())
        A = self.operator(length, top.values.device, top.values.dtype)
        self._operators.warn_of_few_columns(length)
        p, q = sketch(A, top.index.flatten(0, 1), top.values.flatten(0, 1))
        p, q = (t.unflatten(0, (len(gradients), self.chunks)) for t in (p, q))
        return Compressed(p, q, gradients, energy=top.energy)

    def decompress(
        self,
        moments: Moments,
        compressed: Compressed,
        states: Sequence[State],
        *,
        step: Step,
    ) -> Update:
        n, numel = moments.first.shape[0], compressed.gradients[0].numel()
        length = self.chunker.length(numel)
        support, values = self._directions(moments, length, step.eps)
        if self.chunker.layout and kernels.usable([values]):
            from sgc.kernels.top_entries import to_parameter  # noqa: PLC0415 — needs CuPy

            place, values = to_parameter(
                support,
                values,
                numel=numel,
                chunks=self.chunks,
                length=length,
                dealt=self.chunker.dealt,
                alpha=self.alpha,
            )
            return Sparse(place.view(n, -1), values.view(n, -1))
        values = (values * self.alpha).view(n, -1)
        support = support.view(n, self.chunks, -1)
        offset = torch.arange(0, self.chunks * length, length, device=support.device)[:, None]
        place = self.chunker.source(support.clamp(min=0) + offset, length=length)
        unused = (support < 0) | (place >= numel)  # empty slots, and padding that was picked
        place = place.masked_fill(unused, -1).flatten(1)
        return Sparse(place, values.masked_fill(unused.flatten(1), 0))

    def _directions(
        self, moments: Moments, length: int, eps: float
    ) -> tuple[Int[Tensor, "chunks s"], Float[Tensor, "chunks s"]]:
        first = moments.first.flatten(0, 1)
        second = None if moments.second is None else moments.second.flatten(0, 1)
        A = self.operator(length, first.device, first.dtype)
        if self._is_exact(length):
            everything = torch.arange(length, device=first.device).expand(first.shape[0], -1)
            v = None if second is None else A.rmatvec(second)
            return everything, adam.direction(A.rmatvec(first), v, eps=eps, eps_under_root=True)
        return self.decode(self.recovery, A, first, second, sparsity=self.chunk_sparsity, eps=eps)

    def shared_tensors(self) -> dict[str, int]:
        report = super().shared_tensors()
        for where, A in self._operators.made().items():
            report[f"solver's cache for A {where}"] = self._cached_bytes(A)
        return report

    def _is_exact(self, length: int) -> bool:
        """Whether nothing is left out and Aᵀ undoes A, so that there is no support to find."""
        return self._operators.orthogonal and self.chunk_sparsity == length

    def _cached_bytes(self, A: Projection) -> int:
        if self._is_exact(A.shape[1]):
            return 0
        if A.device.type != "meta":
            return self.recovery.cached_nbytes(A)
        return counted_cache(self.recovery, A, self._operators.sample(A.shape[1], A.dtype))
