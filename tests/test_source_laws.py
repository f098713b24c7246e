"""Laws of every registered source."""

import copy

import pytest
import torch

import sgc
from sgc.compressors.base import Step
from sgc.sources.base import Source
from tests.conftest import makeable
from tests.helpers import normal, steps, weights_like

every_source = pytest.mark.parametrize("name", makeable("source"))
SHAPES = [(24, 16), (16, 24), (20, 20)]


def bases(source, matrices, rank, *, start=None, turn=1):
    G = matrices[0]
    states = [source.init_state(min(G.shape), rank, G.device, torch.float32) for _ in matrices]
    found = source.find(matrices, rank, start=start, states=states, turn=turn)
    return found, states


@every_source
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_basis_for_each_matrix_on_the_shorter_side(name, shape, device):
    source = sgc.create("source", name)
    assert isinstance(source, Source)
    matrices = [normal(*shape, seed=i, device=device) for i in range(3)]
    found, _ = bases(source, matrices, 4)
    assert found.shape == (3, min(shape), 4)
    assert found.dtype == torch.float32
    gram = found.mT @ found  # unit columns at right angles, or none
    alive = gram.diagonal(dim1=1, dim2=2) > 0.5
    torch.testing.assert_close(gram, torch.diag_embed(alive.float()), rtol=0, atol=1e-5)


@every_source
def test_together_is_alone(name, device):
    matrices = [normal(24, 16, seed=i, device=device) for i in range(3)]
    source = sgc.create("source", name)
    whole, _ = bases(source, matrices, 4)
    for i, G in enumerate(matrices):
        torch.testing.assert_close(bases(source, [G], 4)[0][0], whole[i], rtol=1e-4, atol=1e-5)


@every_source
def test_what_is_not_stored_is_found_again_from_its_turn(name):
    source = sgc.create("source", name)
    if source.stored:
        pytest.skip("it is part of the state")
    matrices = [normal(24, 16)]
    first, other = (bases(source, matrices, 4, turn=turn)[0].clone() for turn in (3, 8))
    again = bases(sgc.create("source", name), [normal(24, 16, seed=9)], 4, turn=3)[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@every_source
def test_what_follows_moves_and_stays_finite(name, device):
    source = sgc.create("source", name)
    if not source.follows:
        pytest.skip("it moves at refreshes only")
    matrices = [normal(24, 16, seed=i, device=device) for i in range(2)]
    found, states = bases(source, matrices, 4)
    for number in (1, 2, 3):
        reduced = torch.stack(matrices) @ found
        new = source.advance(matrices, reduced, found, states, step=Step(number))
        assert new.shape == found.shape
        assert new.isfinite().all()
        found, before = new.clone(), found
    assert not torch.equal(found, before)
    zero = [torch.zeros_like(G) for G in matrices]
    still = source.advance(zero, torch.zeros(2, 24, 4).to(device), found, states, step=Step(4))
    torch.testing.assert_close(still, found)


@every_source
def test_a_subspace_of_it_resumes_and_waits_for_a_gradient(name, device):
    def make(weights):
        compressor = sgc.create("compressor", "subspace", rank=3, source=name, refresh_every=4)
        return sgc.CompressedAdamW(weights, lr=1e-2, compressor=compressor)

    weights = weights_like((24, 16), (24, 16), device=device)
    optimizer = make(weights)
    for w in weights:
        w.grad = torch.zeros_like(w)
    optimizer.step()
    assert all(
        torch.equal(w, o)
        for w, o in zip(weights, weights_like(*[(24, 16)] * 2, device=device), strict=True)
    )
    steps(optimizer, weights, 6)
    copies = [torch.nn.Parameter(w.detach().clone()) for w in weights]
    resumed = make(copies)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, weights, 6, start=6)
    steps(resumed, copies, 6, start=6)
    assert all(torch.equal(a, b) for a, b in zip(weights, copies, strict=True))
