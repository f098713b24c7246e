"""Where bases come from: the rank that information asks for, and a basis that follows gradients."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sgc
from projections.seeding import stream
from sgc.compressors.base import Step
from tests.helpers import compressed, normal, run

SHAPES = [(24, 16), (16, 24), (40, 12), (12, 12)]


def with_spectrum(m, n, spectrum, seed=0):
    """A matrix of these singular values."""
    U, _ = torch.linalg.qr(normal(m, len(spectrum), seed=seed, dtype=torch.float64))
    V, _ = torch.linalg.qr(normal(n, len(spectrum), seed=seed + 1, dtype=torch.float64))
    return (U * torch.tensor(spectrum, dtype=torch.float64)) @ V.T


def side_first(G):
    return G if G.shape[0] < G.shape[1] else G.T


def found(source, G, rank, *, start=None, turn=1):
    side = min(G.shape)
    state = source.init_state(side, rank, G.device, G.dtype)
    (basis,) = source.find([G], rank, start=start, states=[state], turn=turn)
    return basis, state


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_iass_finds_the_smallest_rank_that_keeps_the_information(data):
    """Against the singular values themselves, with both clamps."""
    m, n = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    side = min(m, n)
    positive = st.floats(1e-3, 10.0)
    spectrum = data.draw(st.lists(positive, min_size=side, max_size=side))
    G = with_spectrum(m, n, spectrum) * 10.0 ** data.draw(st.integers(-9, 9))
    most = data.draw(st.integers(1, side))
    least = data.draw(st.integers(1, most))
    threshold = data.draw(st.floats(0.0, 0.99))
    squares = torch.linalg.svdvals(G).square()
    lost = torch.stack([squares[r:].sum() for r in range(1, side + 1)]) / squares.sum()
    assume(((lost - threshold).abs() > 1e-12).all())
    r = min(max(1 + int((lost > threshold).sum()), least), most)

    source = sgc.create("source", "iass", threshold=threshold, min_rank=least)
    Q, state = found(source, G, most)
    assert int(state["rank"]) == r
    assert state["rank"].shape == ()
    assert not Q[:, r:].any()
    torch.testing.assert_close(Q[:, :r].T @ Q[:, :r], torch.eye(r, dtype=torch.float64))
    A = side_first(G)
    left_out = (A - Q @ Q.T @ A).square().sum() / A.square().sum()
    torch.testing.assert_close(left_out, lost[r - 1], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rank_that_is_there_is_seen_in_float32(shape):
    G = with_spectrum(*shape, [3.0, 2.0, 1.0]).float()
    _, state = found(sgc.create("source", "iass", threshold=0.0), G, 8)
    assert int(state["rank"]) == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_ssrf_is_algorithm_1(shape):
    G = normal(*shape, dtype=torch.float64)
    source = sgc.create("source", "iass", threshold=0.3, range_finder="ssrf", seed=4)
    Q, state = found(source, G, 8, turn=7)
    r = int(state["rank"])
    draw = stream(4, "ssrf", *shape, 8, 7).standard_normal((max(shape), 8))
    expected, _ = torch.linalg.qr(side_first(G) @ torch.from_numpy(draw))
    torch.testing.assert_close(Q, expected * (torch.arange(8) < r))
    A = side_first(G)

    def left_out(columns):
        B = expected[:, :columns]
        return (A - B @ B.T @ A).square().sum() / A.square().sum()

    assert r == 8 or left_out(r) <= 0.3
    assert r == 1 or left_out(r - 1) > 0.3
    assert not torch.equal(found(source, G, 8, turn=8)[0], Q)  # each refresh draws anew


def test_options_of_iass_are_checked():
    for options, message in [
        ({"threshold": 1.0}, "threshold must be below 1"),
        ({"threshold": -0.1}, "threshold"),
        ({"min_rank": 0}, "min_rank must be at least 1"),
        ({"range_finder": "svd"}, "subspace-iteration, ssrf"),
    ]:
        with pytest.raises(ValueError, match=message):
            sgc.create("source", "iass", **options)


def pca(shape, rank=4, **options):
    """A source with the basis of a first gradient, as a compressor would have it."""
    source = sgc.create("source", "online-pca", **options)
    G = normal(*shape, dtype=torch.float64)
    basis, state = found(source, G, rank)
    return source, advanced(source, G, basis, state), state


def advanced(source, G, basis, state, step=2):
    reduced = basis.T @ G if G.shape[0] < G.shape[1] else G @ basis
    return source.advance([G], reduced[None], basis[None], [state], step=Step(step))[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_online_pca_is_torchs_optimizer_on_the_loss(shape, optimizer):
    """The authors' loop: autograd, torch.optim, the basis after its gradient was projected."""
    source, basis, state = pca(shape, lr=0.02, optimizer=optimizer)
    P = torch.nn.Parameter(basis.clone())
    kinds = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}
    theirs = kinds[optimizer]([P], lr=0.02)
    for t in range(30):
        G = normal(*shape, seed=t + 1, dtype=torch.float64) * 10.0 ** (t % 9 - 4)
        H = side_first(G).T / G.norm()
        theirs.zero_grad()
        (H - H @ P @ P.T).square().sum().backward()
        theirs.step()
        basis = advanced(source, G, basis, state)
        torch.testing.assert_close(basis, P.detach(), rtol=1e-9, atol=1e-11)
    assert int(state["basis_moves"]) == 30


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "options", [{"optimizer": "sgd", "lr": 0.5}, {"lr": 0.01, "weight_decay": 0.0}], ids=str
)
def test_online_pca_finds_the_leading_subspace_of_a_fixed_matrix(shape, options):
    source, basis, state = pca(shape, **options)
    G = with_spectrum(*shape, [9.0, 8.0, 7.0, 6.0, 1.0, 0.5, 0.2, 0.1], seed=5)
    leading = torch.linalg.svd(side_first(G))[0][:, :4]

    def overlap():
        return (leading.T @ torch.linalg.qr(basis)[0]).square().sum() / 4

    assert overlap() < 0.7
    for _ in range(1500):
        basis = advanced(source, G, basis, state)
    assert overlap() > 0.999
    torch.testing.assert_close(basis.T @ basis, torch.eye(4).double(), rtol=0, atol=0.05)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("entry", [0.0, torch.nan])
