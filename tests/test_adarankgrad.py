"""AdaRankGrad: GaLore where nothing adapts; ranks, refreshes and moments where it does."""

import io
import math

import pytest
import torch

import sgc
from sgc.report import effective_ranks
from tests.helpers import compressed, normal, run

SHAPES = [(24, 16), (16, 24)]


def adarankgrad(**options):
    return sgc.create("compressor", "adarankgrad", **{"rank": 6, **options})


def low_rank(r, shape=(24, 16), *, noise=1e-3, seed=0, dtype=torch.float32):
    G = normal(shape[0], r, seed=seed) @ normal(r, shape[1], seed=seed + 1)
    return (G / math.sqrt(r) + noise * normal(*shape, seed=seed + 2)).to(dtype)


def trained(compressor, gradients, *, dtype=torch.float32, **options):
    """The optimizer, its weight, and the live ranks and refreshes on the way."""
    w = torch.nn.Parameter(torch.zeros(gradients[0].shape, dtype=dtype))
    optimizer = sgc.CompressedAdamW([w], compressor=compressor, **options)
    ranks, refreshes = [], []
    for G in gradients:
        w.grad = G.to(dtype)
        optimizer.step()
        ranks.append(int(optimizer.state[w]["rank"]))
        refreshes.append(int(optimizer.state[w]["basis_step"]))
    return optimizer, w, ranks, refreshes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("residual", [0.0, 0.1])
