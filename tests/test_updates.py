"""How updates reach the weights: every form against the same sum written out in float64."""

import pytest
import torch

import sgc
from sgc.rounding import NEAREST, Rounding, stochastic
from sgc.updates import Dense, LowRank, Nothing, Sparse
from sgc.updates.partial import Partial
from tests.helpers import normal

COUNT, SHAPE = 3, (12, 20)
FORMS = ["sparse", "low-rank", "transposed", "dense"]


def an_update(form, device, dtype):
    """An update of three parameters, and what it leaves uncovered, for a residual."""
    if form == "sparse":
        index = torch.tensor([[0, 7, -1, 239], [5, -1, -1, 100], [-1, -1, -1, -1]], device=device)
        values = normal(3, 4, device=device, dtype=dtype).masked_fill(index < 0, 0)
        return Sparse(index, values)
    if form == "dense":
        return Dense(normal(COUNT, *SHAPE, device=device, dtype=dtype))
    rows, columns = SHAPE if form == "low-rank" else SHAPE[::-1]
    left, covered = (normal(COUNT, rows, 2, seed=i, device=device, dtype=dtype) for i in (1, 2))
    right = normal(COUNT, columns, 2, seed=3, device=device, dtype=dtype)
    return LowRank(left, right, covered, transposed=form == "transposed")


def tensors(seed, dtype, device, *, flipped=False):
    made = [normal(*SHAPE, seed=seed + i).to(device, dtype) for i in range(COUNT)]
    return [t.T.contiguous().T for t in made] if flipped else made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_it_is_the_sum_written_out(form, dtype, decay, rho, device):
    for flipped in (False, True):
        check_the_sum(form, dtype, decay, rho, device, flipped=flipped)


def check_the_sum(form, dtype, decay, rho, device, *, flipped):
    work = torch.float64 if dtype == torch.float64 else torch.float32
    update = an_update(form, device, work)
    weights, gradients = tensors(10, dtype, device, flipped=flipped), tensors(20, dtype, device)
    before = torch.stack(weights).double()
    G = torch.stack(gradients).double()
    residual = rho * torch.arange(1, 4, device=device).double() if rho else None
    uncovered = G - update.covered_part(gradients).double()
    if form == "dense":
        assert not uncovered.any()
    expected = decay * before - 0.1 * update.to_dense(SHAPE).double()
    if residual is not None:
        expected -= 0.1 * residual[:, None, None] * uncovered
    update.apply_to(weights, gradients, lr=0.1, decay=decay, residual=residual, rounding=NEAREST)
    rtol = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
    torch.testing.assert_close(
        torch.stack(weights).double(), expected, rtol=rtol[dtype], atol=rtol[dtype]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_lr_is_a_number(form, dtype, device):
    def moved(lr):
        weights = tensors(10, dtype, device)
        update = an_update(form, device, torch.float32)
        residual = torch.full((COUNT,), 0.3, dtype=torch.float64, device=device)
        update.apply_to(
            weights,
            tensors(20, dtype, device),
            lr=lr,
            decay=1 - lr * 0.5,
            residual=residual,
            rounding=NEAREST,
        )
        return torch.stack(weights)

    torch.testing.assert_close(moved(torch.tensor(0.125, device=device)), moved(0.125))


@pytest.mark.parametrize("rho", [None, 0.3])
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_sparse_rounds_half_precision_once(rho, decay, device):
    weights = [(1 + normal(40, 50, seed=i) / 8).to(device, torch.bfloat16) for i in range(2)]
    gradients = [normal(40, 50, seed=9 + i).to(device, torch.bfloat16) for i in range(2)]
    index = torch.stack([torch.arange(0, 2000, 2), torch.arange(1, 2000, 2)]).to(device)
    N = normal(2, 1000, seed=5, device=device)
    residual = None if rho is None else torch.full((2,), rho, device=device).double()
    expected = torch.stack(weights).float().flatten(1) * decay
    if rho is not None:
        off = torch.stack(gradients).float().flatten(1) * torch.tensor(rho * 0.01).float()
        expected -= off.scatter(1, index, 0)
    expected = expected.scatter_add(1, index, -(N * 0.01)).to(torch.bfloat16)
    Sparse(index, N).apply_to(
        weights, gradients, lr=0.01, decay=decay, residual=residual, rounding=NEAREST
    )
    got = torch.stack(weights).flatten(1)
    if device.type == "cpu":
        assert torch.equal(got, expected)
    else:  # there a product and a sum may be one operation
        assert (got != expected).float().mean() < 0.01


def test_a_nan_in_one_parameter_stays_there(device):
    weights, gradients = tensors(10, torch.float32, device), tensors(20, torch.float32, device)
    index = torch.tensor([[3, -1], [3, -1], [3, -1]], device=device)
    values = torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [1.0, 0.0]], device=device)
    Sparse(index, values).apply_to(
        weights, gradients, lr=0.1, decay=1.0, residual=None, rounding=NEAREST
    )
    assert [int(w.isnan().sum()) for w in weights] == [0, 1, 0]