def test_a_zero_gradient_leaves_basis_and_moments_alone(optimizer, entry):
    source, basis, state = pca((24, 16), optimizer=optimizer)
    G = normal(24, 16, seed=1, dtype=torch.float64)
    basis = advanced(source, G, basis, state)
    before = {key: value.clone() for key, value in state.items()}
    assert torch.equal(advanced(source, torch.full_like(G, entry), basis, state), basis)
    assert all(torch.equal(state[key], value) for key, value in before.items())


def test_the_gradient_that_names_a_basis_does_not_move_it():
    source, basis, state = pca((24, 16))
    assert int(state["basis_moves"]) == 0
    assert torch.equal(basis, found(source, normal(24, 16, dtype=torch.float64), 4)[0])
    moved = advanced(source, normal(24, 16, seed=1, dtype=torch.float64), basis, state)
    source.find([normal(24, 16, dtype=torch.float64)], 4, start=moved[None], states=[state], turn=9)
    assert int(state["basis_moves"]) == -1  # found again: its optimizer starts again
    assert not state["basis_avg"].any()


def test_online_subspace_descent_is_the_subspace_with_that_source(device):
    options = {"rank": 4, "alpha": 0.5, "residual": 0.1}
    named = sgc.create(
        "compressor", "online-subspace-descent", basis_lr=0.01, basis_decay=0.0, **options
    )
    source = sgc.create("source", "online-pca", lr=0.01, weight_decay=0.0)
    parts = sgc.create("compressor", "subspace", source=source, refresh_every=0, **options)
    ours, theirs = (run(compressed(c), steps=12, device=device) for c in (named, parts))
    assert torch.equal(ours, theirs)
    still = sgc.create("compressor", "online-subspace-descent", basis_lr=0.0, **options)
    galore = sgc.create("compressor", "galore", refresh_every=0, **options)
    ours, theirs = (run(compressed(c), steps=12, device=device) for c in (still, galore))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_an_update_is_lifted_by_the_basis_it_was_projected_on(shape):
    """Online Subspace Descent moves the basis in the same step, after the projection."""
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    compressor = sgc.create("compressor", "online-subspace-descent", rank=3)
    optimizer = sgc.CompressedAdamW([w], lr=1.0, compressor=compressor)
    for t in range(3):
        basis = optimizer.state[w].get("basis")
        basis = None if basis is None else basis.clone()
        before = w.detach().clone()
        w.grad = normal(*shape, seed=t, dtype=torch.float64)
        optimizer.step()
        if basis is not None:
            assert (optimizer.state[w]["basis"] - basis).norm() > 1e-6
            moved = w.detach() - before
            rows = moved if shape[0] >= shape[1] else moved.T
            inside = torch.linalg.lstsq(basis, rows.T).solution
            torch.testing.assert_close(basis @ inside, rows.T)
