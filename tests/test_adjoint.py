"""Adam on measurements, back by the adjoint: limits, and one step by hand."""

import pytest
import torch

import sgc
from tests.conftest import compressing
from tests.helpers import compressed, normal, one_step, run, small


def adjoint(**options):
    return sgc.create("compressor", "adjoint", **options)


@pytest.mark.parametrize("options", [{}, {"chunks": 3}, {"chunks": 4, "chunker": "strided"}])
def test_the_identity_is_torchs_adamw(options, device):
    """However it is cut: Adam works on every entry alone."""
    settings = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    identity = adjoint(measurements=24 * 16, projection="identity", **options)
    ours = run(compressed(identity, **settings), dtype=torch.float64, device=device)
    theirs = run(lambda p: torch.optim.AdamW(p, **settings), dtype=torch.float64, device=device)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("projection", ["srht", "gaussian"])
def test_two_steps_by_hand(projection, device):
    gradients = [normal(6, 8, seed=t, dtype=torch.float64) for t in (1, 2)]
    w = run(
        compressed(adjoint(measurements=20, projection=projection, seed=3, alpha=0.5), lr=0.1),
        steps=2,
        shape=(6, 8),
        dtype=torch.float64,
        gradient=lambda t: gradients[t],
        device=device,
    )
    A = sgc.create("projection", projection, 20, 48, seed=3, dtype=torch.float64).to_dense()
    expected = normal(6, 8).double().flatten()
    M = V = torch.zeros(20, dtype=torch.float64)
    for t, gradient in enumerate(gradients, 1):
        p = A @ gradient.flatten()
        M, V = 0.9 * M + 0.1 * p, 0.999 * V + 0.001 * p * p
        direction = (M / (1 - 0.9**t)) / ((V / (1 - 0.999**t)).sqrt() + 1e-8)
        expected = expected - 0.1 * 0.5 * (A.T @ direction)
    torch.testing.assert_close(w.flatten(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunker", ["contiguous", "permuted", "strided"])
def test_chunks_are_measured_apart(chunker):
    """Padding included: 7·9 numbers in 4 chunks of 16."""
    gradient = normal(7, 9, dtype=torch.float64)
    found = one_step(adjoint(measurements=20, chunks=4, chunker=chunker), gradient)
    A = sgc.create("projection", "srht", 5, 16, dtype=torch.float64).to_dense()
    chunks = sgc.create("chunker", chunker, chunks=4, seed=0)
    p = chunks.split(gradient.flatten()) @ A.T
    expected = chunks.merge((p / (p.abs() + 1e-8)) @ A, numel=63)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-10, atol=1e-12)


def test_an_entry_of_the_first_update_is_of_the_size_of_an_adam_step():
    update = one_step(adjoint(measurements=64), normal(64, 64, dtype=torch.float64))
    assert update.square().mean().sqrt().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"chunks": 4}])
def test_the_residual_is_what_the_rows_of_a_do_not_see(options):
    """SRHT of a power of two: covered and uncovered are orthogonal, and are the gradient."""
    gradient = normal(16, 16, dtype=torch.float64)
    options = {"measurements": 32, "chunker": "contiguous", **options}
    plain = one_step(adjoint(**options), gradient)
    both = one_step(adjoint(**options, residual="raw"), gradient)
    rest = (both - plain).view(options.get("chunks", 1), -1)
    A = sgc.create("projection", "srht", 32 // len(rest), rest.shape[1], dtype=torch.float64)
    rows = A.to_dense()
    assert (rest @ rows.T).abs().max() < 1e-12
    covered = gradient.view(rest.shape) - rest
    basis = torch.linalg.qr(rows.T)[0]
    torch.testing.assert_close(covered, covered @ basis @ basis.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("projection", compressing())
def test_covered_has_the_share_of_the_energy_that_k_has_of_d(projection):
    """Also where A Aᵀ is no multiple of the identity: over 200 operators."""
    gradient = normal(10, 10, dtype=torch.float64)
    rests = [
        one_step(adjoint(measurements=40, projection=projection, seed=s, residual="raw"), gradient)
        - one_step(adjoint(measurements=40, projection=projection, seed=s), gradient)
        for s in range(200)
    ]
    share = (torch.stack(rests).mean(0) * gradient).sum() / gradient.square().sum()
    assert share.item() == pytest.approx(0.6, abs=0.02)


def test_momentum_of_measurements_has_no_second_moment():
    gradient = normal(8, 8, dtype=torch.float64)
    compressor = adjoint(measurements=16, rule="momentum")
    A = sgc.create("projection", "srht", 16, 64, dtype=torch.float64).to_dense()
    expected = 0.1 * A.T @ (A @ gradient.flatten())
    torch.testing.assert_close(one_step(compressor, gradient).flatten(), expected)


def test_one_operator_for_all_parameters_of_a_length():
    weights = [torch.nn.Parameter(normal(*s)) for s in ((24, 16), (24, 16), (16, 24), (12, 30))]
    optimizer = sgc.CompressedAdamW(weights, compressor=small("adjoint", projection="gaussian"))
    for w in weights:
        w.grad = torch.ones_like(w)
    optimizer.step()
    report = sgc.state_report(optimizer)
    assert report.shared_bytes == 4 * 96 * (192 + 180)
    assert report.moments == 4 * 2 * 192


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="measurements=10 is not divisible by chunks=4.*12"):
        adjoint(measurements=10, chunks=4)
    with pytest.raises(ValueError, match="measurements must be at least 1"):
        adjoint(measurements=0)
    with pytest.raises(ValueError, match="rule=AdamMini looks at more"):
        adjoint(rule="adam-mini")
    with pytest.raises(ValueError, match="the chunker makes 2 chunks, but chunks=4"):
        adjoint(measurements=8, chunks=4, chunker=sgc.create("chunker", "permuted", chunks=2))
    assert "lower measurements=400" in adjoint(measurements=400).refuses((24, 16))
    identity = adjoint(measurements=8, chunks=2, projection="identity")
    assert "set measurements=384" in identity.refuses((24, 16))
    assert "chunks=64" in adjoint(measurements=64, chunks=64).refuses((7, 9))
