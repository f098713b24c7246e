"""Leading singular subspaces: the full SVD is the oracle, and what gradients do wrong."""

import pytest
import torch

from sgc.low_rank import leading_bases

SHAPES = {"square": (96, 96), "wide": (96, 200), "tall": (200, 96)}
METHODS = ["exact", "randomized"]


def matrix(shape, spectrum, *, seed=0, dtype=torch.float64):
    """``U diag(σ) Vᵀ`` with random U and V."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randn(n, min(shape), generator=generator).double() for n in shape)
    U, V = torch.linalg.qr(rows).Q, torch.linalg.qr(columns).Q
    return ((U * spectrum) @ V.mT).to(dtype)


def power_law(side, exponent):
    return torch.arange(1, side + 1, dtype=torch.float64) ** -exponent


def oracle(G, rank):
    U, _, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return U[:, :rank] if G.shape[0] < G.shape[1] else Vh[:rank].mT


def energy(G, B):
    """Captured energy, as a part of what the best subspace of that rank captures."""
    G, B = G.double().cpu(), B.double().cpu()
    captured = (G.mT @ B if G.shape[0] < G.shape[1] else G @ B).square().sum()
    return float(captured / torch.linalg.svdvals(G)[: B.shape[1]].square().sum())


def smallest_cosine(B, other):
    return float(torch.linalg.svdvals(B.double().cpu().mT @ other.double().cpu()).min())


def assert_orthonormal(bases, tolerance=1e-5):
    eye = torch.eye(bases.shape[2], dtype=bases.dtype, device=bases.device)
    assert (bases.mT @ bases - eye).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_vectors_are_those_of_the_svd(device, shape, method, dtype):
    """σ_i = 0.7^i separates the vectors, so each of them, not only the subspace, has to agree."""
    spectrum = 0.7 ** torch.arange(96, dtype=torch.float64)
    matrices = [matrix(shape, spectrum, seed=seed, dtype=dtype).to(device) for seed in range(3)]

    bases = leading_bases(matrices, 6, method=method, power_iterations=3)

    assert bases.shape == (3, 96, 6)
    assert bases.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bases.device == matrices[0].device
    assert_orthonormal(bases, 1e-12 if dtype == torch.float64 else 1e-5)
    # Test vectors are rounded to the matrix's dtype on CUDA, and the error is second-order small.
    for G, B in zip(matrices, bases, strict=True):
        cosines = (oracle(G.cpu(), 6) * B.double().cpu()).sum(0).abs()
        assert cosines.min() > 1 - (1e-4 if dtype in (torch.bfloat16, torch.float16) else 1e-6)
        values = G.double() @ B.double() if shape != (96, 200) else G.double().mT @ B.double()
        ratios = values.norm(dim=0).cpu() / torch.linalg.svdvals(G.double().cpu())[:6]
        torch.testing.assert_close(ratios, torch.ones_like(ratios), rtol=1e-3, atol=0)


def test_auto_is_exact_below_1024_and_for_ranks_that_are_no_small_part(device):
    small = [matrix((96, 96), power_law(96, 0.5), dtype=torch.float32).to(device)]
    assert torch.equal(leading_bases(small, 4), leading_bases(small, 4, method="exact"))
    generator = torch.Generator().manual_seed(0)
    large = [torch.randn(1024, 1024, generator=generator).to(device)]
    assert torch.equal(
        leading_bases(large, 8, power_iterations=1),
        leading_bases(large, 8, power_iterations=1, method="randomized"),
    )
    # 4·(249 + 8) > 1024: the leading vector is exact, which no single iteration on noise gives.
    B = leading_bases(large, 249, power_iterations=1)[0]
    assert smallest_cosine(B[:, :4], oracle(large[0].cpu(), 4)) > 1 - 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_energy_on_a_power_law_grows_with_the_iterations(device, dtype):
    """σ_i = i^-1/2, r = 32: hardly any gap at r. Seen: .914, .985, .9945 (and .914, .987, .996 at
    4096×4096)."""
    G = matrix((1024, 1024), power_law(1024, 0.5), dtype=dtype).to(device)
    seen = [energy(G, leading_bases([G], 32, power_iterations=q)[0]) for q in (1, 2, 3)]
    assert seen[0] > 0.90
    assert seen[1] > 0.98
    assert seen[2] > 0.992
    wider = leading_bases([G], 32, power_iterations=2, oversample=32)[0]
    assert energy(G, wider) > 0.994


def test_a_warm_start_needs_fewer_iterations_on_a_matrix_that_drifts(device):
    """30 % of drift (Frobenius): the old basis .994, one warm iteration .9997, two cold .983."""
    G = matrix((1024, 1024), power_law(1024, 0.5), dtype=torch.float32)
    drift = torch.randn(G.shape, generator=torch.Generator().manual_seed(7))
    G, drifted = G.to(device), (G + 0.3 * drift * G.norm() / drift.norm()).to(device)
    old = leading_bases([G], 32, method="exact")

    warm = leading_bases([drifted], 32, start=old, power_iterations=1)
    cold = leading_bases([drifted], 32, power_iterations=2)

    assert energy(drifted, warm[0]) > 0.999
    assert energy(drifted, warm[0]) > energy(drifted, cold[0])
    assert energy(drifted, warm[0]) > energy(drifted, old[0]) + 0.003


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_zero_matrix_has_a_basis_and_keeps_its_start(device, method, warm):
    old = leading_bases([matrix((96, 96), power_law(96, 0.5)).float().to(device)], 6)
    zero = torch.zeros(96, 96, device=device)
    basis = leading_bases([zero], 6, method=method, start=old if warm else None)
    assert_orthonormal(basis)
    if warm:
        torch.testing.assert_close(basis, old, atol=1e-6, rtol=0)
    assert_orthonormal(leading_bases([zero], 6, method=method, start=torch.zeros_like(old)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rank_deficient_matrices_fill_the_basis(device, shape, method, dtype):
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.randint(-2, 3, (n, 3), generator=generator).double() for n in shape)
    G = (left @ right.mT).to(dtype)  # of rank 3, exactly, in bfloat16 too
    B = leading_bases([G.to(device)], 8, method=method)
    assert_orthonormal(B, 1e-12 if dtype == torch.float64 else 1e-5)
    assert smallest_cosine(B[0, :, :3], oracle(G, 3)) > 1 - 1e-4


def test_one_vector_repeated_and_full_width(device):
    """Rank one, and as many columns as the space has: nothing is left to oversample."""
    ones = torch.ones(40, 64, device=device)
    bases = leading_bases([ones, torch.eye(40, 64, device=device)], 40, method="randomized")
    assert_orthonormal(bases)
    torch.testing.assert_close(bases[0, :, 0], torch.full_like(bases[0, :, 0], 40**-0.5))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_counts_as_zero_and_stays_in_its_matrix(device, method):
    spectrum = power_law(96, 1)
    clean = [matrix((96, 200), spectrum, seed=i, dtype=torch.float32) for i in range(4)]
    clean[2][3, :] = 0
    clean[2][:, 5] = 0
    broken = [G.clone() for G in clean]
    broken[2][3, :] = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan]).repeat(50)
    broken[2][:, 5] = torch.nan
    broken = [G.to(device) for G in broken]
    broken.append(torch.full_like(broken[0], torch.nan))
    before = [G.clone() for G in broken]

    bases = leading_bases(broken, 6, method=method)

    assert_orthonormal(bases)
    expected = leading_bases([G.to(device) for G in clean], 6, method=method)
    torch.testing.assert_close(bases[:4], expected, atol=1e-5, rtol=0)
    for G, was in zip(broken, before, strict=True):
        torch.testing.assert_close(G, was, equal_nan=True, atol=0, rtol=0)


def test_matrices_do_not_disturb_each_other(device):
    spectrum = power_law(96, 1)
    matrices = [matrix((96, 96), spectrum, seed=i).float().to(device) for i in range(3)]
    matrices[1].zero_()
    together = leading_bases(matrices, 6, method="randomized")
    for i, G in enumerate(matrices):
        alone = leading_bases([G], 6, method="randomized")[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=0)


def test_many_matrices_go_in_parts(device, monkeypatch):
    matrices = [matrix((96, 96), power_law(96, 1), seed=i).float().to(device) for i in range(5)]
    start = leading_bases(matrices, 6)
    whole = leading_bases(matrices, 6, method="randomized", start=start)
    monkeypatch.setattr("sgc.low_rank._COPY_BYTES", 2 * 96 * 96 * 4)
    parts = leading_bases(matrices, 6, method="randomized", start=start)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("warm", [False, True])
def test_scale_does_not_matter(device, method, dtype, warm):
    G = matrix((96, 200), power_law(96, 1), dtype=dtype).to(device)
    start = leading_bases([G.roll(1, 0)], 6) if warm else None
    plain, tiny, huge = (
        leading_bases([(G.double() * 2.0**power).to(dtype)], 6, method=method, start=start)
        for power in (0, -100, 100)  # about 1e±30, where squares leave float32
    )
    torch.testing.assert_close(tiny, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(huge, plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1e-45, 3e38])
@pytest.mark.parametrize("method", METHODS)
def test_beyond_float32_a_basis_is_still_a_basis(device, method, scale):
    B = leading_bases([torch.full((96, 200), scale, device=device)], 6, method=method)
    assert_orthonormal(B)


@pytest.mark.parametrize("method", METHODS)
def test_signs(device, method):
    G = matrix((96, 96), 0.8 ** torch.arange(96), dtype=torch.float32).to(device)
    cold = leading_bases([G, -G], 6, method=method, power_iterations=4)
    largest = cold.gather(1, cold.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    torch.testing.assert_close(cold[0], cold[1], atol=1e-4, rtol=0)

    flips = torch.tensor([1.0, -1, -1, 1, -1, 1], device=device)
    warm = leading_bases([G], 6, method=method, power_iterations=4, start=cold[:1] * flips)
    torch.testing.assert_close(warm, cold[:1] * flips, atol=1e-4, rtol=0)


def test_devices_and_methods_agree(device):
    G = matrix((1024, 1024), power_law(1024, 1), dtype=torch.float32)
    here = leading_bases([G.to(device)], 8, power_iterations=4)[0].cpu()
    torch.testing.assert_close(
        here, leading_bases([G], 8, power_iterations=4)[0], atol=1e-4, rtol=0
    )
    exact = leading_bases([G], 8, method="exact")[0]
    torch.testing.assert_close(here, exact, atol=1e-2, rtol=0)


def test_the_seed_decides(device):
    G = matrix((1024, 1024), power_law(1024, 0.5), dtype=torch.float32).to(device)
    one, again, other = (leading_bases([G], 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=1e-3)


def test_layout_and_autograd_do_not_matter(device):
    G = matrix((96, 200), power_law(96, 1), dtype=torch.float32).to(device)
    strided = G.mT.contiguous().mT.requires_grad_()
    B = leading_bases([strided], 6, method="randomized")
    assert not B.requires_grad
    torch.testing.assert_close(B, leading_bases([G], 6, method="randomized"), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "svd"}, "auto, exact, randomized, got 'svd'"),
        ({"rank": 0}, "from 1 to the shorter side 8, got 0"),
        ({"rank": 9}, "from 1 to the shorter side 8, got 9"),
        ({"oversample": -1}, "got -1 and 2"),
        ({"power_iterations": 0}, "got 8 and 0"),
        ({"start": torch.zeros(1, 8, 3)}, r"\(1, 8, 2\), got \(1, 8, 3\)"),
        ({"matrices": []}, "of one shape"),
        ({"matrices": [torch.ones(3)]}, "of one shape"),
        ({"matrices": [torch.ones(8, 9), torch.ones(9, 8)]}, "of one shape"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {"matrices": [torch.ones(8, 12)], "rank": 2} | changes
    with pytest.raises(ValueError, match=message):
        leading_bases(arguments.pop("matrices"), arguments.pop("rank"), **arguments)