def test_where_nothing_adapts_it_is_galore(shape, dtype, residual, device):
    same = {"rank": 4, "refresh_every": 7, "alpha": 0.5, "residual": residual}
    fixed = adarankgrad(min_rank=4, convergence=0, transfer="keep", **same)
    galore = sgc.create("compressor", "galore", **same)
    ours, theirs = (
        run(compressed(c), steps=25, shape=shape, dtype=dtype, device=device)
        for c in (fixed, galore)
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rank_follows_the_gradients_and_shapes_do_not(shape):
    gradients = [low_rank(r, shape) for r in (5, 5, 2, 2, 1, 1, 6, 6)]
    compressor = adarankgrad(threshold=0.01, refresh_every=2, convergence=0)
    optimizer, w, ranks, refreshes = trained(compressor, gradients)
    assert refreshes == [1, 1, 3, 3, 5, 5, 7, 7]
    assert ranks[::2] == ranks[1::2]
    assert ranks[0] > ranks[2] == 2 > ranks[4] == 1
    assert ranks[6] > 2  # and it rises again
    state = optimizer.state[w]
    assert state["basis"].shape == (16, 6)
    assert state["exp_avg"].shape == ((24, 6) if shape[0] == 24 else (6, 24))


def test_the_update_has_the_live_rank():
    compressor = adarankgrad(threshold=0.01)
    _, w, ranks, _ = trained(compressor, [low_rank(2)] * 3)
    assert ranks == [2, 2, 2]
    assert torch.linalg.matrix_rank(w.detach(), rtol=1e-4) == 2


def test_what_is_in_use_is_reported():
    weights = [torch.nn.Parameter(torch.zeros(s)) for s in ((24, 16), (24, 16), (16, 30), (7,))]
    groups = [
        {"params": weights[:3], "compressor": adarankgrad(threshold=0.01)},
        {"params": weights[3:], "compressor": None},
    ]
    optimizer = sgc.CompressedAdamW(groups)
    assert effective_ranks(optimizer) == []
    for w, r in zip(weights, (1, 3, 2, None), strict=True):
        w.grad = normal(7) if r is None else low_rank(r, tuple(w.shape))
    optimizer.step()
    found = effective_ranks(optimizer)
    assert [(row.owner, row.rank, row.largest) for row in found] == [
        ("0.0", 1, 6),
        ("0.1", 3, 6),
        ("0.2", 2, 6),
    ]
    for row, (m, n) in zip(found, ((24, 16), (24, 16), (16, 30)), strict=True):
        numbers = min(m, n) + 2 * max(m, n)  # Table 1: basis and two moments
        assert (row.in_use, row.held) == (row.rank * numbers, 6 * numbers)


@pytest.mark.parametrize("convergence", [0.5, 0.9])
def test_a_subspace_that_has_converged_is_replaced(convergence):
    """‖Ĝ_t‖ ≤ ς·√(1 − η)·‖G at the last refresh‖, and not before."""
    threshold = 0.19  # √0.81 = 0.9
    gradients = [low_rank(3) * 0.93**t for t in range(40)]
    compressor = adarankgrad(threshold=threshold, refresh_every=0, convergence=convergence)
    _, _, _, refreshes = trained(compressor, gradients)
    basis = torch.linalg.svd(low_rank(3))[2][:6].T  # holds nearly all of it
    expected, last = [], 1
    for t, G in enumerate(gradients, 1):
        inside = (G @ basis[:, : _rank(G, threshold)]).norm()
        if inside <= convergence * 0.9 * gradients[last - 1].norm():
            last = t
        expected.append(last)
    assert refreshes == expected
    assert len(set(refreshes)) > 2


def _rank(G, threshold):
    squares = torch.linalg.svdvals(G).square()
    return 1 + int((squares.flip(0).cumsum(0).flip(0)[1:] > threshold * squares.sum()).sum())


def test_it_is_sought_at_the_latest_after_a_while_or_never():
    gradients = [normal(24, 16, seed=t) for t in range(9)]
    late = trained(adarankgrad(refresh_every=4, convergence=0.01), gradients)[3]
    assert late == [1, 1, 1, 1, 5, 5, 5, 5, 9]
    assert trained(adarankgrad(refresh_every=0, convergence=0), gradients)[3] == [1] * 9


@pytest.mark.parametrize("transfer", ["rotate", "literal", "projection-aware"])
@pytest.mark.parametrize("shape", SHAPES)
def test_moments_are_carried_over(transfer, shape):
    """M is what the new subspace holds of the old one's; V has no negative number."""
    compressor = adarankgrad(threshold=0.01, refresh_every=3, convergence=0, transfer=transfer)
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = sgc.CompressedAdamW([w], compressor=compressor)
    wide = shape[0] < shape[1]
    for t in range(12):
        before = {k: v.clone() for k, v in optimizer.state[w].items()}
        w.grad = low_rank(1 + t % 5, shape, seed=t, dtype=torch.float64)
        optimizer.step()
        state = optimizer.state[w]
        assert (state["exp_avg_sq"] >= 0).all()
        if not before:
            continue
        turn = state["basis"].T @ before["basis"]
        reduced = state["basis"].T @ w.grad if wide else w.grad @ state["basis"]
        moved = turn @ before["exp_avg"] if wide else before["exp_avg"] @ turn.T
        torch.testing.assert_close(state["exp_avg"], 0.9 * moved + 0.1 * reduced)
        dead = state["exp_avg_sq"] if wide else state["exp_avg_sq"].T
        if transfer != "literal":
            assert not dead[int(state["rank"]) :].any()


def test_both_range_finders_train(device):
    for finder in ("subspace-iteration", "ssrf"):
        compressor = adarankgrad(range_finder=finder, refresh_every=5)
        w = run(compressed(compressor), steps=20, device=device)
        assert w.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rank_survives_saving(dtype):
    gradients = [low_rank(1 + t % 4, seed=t) for t in range(8)]
    make = {"threshold": 0.01, "refresh_every": 2, "convergence": 0.5}
    straight, w, ranks, _ = trained(adarankgrad(**make), gradients, dtype=dtype)
    first, half, some, _ = trained(adarankgrad(**make), gradients[:5], dtype=dtype)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed = torch.nn.Parameter(half.detach().clone())
    second = sgc.CompressedAdamW([resumed], compressor=adarankgrad(**make))
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for key, value in first.state[half].items():
        assert second.state[resumed][key].dtype == value.dtype == torch.float32
        assert torch.equal(second.state[resumed][key], value)
    for G in gradients[5:]:
        resumed.grad = G.to(dtype)
        second.step()
        some.append(int(second.state[resumed]["rank"]))
    assert some == ranks
    assert len(set(ranks)) > 1
    assert torch.equal(resumed, w)
    for key, value in straight.state[w].items():
        assert torch.equal(second.state[resumed][key], value)


def test_algorithm_5_draws_the_weights_to_zero():
    """W ← prox(W − η Q M): the map acts on the weights, not in the subspace."""
    l1, lr = 0.3, 0.1
    inner = sgc.create("compressor", "proximal-sgd", l1=l1)
    G = low_rank(2, dtype=torch.float64)
    w = torch.nn.Parameter(normal(24, 16, dtype=torch.float64))
    start = w.detach().clone()
    compressor = adarankgrad(inner=inner, threshold=0.01)
    optimizer = sgc.CompressedAdamW([w], lr=lr, compressor=compressor)
    w.grad = G
    optimizer.step()
    Q = torch.linalg.svd(G)[2][:2].T
    assert int(optimizer.state[w]["rank"]) == 2
    assert "exp_avg_sq" not in optimizer.state[w]
    target = start - lr * 0.1 * G @ Q @ Q.T
    expected = target.sign() * (target.abs() - lr * l1).clamp(min=0)
    torch.testing.assert_close(w.detach(), expected, rtol=1e-9, atol=1e-9)
    for t in range(150):
        w.grad = low_rank(2, seed=t, dtype=torch.float64) * 1e-3
        optimizer.step()
    assert (w == 0).float().mean() > 0.9


def test_algorithm_4_is_adafactor_in_the_subspace():
    if "adafactor" not in sgc.available("compressor"):
        pytest.skip("there is no Adafactor")
    compressor = adarankgrad(inner="adafactor", transfer="keep", threshold=0.01, refresh_every=3)
    gradients = [low_rank(1 + t % 5, seed=t) * 1e-5 for t in range(12)]
    optimizer, w, _, _ = trained(compressor, gradients)
    assert w.isfinite().all()
    assert "exp_avg" not in optimizer.state[w]
    plain = sgc.create("compressor", "adafactor")
    ours, theirs = ([torch.full((24, 16), 3.0)] for _ in "12")
    for mine, other in ((compressor.step_scale(ours), plain.step_scale(theirs)),):
        assert (mine is None) == (other is None)
        assert mine is None or torch.equal(mine, other)
    with pytest.raises(ValueError, match="use transfer='keep'"):
        adarankgrad(inner="adafactor")


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="min_rank=7 exceeds rank=6"):
        adarankgrad(min_rank=7)
    with pytest.raises(ValueError, match="convergence"):
        adarankgrad(convergence=-1)
