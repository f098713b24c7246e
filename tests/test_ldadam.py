"""LDAdam: held against its equations, and what error feedback keeps."""

import pytest
import torch

import sgc
from sgc.compressors.base import Step
from tests.helpers import compressed, normal, run

SHAPES = [(24, 16), (16, 24), (16, 16), (6, 4, 3, 3)]
BETAS = (0.908, 0.99)


def ldadam(**options):
    return sgc.create("compressor", "ldadam", **{"rank": 4, **options})


def gradient(t, shape=(24, 16)):
    """Some structure that stays, some noise."""
    base = normal(shape[0], 6, dtype=torch.float64) @ normal(6, 1000, dtype=torch.float64)
    flat = normal(*shape, seed=t + 1, dtype=torch.float64)
    return flat + base[:, : flat[0].numel()].reshape(shape)


def by_hand(gradients, *, rank, rho, feedback, lr=1e-2, betas=BETAS, eps=1e-8):
    """The equations for tall matrices, with dense lifts and torch's QR; yields W, B, V, E."""
    beta1, beta2 = betas
    W = E = torch.zeros_like(gradients[0])
    for t, gradient_ in enumerate(gradients):
        G = gradient_ + E if feedback else gradient_
        if t == 0:
            B = torch.linalg.svd(G)[2][:rank].T
            M = V = torch.zeros(G.shape[0], rank, dtype=G.dtype)
            old, old_M = B, M
        else:
            old, old_M, c1, c2 = B, M, 1 - beta1**t, 1 - beta2**t
            T = rho * (M / c1) @ B.T + (1 - rho) * G
            B, _ = torch.linalg.qr(T.T @ (T @ B))
            turn = old.T @ B
            M = M @ turn
            V = c2 * ((V / c2 - (old_M / c1) ** 2) @ turn**2 + (M / c1) ** 2).abs()
        R = G @ B
        lost = old_M @ old.T - M @ B.T
        E = G - R @ B.T + beta1 / (1 - beta1) * lost if feedback else E
        M = beta1 * M + (1 - beta1) * R
        V = beta2 * V + (1 - beta2) * R * R
        N = (M / (1 - beta1 ** (t + 1))) / ((V / (1 - beta2 ** (t + 1))).sqrt() + eps)
        W = W - lr * N @ B.T
        yield W, B, V, E


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize("rho", [0.908, 0.0])
def test_thirty_steps_by_hand(shape, feedback, rho):
    rows = shape[0]
    wide = rows < normal(*shape)[0].numel()

    def tall(G):
        G = G.reshape(rows, -1)
        return G.T if wide else G

    gradients = [gradient(t, shape) for t in range(30)]
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    compressor = ldadam(rho=rho, error_feedback=feedback)
    optimizer = sgc.CompressedAdamW([w], lr=1e-2, betas=BETAS, compressor=compressor)
    steps = by_hand([tall(G) for G in gradients], rank=4, rho=rho, feedback=feedback)
    for G, (W, B, V, E) in zip(gradients, steps, strict=True):
        w.grad = G.clone()
        optimizer.step()
        assert torch.equal(w.grad, G)
        state = optimizer.state[w]
        basis = state["basis"]
        close = {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(basis @ basis.T, B @ B.T, **close)
        torch.testing.assert_close(tall(w.detach()), W, **close)
        second = state["exp_avg_sq"]
        assert (second >= 0).all()
        torch.testing.assert_close(second.T if wide else second, V, rtol=1e-5, atol=1e-6)
        if feedback:
            torch.testing.assert_close(tall(state["error"]), E, rtol=1e-5, atol=1e-5)
    assert ("error" in optimizer.state[w]) == feedback


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_nothing_is_lost(shape):
    """Without momentum: what is covered and the new error are G + E, and do not overlap."""
    compressor = ldadam()
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = sgc.CompressedAdamW([w], betas=(0.0, 0.99), compressor=compressor)
    for t in range(8):
        before = optimizer.state[w].get("error", torch.zeros(shape)).clone()
        w.grad = gradient(t, shape)
        optimizer.step()
        state = optimizer.state[w]
        fed, basis = w.grad + before, state["basis"]
        wide = shape[0] < shape[1]
        covered = basis @ basis.T @ fed if wide else fed @ basis @ basis.T
        torch.testing.assert_close(covered + state["error"], fed)
        inside = basis.T @ state["error"] if wide else state["error"] @ basis
        assert inside.abs().max() < 1e-9
        assert state["error"].norm() > 0.1 * fed.norm()


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_the_gradients_of_the_compressed_are_fed(residual):
    compressor = ldadam(residual=residual)
    state = compressor.init_state((24, 16), torch.device("cpu"), torch.float64)
    state["error"] += normal(24, 16, seed=9, dtype=torch.float64)
    fed = gradient(0) + state["error"]
    compressed = compressor.compress([gradient(0)], [state], step=Step(1))
    assert torch.equal(compressed.gradients[0], fed)
    torch.testing.assert_close(compressed.p[0], fed @ state["basis"])


def test_the_residual_is_that_of_what_was_fed():
    """The weights also move by η·ρ·(what is uncovered of G + E)/rms(G + E)."""

    def weights(residual, steps):
        make = compressed(ldadam(residual=residual), lr=1.0)
        return run(make, steps=steps, dtype=torch.float64, gradient=gradient)

    w = torch.nn.Parameter(normal(24, 16).double())
    optimizer = sgc.CompressedAdamW([w], lr=1.0, compressor=ldadam())
    expected = torch.zeros_like(w)
    for t in range(3):
        fed = gradient(t) + optimizer.state[w].get("error", 0.0)
        w.grad = gradient(t)
        optimizer.step()
        basis = optimizer.state[w]["basis"]
        expected -= 0.5 * (fed - fed @ basis @ basis.T) / fed.square().mean().sqrt()
    torch.testing.assert_close(weights(0.5, 3) - weights(0.0, 3), expected.detach())


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_full_rank_has_no_error(shape):
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = sgc.CompressedAdamW([w], compressor=ldadam(rank=16))
    for t in range(25):
        w.grad = gradient(t, shape)
        optimizer.step()
        assert optimizer.state[w]["error"].abs().max() < 1e-11 * w.grad.abs().max()


def test_full_rank_is_adam_in_a_rotated_basis():
    """Gradients that keep their singular vectors keep the basis, so nothing is turned."""
    U, _ = torch.linalg.qr(normal(24, 16, dtype=torch.float64))
    V, _ = torch.linalg.qr(normal(16, 16, seed=1, dtype=torch.float64))
    order = torch.arange(16, 0, -1, dtype=torch.float64)
    rotated = [
        U * (order + 0.4 * normal(16, seed=t, dtype=torch.float64).tanh()) for t in range(25)
    ]
    make = compressed(ldadam(rank=16), betas=BETAS, lr=1e-2)
    ours = run(make, steps=25, dtype=torch.float64, gradient=lambda t: rotated[t] @ V.T)
    adam = compressed(None, betas=BETAS, lr=1e-2)
    theirs = run(adam, steps=25, dtype=torch.float64, gradient=lambda t: rotated[t])
    start = normal(24, 16).double()
    torch.testing.assert_close(ours - start, (theirs - start) @ V.T, rtol=1e-6, atol=1e-8)


def test_moments_stay_finite_and_positive_where_little_overlaps():
    """Gradients that jump between subspaces: |·| does its work."""
    w = torch.nn.Parameter(torch.zeros(24, 16))
    optimizer = sgc.CompressedAdamW([w], betas=BETAS, compressor=ldadam(rho=0.0))
    for t in range(40):
        w.grad = normal(24, 2, seed=t) @ normal(2, 16, seed=50 + t) * 10.0 ** (t % 7 - 3)
        optimizer.step()
        assert (optimizer.state[w]["exp_avg_sq"] >= 0).all()
        basis = optimizer.state[w]["basis"]
        torch.testing.assert_close(basis.T @ basis, torch.eye(4), rtol=0, atol=1e-5)
    assert w.isfinite().all()


def test_error_feedback_counts_in_the_report():
    def held(feedback):
        w = torch.nn.Parameter(normal(24, 16))
        optimizer = sgc.CompressedAdamW([w], compressor=ldadam(error_feedback=feedback))
        w.grad = normal(24, 16)
        optimizer.step()
        return sgc.state_report(optimizer).state_bytes

    assert held(True) - held(False) == 24 * 16 * 4


def test_options_are_checked():
    with pytest.raises(ValueError, match="rho must be below 1"):
        ldadam(rho=1.0)
    with pytest.raises(ValueError, match="rho"):
        ldadam(rho=-0.1)