def test_unused_slots_write_nothing(device):
    """Neither an old value over a new one at place 0, nor anything else."""
    for order in ([0, -1, -1], [-1, 0, -1], [-1, -1, 0]):
        for residual in (None, torch.ones(1, dtype=torch.float64, device=device)):
            weight, gradient = torch.ones(5, device=device), torch.ones(5, device=device)
            index = torch.tensor([order], device=device)
            Sparse(index, (index == 0) * 4.0).apply_to(
                [weight], [gradient], lr=0.5, decay=1.0, residual=residual, rounding=NEAREST
            )
            rest = 1.0 if residual is None else 0.5
            assert weight.tolist() == [-1.0] + 4 * [rest]


@pytest.mark.parametrize("form", ["sparse", "low-rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rho", [None, 0.3])
@pytest.mark.parametrize("rounding", [NEAREST, Rounding((1, 2))])
def test_no_temporary_of_a_weights_size(form, dtype, rho, rounding):
    if form == "low-rank" and rounding is not NEAREST and dtype == torch.bfloat16:
        pytest.skip("takes one weight in float32, as documented")
    size = 2048
    weights, gradients = ([torch.ones(size, size, dtype=dtype) for _ in "12"] for _ in "12")
    if form == "sparse":
        update = Sparse(torch.arange(8).expand(2, 8), torch.ones(2, 8))
    else:
        update = LowRank(*(torch.ones(2, size, 2) for _ in range(3)))
    residual = None if rho is None else torch.full((2,), rho, dtype=torch.float64)

    def apply():
        update.apply_to(weights, gradients, lr=0.1, decay=0.9, residual=residual, rounding=rounding)

    assert sgc.peak_scratch(apply) < weights[0].nbytes


@pytest.mark.parametrize("form", FORMS)
def test_stochastic_rounding_is_within_one_unit_of_the_result(form, device):
    """And rounds some up, some down."""
    rounding = stochastic(0, 1, range(COUNT))
    update = an_update(form, device, torch.float32)
    weights, exact = tensors(10, torch.bfloat16, device), tensors(10, torch.bfloat16, device)
    exact = [w.float() for w in exact]
    residual = torch.full((COUNT,), 0.3, dtype=torch.float64, device=device)
    gradients = tensors(20, torch.bfloat16, device)
    for target, how in ((weights, rounding), (exact, NEAREST)):
        update.apply_to(
            target,
            gradients if target is weights else [g.float() for g in gradients],
            lr=0.1,
            decay=0.9,
            residual=residual,
            rounding=how,
        )
    for got, wanted in zip(weights, exact, strict=True):
        unit = torch.exp2(torch.floor(torch.log2(wanted.abs())) - 7)
        off = (got.float() - wanted) / unit
        assert off.abs().max() <= 1.01
        assert off.max() > 0.1
        assert off.min() < -0.1


@pytest.mark.parametrize("form", [*FORMS, "partial", "nothing"])
def test_scaling_scales_what_moves_and_not_what_is_covered(form, device):
    if form == "partial":
        covered = normal(COUNT, *SHAPE, seed=8, device=device)
        update = Partial(normal(COUNT, *SHAPE, device=device), covered)
    elif form == "nothing":
        update = Nothing(COUNT, torch.zeros(1, device=device))
    else:
        update = an_update(form, device, torch.float32)
    gradients = tensors(5, torch.float32, device)
    factor = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64, device=device)
    scaled = update.scaled(factor)
    expected = update.to_dense(SHAPE) * factor.float()[:, None, None]
    torch.testing.assert_close(scaled.to_dense(SHAPE), expected)
    for i in range(COUNT):
        torch.testing.assert_close(scaled.only(i).to_dense(SHAPE)[0], expected[i])
    same = [u.covered_part(gradients) for u in (update, scaled)]
    torch.testing.assert_close(*same)
