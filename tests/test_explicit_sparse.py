"""Adam on chosen entries: limits, the choice by hand, and what stays where it is."""

import pytest
import torch

import sgc
from sgc.blocks import block
from tests.helpers import compressed, normal, run, steps, weights_like


def explicit(**options):
    return sgc.create("compressor", "explicit-sparse", **options)


def trained(compressor, gradients, *, shape=None, **options):
    """A weight, its state after every gradient, and its value then."""
    w = torch.nn.Parameter(torch.zeros(shape or gradients[0].shape, dtype=gradients[0].dtype))
    optimizer = sgc.CompressedAdamW([w], compressor=compressor, **options)
    seen = []
    for gradient in gradients:
        w.grad = gradient
        optimizer.step()
        state = {key: value.clone() for key, value in optimizer.state[w].items()}
        seen.append((state, w.detach().clone()))
    return seen


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("refresh_every", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_entries_are_torchs_adamw(refresh_every, dtype, device):
    options = {"lr": 1e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    everything = explicit(entries=24 * 16, refresh_every=refresh_every)
    ours = run(compressed(everything, **options), dtype=dtype, device=device)
    theirs = run(lambda p: torch.optim.AdamW(p, **options), dtype=dtype, device=device)
    rounding = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)


def test_the_first_support_is_the_largest_entries_of_the_whole_parameter(device):
    """Whatever bands or columns they stand in."""
    gradient = normal(24, 16, device=device)
    gradient[3] *= 100  # more than half of the largest are in one row
    w = torch.nn.Parameter(torch.zeros(24, 16, device=device))
    w.grad = gradient
    optimizer = sgc.CompressedAdamW([w], compressor=explicit(entries=30))
    optimizer.step()
    index = optimizer.state[w]["index"]
    expected = gradient.flatten().abs().topk(30).indices.sort().values
    assert index.dtype == torch.int32
    assert torch.equal(index.long(), expected)
    moved = w.detach().flatten().nonzero()[:, 0]
    assert torch.equal(moved, expected)


def test_eviction_by_hand():
    """Two of four entries; β₁ = 0.5, β₂ = 0.75."""
    gradients = [row(4, -2, 1, 0), row(0, -1, 1, 0), row(0, 0, 1.75, 0), row(0, 0, 0, -9)]
    seen = trained(explicit(entries=2), gradients, betas=(0.5, 0.75), lr=1.0, eps=0.0)

    state, w = seen[0]
    assert state["index"].tolist() == [0, 1]
    assert state["exp_avg"].tolist() == [2, -1]
    assert w.tolist() == [[-1, 1, 0, 0]]
    # M of the held would be 1 and −1, entry 2 would bring 0.5: all stay.
    state, _ = seen[1]
    assert state["index"].tolist() == [0, 1]
    assert state["exp_avg"].tolist() == [1, -1]
    # M of the held would be 0.5 and −0.5, entry 2 brings 0.875: one of the two goes. The newcomer
    # has M̂ = G and V̂ = G², as if it had always been so: M = G (1 − 0.5³).
    state, w = seen[2]
    (kept,) = set(state["index"].tolist()) - {2}
    assert kept in (0, 1)
    assert state["index"].tolist() == [kept, 2]
    assert state["exp_avg"].tolist() == [0.5 - kept, 1.75 * (1 - 0.5**3)]
    assert state["exp_avg_sq"][1].item() == pytest.approx(1.75**2 * (1 - 0.75**3))
    assert (w - seen[1][1])[0, 2].item() == pytest.approx(-1)
    # M would be ±0.25 and 0.77, entry 3 brings 4.5: the first goes, and entry 2 keeps its M.
    state, w = seen[3]
    assert state["index"].tolist() == [2, 3]
    assert state["exp_avg"][0].item() == pytest.approx(1.75 * (1 - 0.5**3) / 2)
    assert (w - seen[2][1])[0, 3].item() == pytest.approx(1)


def test_an_entry_that_comes_back_has_no_memory():
    gradients = [row(4, 0, 0), row(0, 100, 0), row(300, 0, 0)]
    seen = trained(explicit(entries=1), gradients, betas=(0.9, 0.999))
    assert [state["index"].item() for state, _ in seen] == [0, 1, 0]
    first, second = seen[2][0]["exp_avg"].item(), seen[2][0]["exp_avg_sq"].item()
    assert first == pytest.approx(300 * (1 - 0.9**3))
    assert second == pytest.approx(300**2 * (1 - 0.999**3))


def test_the_support_moves_only_when_it_is_due():
    gradients = [normal(24, 16, seed=t) for t in range(9)]
    seen = trained(explicit(entries=20, refresh_every=3), gradients)
    index = [state["index"].tolist() for state, _ in seen]
    changed = [t + 1 for t in range(1, 9) if index[t] != index[t - 1]]
    assert changed == [4, 7]


@pytest.mark.parametrize("name", ["explicit-sparse", "sift"])
def test_zeros_decide_nothing(name):
    """Slots without a nonzero entry wait, and are filled as soon as there is one."""
    gradients = [torch.zeros(1, 8), torch.zeros(1, 8)]
    gradients += [torch.eye(8)[i : i + 1] * (i + 1) for i in (5, 0, 7, 2)]
    compressor = sgc.create("compressor", name, entries=3)
    seen = trained(compressor, gradients)
    assert seen[1][0]["index"].tolist() == [-1, -1, -1]
    assert not seen[1][1].any()
    assert seen[2][0]["index"].tolist() == [-1, -1, 5]
    assert seen[3][0]["index"].tolist() == [-1, 0, 5]
    assert seen[4][0]["index"].tolist() == [0, 5, 7]
    # Full: place 2 brings 0.3, where SIFT never asks, and place 0 has come down to 0.24.
    assert seen[5][0]["index"].tolist() == ([0, 5, 7] if name == "sift" else [2, 5, 7])
    assert (seen[5][1][0, 2] == 0) == (name == "sift")


def test_an_unset_slot_does_not_hide_place_0():
    """Its −1 stands for no place, although it is read from place 0."""
    seen = trained(explicit(entries=2), [row(0, 3, 0, 0), row(-5, 0, 0, 0)])
    assert [state["index"].tolist() for state, _ in seen] == [[-1, 1], [0, 1]]


def test_supports_of_alike_parameters_are_their_own():
    weights = weights_like((24, 16), (24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=explicit(entries=10))
    weights[0].grad, weights[1].grad = normal(24, 16, seed=3), torch.zeros(24, 16)
    optimizer.step()
    index, _ = block([optimizer.state[w] for w in weights], "index")
    assert (index[0] >= 0).all()
    assert (index[1] == -1).all()
    weights[0].grad, weights[1].grad = torch.zeros(24, 16), normal(24, 16, seed=4)
    optimizer.step()
    assert torch.equal(index[0].long(), largest_places(3))
    assert torch.equal(index[1].long(), largest_places(4))


def largest_places(seed):
    return normal(24, 16, seed=seed).flatten().abs().topk(10).indices.sort().values


def test_many_parameters_are_worked_on_in_tiles(monkeypatch):
    from sgc.compressors import explicit_sparse  # noqa: PLC0415

    def train():
        weights = weights_like(*[(24, 16)] * 5)
        optimizer = sgc.CompressedAdamW(weights, compressor=explicit(entries=10))
        steps(optimizer, weights, 5)
        return weights

    at_once = train()
    monkeypatch.setattr(explicit_sparse, "_CPU_TILE", 2 * 24 * 16)
    assert all(map(torch.equal, train(), at_once))


@pytest.mark.parametrize("name", ["explicit-sparse", "sift"])
def test_a_nan_off_the_support_shows_at_once(name):
    gradient = normal(24, 16)
    broken = gradient.clone()
    broken.view(-1)[gradient.abs().argmin()] = torch.nan
    compressor = sgc.create("compressor", name, entries=10)
    assert trained(compressor, [gradient, broken])[1][1].isnan().any()


def test_sift_is_explicit_sparse_adam_that_never_decides_again():
    gradients = [normal(24, 16, seed=t) for t in range(12)]
    sift = trained(sgc.create("compressor", "sift", entries=17), gradients)
    first = sift[0][0]["index"]
    assert all(torch.equal(state["index"], first) for state, _ in sift)
    fixed = trained(explicit(entries=17, refresh_every=0), gradients)
    assert torch.equal(sift[-1][1], fixed[-1][1])
    # On its support it is AdamW, elsewhere nothing moves.
    w = torch.nn.Parameter(torch.zeros(24, 16))
    adamw = torch.optim.AdamW([w], weight_decay=0.0)
    for gradient in gradients:
        w.grad = gradient
        adamw.step()
    there = torch.zeros(24 * 16, dtype=torch.bool).index_fill(0, first.long(), True).view(24, 16)
    torch.testing.assert_close(sift[-1][1], w.detach() * there, rtol=1e-5, atol=1e-7)


def test_bytes_of_the_index_are_counted():
    weights = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW(weights, compressor=explicit(entries=10))
    steps(optimizer, weights, 1)
    report = sgc.state_report(optimizer)
    assert report.moments == 20
    assert report.state_bytes == 4 * 20 + 4 * 10 + 4


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="entries must be at least 1, got 0"):
        explicit(entries=0)
    with pytest.raises(ValueError, match="refresh_every"):
        explicit(refresh_every=-1)
    assert "entries=385 exceeds the 384 numbers" in explicit(entries=385).refuses((24, 16))
    assert explicit(entries=7).refuses((7,)) is None
