import numpy as np
import pytest
import torch

import sgc
from sgc.problems import LAWS, draw_signals, sparse_problem


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("d", "sparsity"), [(1, 1), (7, 7), (64, 5)])
def test_every_signal_has_exactly_s_nonzeros(law, d, sparsity):
    support, values = draw_signals(d, sparsity, signals=9, law=law)
    assert support.shape == values.shape == (9, sparsity)
    assert support.min() >= 0
    assert support.max() < d
    assert all(len(set(row.tolist())) == sparsity for row in support)
    assert (values != 0).all()
    assert values.dtype == torch.float64


def test_the_laws_are_what_their_names_say():
    _, values = draw_signals(500, 40, signals=500, law="gaussian")
    assert abs(values.mean()) < 0.02
    assert abs(values.var() - 1) < 0.02
    _, values = draw_signals(500, 40, signals=500, law="signs")
    assert set(values.unique().tolist()) == {-1.0, 1.0}
    assert abs(values.mean()) < 0.02
    _, values = draw_signals(500, 4, signals=500, law="power-law")
    torch.testing.assert_close(values.abs(), (1 / torch.arange(1, 5)).double().expand(500, 4))
    assert abs(values.sign().mean()) < 0.1


def test_positions_are_uniform():
    support, _ = draw_signals(10, 3, signals=4000)
    counts = torch.bincount(support.flatten(), minlength=10) / 4000
    assert (counts - 0.3).abs().max() < 0.03


@pytest.mark.parametrize("projection", ["gaussian", "srht"])
def test_measurements_are_a_x(projection):
    problem = sparse_problem(40, 20, 3, signals=6, projection=projection, seed=4)
    expected = problem.x() @ problem.A.to_dense().T
    torch.testing.assert_close(problem.y, expected, rtol=1e-12, atol=1e-12)
    assert problem.sparsity == 3
    torch.testing.assert_close(problem.x().gather(1, problem.support), problem.values)


@pytest.mark.parametrize("law", LAWS)
def test_the_seed_decides_and_the_number_of_signals_does_not(law):
    few = draw_signals(50, 5, signals=3, law=law, seed=1)
    many = draw_signals(50, 5, signals=8, law=law, seed=1)
    other = draw_signals(50, 5, signals=3, law=law, seed=2)
    for short, long in zip(few, many, strict=True):
        assert torch.equal(short, long[:3])
    assert not torch.equal(few[0], other[0])
    if law != "power-law":
        assert not torch.equal(few[1].sign(), other[1].sign())


def test_different_purposes_draw_different_numbers():
    supports = {d: draw_signals(d, 5, signals=4)[0] for d in (64, 65)}
    assert not torch.equal(supports[64], supports[65])
    _, signs = draw_signals(64, 8, signals=40, law="signs")
    _, power = draw_signals(64, 8, signals=40, law="power-law")
    assert not torch.equal(signs, power.sign())
    # The signals are no part of A, though both have the seed 0.
    _, values = draw_signals(64, 64, signals=1)
    first_row = sgc.create("projection", "gaussian", 4, 64).to_dense()[0] * 2
    assert np.corrcoef(values[0], first_row)[0, 1] < 0.5


def test_precisions_share_the_signals_and_global_generators_are_left_alone():
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    wide = sparse_problem(40, 20, 3, signals=6, dtype=torch.float64)
    narrow = sparse_problem(40, 20, 3, signals=6, dtype=torch.float32)
    assert torch.equal(wide.support, narrow.support)
    assert torch.equal(wide.values.float(), narrow.values)
    torch.testing.assert_close(narrow.y.double(), wide.y, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'gausian' \(did you mean 'gaussian'\?\)"):
        draw_signals(8, 2, signals=1, law="gausian")
    with pytest.raises(ValueError, match="between 1 and d=8, got 9"):
        draw_signals(8, 9, signals=1)
    with pytest.raises(ValueError, match="signals=0"):
        draw_signals(8, 2, signals=0)
