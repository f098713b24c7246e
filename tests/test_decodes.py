"""Laws of every registered decode, and why Algorithm 3 as printed diverges."""

import pytest
import torch

import sgc
from recovery import Status
from tests.conftest import makeable
from tests.helpers import (
    moments_with_a_drifting_support,
    normal,
    small,
)


def test_literal_decoding_blows_up_where_joint_does_not():
    """Why Algorithm 3 as printed diverges: M and V are recovered apart, and where V's support
    misses an atom of M's, the update is M/√ε. The joint decode is bounded by 1."""
    A, first, second = moments_with_a_drifting_support()
    solver = sgc.create("recovery", "omp")
    joint, literal = (
        sgc.create("decode", name)(solver, A, first, second, sparsity=4, eps=1e-8)
        for name in ("joint", "literal")
    )
    assert joint[1].abs().max() <= 1 + 1e-6
    assert torch.equal(joint[0], literal[0])  # both take M's support
    v = solver.solve(A, second, sparsity=4)
    missed = ~(literal[0][:, :, None] == v.support[:, None, :]).any(2)
    assert missed.float().mean() > 0.1
    m = solver.solve(A, first, sparsity=4).values
    torch.testing.assert_close(literal[1][missed], m[missed] / 1e-4)  # √ε = 1e-4
    assert literal[1].abs().max() > 1000


def test_literal_diverges_in_training_and_joint_trains():
    def loss_after(decode, steps=60):
        target, inputs = normal(16, 24), normal(64, 16, seed=1)
        w = torch.nn.Parameter(torch.zeros(16, 24))
        compressor = small("mesgc", decode=decode)
        optimizer = sgc.CompressedAdamW([w], lr=3e-2, compressor=compressor)
        for step in range(steps):
            optimizer.zero_grad()
            batch = inputs[step % 8 :: 8]
            (batch @ (w - target)).square().mean().backward()
            optimizer.step()
        return float((inputs @ (w - target)).square().mean().detach())

    start = float((normal(64, 16, seed=1) @ normal(16, 24)).square().mean())
    assert loss_after("joint") < start
    assert not loss_after("literal") < 10 * start


@pytest.mark.parametrize("name", makeable("decode"))
def test_decode_contract(name, device):
    A, first, second = moments_with_a_drifting_support(steps=5, device=device)
    first[3], second[3], first[5, 0] = 0, 0, torch.nan
    decode = sgc.create("decode", name, residual=0.2)
    solver = sgc.create("recovery", "omp")
    support, values = decode(solver, A, first, second, sparsity=4, eps=1e-8)
    assert decode.residual == 0.2
    assert support.shape == values.shape == (16, 4)
    assert (values[3] == 0).all()
    assert (support[3] == -1).all()
    assert values[5].isnan().any()
    assert solver.solve(A, first, sparsity=4).status[5] == Status.NON_FINITE
    others = [i for i in range(16) if i != 5]
    assert values[others].isfinite().all()
    with pytest.raises(ValueError, match="-1"):
        sgc.create("decode", name, residual=-1.0)


def test_joint_reads_v_on_the_support_of_m(device):
    A = sgc.create("projection", "gaussian", 40, 60, dtype=torch.float64, device=device)
    x = torch.zeros(2, 60, dtype=torch.float64, device=device)
    x[0, 5], x[0, 9], x[1, 30] = 3.0, -1.0, 2.0
    solver = sgc.create("recovery", "omp")
    decode = sgc.create("decode", "joint")
    support, n = decode(solver, A, A.matvec(x), A.matvec(4 * x * x), sparsity=4, eps=0.0)
    used = support >= 0
    assert used.sum(1).tolist() == [2, 1]
    torch.testing.assert_close(n[used].abs().cpu(), torch.full((3,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("name", makeable("decode"))
def test_a_broken_second_moment_shows(name, device):
    A, first, second = moments_with_a_drifting_support(steps=5, device=device)
    second[2, 0] = torch.nan
    first[4], second[4, 0] = 0, torch.nan  # M names no support to carry the NaN
    # Place 0 is in the support of M: writing both slots must not hide the NaN.
    first[6], second[6, 0] = A.columns(torch.tensor([0], device=device))[:, 0], torch.nan
    support, values = sgc.create("decode", name)(
        sgc.create("recovery", "omp"), A, first, second, sparsity=4, eps=1e-8
    )
    for row in (2, 4, 6):
        assert (values[row].isnan() & (support[row] >= 0)).any()
    assert values[6][support[6] == 0].isnan().all()
    assert values[[0, 1, 3, 5, *range(7, 16)]].isfinite().all()


def test_literal_reads_a_negative_v_as_zero(device):
    A = sgc.create("projection", "gaussian", 40, 60, dtype=torch.float64, device=device)
    x = torch.zeros(1, 60, dtype=torch.float64, device=device)
    x[0, 5] = 3.0
    _, n = sgc.create("decode", "literal")(
        sgc.create("recovery", "omp"), A, A.matvec(x), A.matvec(-x), sparsity=1, eps=1e-4
    )
    torch.testing.assert_close(n, torch.full((1, 1), 300.0, dtype=torch.float64, device=device))
