"""Leading singular subspaces of many matrices of one shape: what a subspace refresh needs.

With A the matrix turned so that its shorter side comes first (``side × long``), one power iteration
of a block X (``side × l``) is ``Y = orth(Aᵀ orth(X))``, ``X ← A Y``: randomised subspace iteration,
Algorithm 4.4 of Halko, Martinsson & Tropp (2011), started on the shorter side, where the test
vectors are few and an old basis can take their place. The last block gives the answer without
another product: ``A Y = X = Q R`` with ``Q = orth(X)``, so the left singular vectors E of the l×l
matrix R turn Q into those of ``A Y``, and ``Q E[:, :r]`` is the basis. (A Rayleigh–Ritz step on A
itself costs a third product for the same energy to half a per mille.)

The products read the matrices in their own dtype on a GPU. Everything of width l is batched and in
float64, where Gram matrices of float32 data lose nothing (entries of 1e±30 included) and shifted
CholeskyQR (Fukaya et al. 2020) is as good as QR.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from projections.seeding import stream
from sgc.adam import moment_dtype

METHODS = ("auto", "exact", "randomized")
_HALVES = (torch.bfloat16, torch.float16)
_COPY_BYTES = 2**30  # matrices that are worked on together: their clean copy stays below this
_TINY = 1e-200  # keeps 0/0 away in float64


@torch.no_grad()
def leading_bases(
    matrices: Sequence[Float[Tensor, "m n"]],
    rank: int,
    *,
    start: Float[Tensor, "count side r"] | None = None,
    method: str = "auto",
    oversample: int = 8,
    power_iterations: int = 2,
    seed: int = 0,
) -> Float[Tensor, "count side r"]:
    """Orthonormal bases of the leading singular subspaces on the shorter side, by singular value.

    ``U[:, :r]`` for m < n, otherwise ``V[:, :r]``. Every power iteration reads the matrix twice.
    Captured energy ``‖GᵀB‖²/Σ_{i≤r} σ_i²`` (the best is 1) at 4096×4096, r = 32, oversample 8:

        power_iterations                        1        2        3        4
        σ_i = i^-1/2 (hardly a gap), cold     .9136    .9868    .9955    .9979
        σ_i = i^-1, cold                      .9976    .9997    .9999   1.0000

    After a drift of 30 % (of 100 %) in Frobenius norm the first one's old basis captures .9984
    (.9822), one iteration from there .99998 (.9997), two from nothing .9859 (.9719): one iteration
    is enough with ``start``, and two are a floor without it.

    64 bfloat16 matrices of that size take 9 ms cold and 7 ms warm on an H200, and a transient GiB;
    a full SVD takes a second.

    Entries that are not finite count as 0. Directions that a matrix does not have (rank below r, or
    a zero matrix) are filled from ``start`` and then from the test vectors, so that a basis always
    has r orthonormal columns; a zero matrix keeps its start. Float32 products overflow, and such
    columns count as 0, above entries of about 1e36.

    A vector's sign is free. Without ``start`` the entry of largest magnitude is positive. With it a
    vector points the way of the old vector of the same index, because moments that live in the
    coordinates of the old basis go on in the new: a flip would turn their row against the gradient.
    (Vectors at right angles, overlap below 1e-4, have no old sign to keep: first rule.)

    On a GPU nothing here waits for the device but the status checks inside the SVDs (one of small
    matrices for every GiB, the clean copy's limit) and test vectors drawn for the first time.

    Args:
        matrices: at least one; equal shape, dtype and device.
        rank: r, from 1 to the shorter side.
        start: old bases; they take the place of the first r test vectors.
        method: ``exact`` (an SVD for each), ``randomized``, or ``auto``: randomised when the
            shorter side is at least 1024 and at least 4·(rank + oversample).
        oversample: test vectors beyond r; l = min(rank + oversample, side).
        power_iterations: at least 1; see the table.
        seed: of the test vectors, which are the same on every device.

    Returns:
        Bases in float32, or float64 for float64 matrices.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if oversample < 0 or power_iterations < 1:
        raise ValueError(
            "oversample must be at least 0 and power_iterations at least 1, "
            f"got {oversample} and {power_iterations}"
        )
    side = _checked_side(matrices, rank, start)
    width = min(rank + oversample, side)
    if method == "auto":
        method = "exact" if side < 1024 or 4 * width > side else "randomized"
    first = matrices[0]
    noise = _test_vectors(seed, side, width, first.device).expand(len(matrices), -1, -1)
    if start is None:
        tests = noise
    else:
        start = start.to(first.device, torch.float64).nan_to_num(0.0, 0.0, 0.0)
        tests = filled(torch.cat([start, noise[:, :, rank:]], dim=2), noise)
    if method == "exact":
        rest = orthonormal(tests[:, :, :rank])
        bases = torch.stack([_exact(G, B) for G, B in zip(matrices, rest, strict=True)])
        bases = orthonormal(bases)  # cuSOLVER's are so to 3e-5 only
    else:
        together = max(1, _COPY_BYTES // (first.numel() * _product_dtype(first).itemsize))
        bases = torch.cat(
            [
                _randomized(matrices[i : i + together], tests[i : i + together], power_iterations)
                for i in range(0, len(matrices), together)
            ]
        )[:, :, :rank]
    return _oriented(bases, start).to(moment_dtype(first.dtype))


def _checked_side(matrices: Sequence[Tensor], rank: int, start: Tensor | None) -> int:
    """Return the shorter side, or raise ValueError."""
    shapes = {tuple(G.shape) for G in matrices}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        raise ValueError("matrices must be one or more 2-D tensors of one shape")
    side = min(shape)
    if not 1 <= rank <= side:
        raise ValueError(f"rank must be from 1 to the shorter side {side}, got {rank}")
    expected = (len(matrices), side, rank)
    if start is not None and start.shape != expected:
        raise ValueError(f"start must have shape {expected}, got {tuple(start.shape)}")
    return side


@lru_cache(maxsize=8)
def _test_vectors(
    seed: int, side: int, width: int, device: torch.device
) -> Float[Tensor, "side l"]:
    """Gaussian columns, drawn on the CPU."""
    draw = stream(seed, "low rank", side, width).standard_normal((side, width))
    return torch.from_numpy(draw).to(device)


def _exact(G: Float[Tensor, "m n"], rest: Float[Tensor, "side r"]) -> Float[Tensor, "side r"]:
    """Singular vectors by a full SVD; ``rest`` for a zero matrix."""
    G = G.to(moment_dtype(G.dtype)).nan_to_num(0.0, 0.0, 0.0)
    largest = G.abs().amax()
    G = G / largest.clamp_min(torch.finfo(G.dtype).tiny)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    basis = U if G.shape[0] < G.shape[1] else Vh.mT
    return torch.where(largest > 0, basis[:, : rest.shape[1]].double(), rest)


def _randomized(
    matrices: Sequence[Float[Tensor, "m n"]],
    tests: Float[Tensor, "count side l"],
    power_iterations: int,
) -> Float[Tensor, "count side l"]:
    """Subspace iteration from ``tests``; all l Ritz vectors, the leading ones first."""
    A = _finite_copy(matrices)
    A = A if A.shape[1] < A.shape[2] else A.mT
    X = tests
    for _ in range(power_iterations):
        X = _times(A, _whitened(_times(A.mT, _whitened(X))))
    Q = orthonormal(filled(X, tests))
    R = Q.mT @ (X / X.abs().amax((1, 2), keepdim=True).clamp_min(_TINY))
    return Q @ _left_singular_vectors(R)


def _left_singular_vectors(R: Float[Tensor, "count l l"]) -> Float[Tensor, "count l l"]:
    """By singular value; of R = 0, the identity, so that ``start`` comes first.

    Right vectors of ``[Rᵀ; D]``, eigenvectors of ``R Rᵀ + D²``: the small descending diagonal D
    leaves no matrix singular, which cuSOLVER's gesvda refuses, and moves the rest by 1e-14. (64
    matrices of 40×40 on an H200: 0.7 ms; with ``eigh``, not batched there above 32×32, 33 ms.)
    """
    R = R / torch.linalg.matrix_norm(R, keepdim=True).clamp_min(_TINY)
    order = torch.linspace(2e-7, 1e-7, R.shape[1], dtype=R.dtype, device=R.device)
    tall = torch.cat([R.mT, order.diag().expand_as(R)], dim=1)
    if not R.is_cuda:
        return torch.linalg.svd(tall, full_matrices=False).Vh.mT
    try:
        return torch.linalg.svd(tall, full_matrices=False, driver="gesvda").Vh.mT
    except torch.linalg.LinAlgError:  # not seen; it would stop the whole batch
        return torch.linalg.svd(tall, full_matrices=False, driver="gesvd").Vh.mT


def _finite_copy(matrices: Sequence[Float[Tensor, "m n"]]) -> Float[Tensor, "count m n"]:
    """The matrices in one tensor of the products' dtype, with 0 for what is not finite."""
    dtype = _product_dtype(matrices[0])
    copy = matrices[0].new_empty((len(matrices), *matrices[0].shape), dtype=dtype)
    for G, clean in zip(matrices, copy, strict=True):
        torch.nan_to_num(G.to(dtype), 0.0, 0.0, 0.0, out=clean)
    return copy


def _times(
    A: Float[Tensor, "count p q"], X: Float[Tensor, "count q l"]
) -> Float[Tensor, "count p l"]:
    """``A X`` in A's dtype, summed in float32 or better; float64 and finite."""
    X = X.to(A.dtype)
    product = torch.bmm(A, X, out_dtype=torch.float32) if A.dtype in _HALVES else torch.bmm(A, X)
    return product.double().nan_to_num_(0.0, 0.0, 0.0)


def _whitened(X: Float[Tensor, "count p l"], shift: float = 1e-11) -> Float[Tensor, "count p l"]:
    """One pass of shifted CholeskyQR: ``X L⁻ᵀ`` with ``L Lᵀ = XᵀX + shift·tr(XᵀX)·I``.

    Orthonormal up to condition numbers of about 1e5; beyond, weaker directions stay small and the
    condition number falls by some 3e5. Columns of zeros stay so.
    """
    X = _scaled(X)
    gram = X.mT @ X
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += shift * diagonal.sum(1, keepdim=True).clamp_min(_TINY)
    factor = torch.linalg.cholesky_ex(gram).L
    eye = torch.eye(X.shape[2], dtype=X.dtype, device=X.device).expand_as(gram)
    # The inverse of a small triangle and one product: on a GPU 0.14 ms, a batched solve 0.46 ms.
    return X @ torch.linalg.solve_triangular(factor, eye, upper=False).mT


def orthonormal(X: Float[Tensor, "count p l"]) -> Float[Tensor, "count p l"]:
    """Orthonormal columns that span X's, by shifted CholeskyQR3; condition number up to 1e12."""
    for shift in (1e-11, 1e-15, 1e-15):
        X = _whitened(X, shift)
    return X


def filled(
    X: Float[Tensor, "count p l"], filler: Float[Tensor, "count p l"]
) -> Float[Tensor, "count p l"]:
    """X with a trace of ``filler``: it only shows where columns are zero or dependent."""
    return _scaled(X) + 1e-10 * _scaled(filler)


def _scaled(X: Float[Tensor, "count p l"]) -> Float[Tensor, "count p l"]:
    """Columns whose largest entry is ±1, or that are zero."""
    return X / X.abs().amax(1, keepdim=True).clamp_min(_TINY)


def _oriented(
    bases: Float[Tensor, "count side r"], start: Float[Tensor, "count side r"] | None
) -> Float[Tensor, "count side r"]:
    """The sign of every vector: see :func:`leading_bases`."""
    sign = bases.gather(1, bases.abs().argmax(1, keepdim=True))
    if start is not None:
        overlap = (bases * start).sum(1, keepdim=True)
        sign = torch.where(overlap.abs() > 1e-4, overlap, sign)
    return torch.where(sign < 0, -bases, bases)


def _product_dtype(G: Tensor) -> torch.dtype:
    """Half precision is multiplied as it is where sums can be float32: on CUDA."""
    return G.dtype if G.is_cuda and G.dtype in _HALVES else moment_dtype(G.dtype)
