"""The limits that tie every method to AdamW, and single steps recomputed by hand."""

import pytest
import torch

import sgc
from sgc.low_rank import leading_bases
from tests.helpers import (
    compressed,
    normal,
    run,
)


def adamw_eps_under_root(gradients, w, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """The paper's Algorithm 1 in float64, by hand."""
    m = v = torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        w = w - lr * m_hat / (v_hat + eps).sqrt()
    return w


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_no_compression_is_algorithm_1(eps, device):
    """A = I, s = d, c = 1: SGC is AdamW with ε under the root, also where |M̂| > √V̂.

    There is nothing to recover then, so neither solver nor decode is asked.
    """
    gradients = [
        normal(24, 16, seed=t + 1, dtype=torch.float64).abs() * (t >= 40) for t in range(50)
    ]
    identity = sgc.create("compressor", "sgc", sparsity=384, kappa=1, projection="identity")
    w = run(
        compressed(identity, eps=eps),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    expected = adamw_eps_under_root(
        gradients, normal(24, 16, dtype=torch.float32).double(), eps=eps
    )
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-13)


def test_one_chunk_is_sgc(device):
    options = {"sparsity": 8, "kappa": 6, "projection": "gaussian", "seed": 3}
    plain = run(compressed(sgc.create("compressor", "sgc", **options)), device=device)
    one = run(
        compressed(sgc.create("compressor", "mesgc", chunks=1, chunker="contiguous", **options)),
        device=device,
    )
    assert torch.equal(plain, one)


@pytest.mark.parametrize("residual", [0.0, 0.3])
def test_full_rank_cesgc_is_mesgc_in_a_rotated_basis(residual, device):
    """r = m: the subspace loses nothing, so CESGC on G is MESGC on the rotated G, rotated back."""
    gradients = [normal(16, 24, seed=t + 1, dtype=torch.float64) for t in range(20)]
    sketch = {"sparsity": 16, "chunks": 4, "kappa": 5, "residual": residual}
    cesgc = sgc.create("compressor", "cesgc", rank=16, refresh_every=1000, **sketch)
    w = run(
        compressed(cesgc),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    basis = leading_bases(gradients[:1], 16)[0]
    rotated = run(
        compressed(sgc.create("compressor", "mesgc", **sketch)),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: basis.T @ gradients[t],
        device=device,
    )
    start = normal(16, 24).double()
    torch.testing.assert_close(w - start, basis @ (rotated - start), rtol=1e-6, atol=1e-9)


def test_full_rank_galore_is_adamw_in_a_rotated_basis(device):
    gradients = [normal(16, 24, seed=t + 1, dtype=torch.float64) for t in range(20)]
    galore = sgc.create("compressor", "galore", rank=16, refresh_every=1000)
    w = run(
        compressed(galore),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    basis = torch.linalg.svd(gradients[0])[0]
    rotated = run(
        compressed(None),
        steps=20,
        shape=(16, 24),
        dtype=torch.float64,
        gradient=lambda t: basis.T @ gradients[t],
        device=device,
    )
    start = normal(16, 24).double()
    torch.testing.assert_close(w - start, basis @ (rotated - start), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("transfer", ["keep", "rotate"])
def test_a_basis_found_at_every_step_is_the_same_one_while_the_gradients_share_it(transfer, device):
    """r = n and T = 1: the refresh keeps order and signs, so AdamW in the rotated basis goes on."""
    left, right = (torch.linalg.qr(normal(m, 16, seed=m, dtype=torch.float64))[0] for m in (24, 16))
    sizes = torch.arange(32, 16, -1, dtype=torch.float64)

    def gradient(t):
        turn = 1 if t % 3 else -1  # the sign of a whole gradient is no sign of the basis
        return turn * left * (sizes * (1 + 0.5 * t)) @ right.T

    galore = sgc.create(
        "compressor", "subspace", rank=16, refresh_every=1, transfer=transfer, source="svd"
    )
    w = run(compressed(galore), steps=20, dtype=torch.float64, gradient=gradient, device=device)
    rotated = run(
        compressed(None),
        steps=20,
        dtype=torch.float64,
        gradient=lambda t: gradient(t) @ right,
        device=device,
    )
    start = normal(24, 16).double()
    torch.testing.assert_close(w - start, (rotated - start) @ right.T, rtol=1e-6, atol=1e-9)


def test_the_first_step_of_mesgc_by_hand(device):
    """One step from zero moments: top s of each chunk, sign(g)·|g|/√(g²+ε), nothing elsewhere."""
    gradient = normal(24, 16, dtype=torch.float64)
    mesgc = sgc.create(
        "compressor", "mesgc", sparsity=8, chunks=4, kappa=20, chunker="contiguous", alpha=2.0
    )
    w = run(
        compressed(mesgc, lr=0.1),
        steps=1,
        dtype=torch.float64,
        gradient=lambda t: gradient,
        device=device,
    )
    moved = (normal(24, 16).double() - w).view(4, -1)
    expected = torch.zeros_like(moved)
    for row, chunk in zip(expected, gradient.view(4, -1), strict=True):
        top = chunk.abs().topk(2).indices
        row[top] = 0.1 * 2.0 * chunk[top] / (chunk[top] ** 2 + 1e-8).sqrt()
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-12)


def test_residual_by_hand(device):
    """Off the support the weights move by η·ρ·G/rms(G); on it by the plain update."""
    gradient = normal(24, 16, dtype=torch.float64)
    options = {"sparsity": 8, "chunks": 4, "kappa": 20}
    runs = [
        run(
            compressed(sgc.create("compressor", "mesgc", residual=rho, **options)),
            steps=1,
            dtype=torch.float64,
            gradient=lambda t: gradient,
            device=device,
        )
        for rho in (0.0, 0.5)
    ]
    off = runs[0] == normal(24, 16).double()
    assert int((~off).sum()) == 8
    assert torch.equal(runs[0][~off], runs[1][~off])
    expected = -1e-3 * 0.5 * gradient / gradient.square().mean().sqrt()
    torch.testing.assert_close((runs[1] - runs[0])[off], expected[off], rtol=1e-9, atol=1e-12)


def test_residual_of_a_subspace_is_what_it_does_not_see(device):
    gradient = normal(24, 16, dtype=torch.float64)
    runs = [
        run(
            compressed(sgc.create("compressor", "galore", rank=3, residual=rho)),
            steps=1,
            dtype=torch.float64,
            gradient=lambda t: gradient,
            device=device,
        )
        for rho in (0.0, 0.5)
    ]
    basis = torch.linalg.svd(gradient)[2][:3].T
    outside = gradient - gradient @ basis @ basis.T
    expected = -1e-3 * 0.5 * outside / gradient.square().mean().sqrt()
    torch.testing.assert_close(runs[1] - runs[0], expected, rtol=1e-8, atol=1e-12)
