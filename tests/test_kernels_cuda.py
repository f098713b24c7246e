"""The kernels of the step against their torch forms; a GPU only."""

import pytest
import torch

import sgc
from projections.seeding import stream
from recovery.kernels import has_kernels
from sgc import kernels
from sgc.rounding import NEAREST, Rounding
from sgc.sketch import sketch
from sgc.top_entries import top_entries
from sgc.updates import LowRank, Sparse
from tests.conftest import makeable

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and has_kernels(torch.device("cuda"))),
    reason="needs a GPU and CuPy: cuda only",
)
half_and_full = pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
BY_LOT = Rounding((123, 2**32 - 5))


def normal(*shape, seed=0, dtype=torch.float32):
    drawn = stream(seed, "kernels", *shape).standard_normal(shape)
    return torch.from_numpy(drawn).to("cuda", torch.float32).to(dtype)


@pytest.fixture
def without_kernels(monkeypatch):
    """Run a function in its torch form."""

    def run(function, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "usable", lambda tensors: False)
            return function(*args, **options)

    return run


@half_and_full
@pytest.mark.parametrize("chunker", makeable("chunker"))
@pytest.mark.parametrize("chunks", [1, 7, 64, 256, 300, 2048])
@pytest.mark.parametrize("sparsity", [1, 2, 5, 8, 9, 31])
def test_top_entries(dtype, chunker, chunks, sparsity, without_kernels):
    rows = 40 if chunks == 2048 else 8
    for shape in ((96, rows * chunks), (61, max(37, chunks))):
        gradients = [normal(*shape, seed=i, dtype=dtype) for i in range(3)]
        gradients[1][3, 5] = torch.nan
        gradients[2].zero_()
        made = sgc.create("chunker", chunker, chunks=chunks, seed=3)
        if made.length(gradients[0].numel()) < sparsity:
            continue
        ours = top_entries(gradients, made, sparsity, energy=True)
        plain = without_kernels(top_entries, gradients, made, sparsity, energy=True)
        sizes = [t.values.abs().nan_to_num(nan=1e9).sort(-1).values for t in (ours, plain)]
        assert torch.equal(*sizes)
        for i, gradient in enumerate(gradients):
            there = made.split(gradient.reshape(-1)).float().gather(-1, ours.index[i])
            assert torch.equal(there.nan_to_num(), ours.values[i].nan_to_num())
        torch.testing.assert_close(ours.energy, plain.energy, rtol=1e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize("chunks", [1, 2, 4, 8, 24, 100_000])
@pytest.mark.parametrize("chunker", makeable("chunker"))
@pytest.mark.parametrize("sparsity", [1, 3])
def test_top_entries_of_large_gradients(chunks, chunker, sparsity, without_kernels, monkeypatch):
    """Few long chunks (a block keeps only so many rotations), many short ones, scratch in parts."""
    from sgc.kernels import top_entries as cuda  # noqa: PLC0415 — needs CuPy

    monkeypatch.setattr(cuda, "_CANDIDATES", 2**16)
    gradients = [normal(1024, 1200, seed=i, dtype=torch.bfloat16) for i in range(2)]
    made = sgc.create("chunker", chunker, chunks=chunks, seed=1)
    ours = top_entries(gradients, made, sparsity, energy=True)
    plain = without_kernels(top_entries, gradients, made, sparsity, energy=True)
    assert torch.equal(ours.values.abs().sort(-1).values, plain.values.abs().sort(-1).values)
    torch.testing.assert_close(ours.energy, plain.energy, rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e-12, 1.0, 1e15, 1e25, 1e36])
def test_energy_at_any_scale(scale, without_kernels):
    gradients = [normal(64, 64) * scale]
    made = sgc.create("chunker", "permuted", chunks=16)
    ours = top_entries(gradients, made, 1, energy=True).energy
    exact = gradients[0].double().square().sum()
    torch.testing.assert_close(ours[0], exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("k", "d", "s"), [(8, 500, 1), (217, 2048, 31), (1000, 3000, 3)])
def test_sketch(k, d, s, without_kernels):
    A = sgc.create("projection", "gaussian", k, d, device="cuda")
    index = normal(50, d).argsort(1)[:, :s].contiguous()
    values = normal(50, s)
    ours, plain = sketch(A, index, values), without_kernels(sketch, A, index, values)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@half_and_full
@pytest.mark.parametrize("rounding", [NEAREST, BY_LOT], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("shape", [(33, 65), (64, 64), (7,)])
def test_sparse_update(dtype, rounding, residual, decay, shape, without_kernels):
    """Within one unit in the last place, stochastic rounding included."""
    weights = [normal(*shape, seed=i, dtype=dtype) for i in range(2)]
    gradients = [normal(*shape, seed=5 + i, dtype=dtype) for i in range(2)]
    index = normal(2, weights[0].numel()).argsort(1)[:, :6].contiguous()
    index[0, 3] = index[1, 0] = -1
    values = normal(2, 6).masked_fill(index < 0, 0)
    scale = torch.tensor([0.3, 0.7], device="cuda", dtype=torch.float64) if residual else None
    ours, plain = ([w.clone() for w in weights] for _ in range(2))
    options = {"lr": 0.1, "decay": decay, "residual": scale, "rounding": rounding}
    Sparse(index, values).apply_to(ours, gradients, **options)
    without_kernels(Sparse(index, values).apply_to, plain, gradients, **options)
    for mine, theirs, before in zip(ours, plain, weights, strict=True):
        assert not torch.equal(mine, before)
        tolerance = torch.finfo(dtype).eps  # the kernel fuses a product and a sum
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rounding", [NEAREST, BY_LOT], ids=["nearest", "stochastic"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "r"), [(96, 136, 4), (300, 72, 33), (40, 8, 8), (31, 100, 100)])
def test_low_rank_update(dtype, rounding, residual, transposed, m, n, r):
    """Against float64 on the same factors: within the rounding of factors and weight."""
    shape = (m, n)
    rows, columns = (n, m) if transposed else (m, n)
    weights = [normal(*shape, seed=i, dtype=dtype) for i in range(2)]
    gradients = [normal(*shape, seed=5 + i, dtype=dtype) for i in range(2)]
    left, covered = normal(2, rows, r, seed=1) / r, normal(2, rows, r, seed=2) / r
    right = normal(2, columns, r, seed=3)
    scale = torch.tensor([0.3, 0.7], device="cuda", dtype=torch.float64) if residual else None
    update = LowRank(left, right, covered if residual else None, transposed)
    expected = []
    for i, w in enumerate(weights):
        part = left[i].double() - (scale[i] * covered[i].double() if residual else 0)
        move = part @ right[i].double().T
        move = move.T if transposed else move
        move = move + (scale[i] * gradients[i].double() if residual else 0)
        expected.append(0.9 * w.double() - 0.1 * move)
    update.apply_to(weights, gradients, lr=0.1, decay=0.9, residual=scale, rounding=rounding)
    unit = torch.finfo(dtype).eps
    for mine, exact in zip(weights, expected, strict=True):
        assert (mine.double() - exact).abs().max() <= 2 * unit * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("m", "n", "r"), [(96, 136, 4), (300, 72, 33), (512, 256, 128)])
def test_projection_on_a_subspace(dtype, m, n, r):
    from sgc.kernels.low_rank import project  # noqa: PLC0415 — needs CuPy

    matrices = [normal(m, n, seed=i, dtype=dtype) for i in range(3)]
    bases = normal(3, n, r, seed=9)
    exact = torch.stack(matrices).double() @ bases.to(dtype).double()
    torch.testing.assert_close(
        project(matrices, bases).double(), exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item()
    )


@pytest.mark.parametrize("name", ["mesgc", "cesgc", "galore"])
@pytest.mark.parametrize("residual", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("reference", ["torch on the GPU", "CPU"])
def test_a_step_with_kernels_is_the_step_without(name, residual, dtype, reference, without_kernels):
    """The whole step, for a while: same seed, same gradients, the weights stay together."""
    sizes = {
        "mesgc": {"sparsity": 32, "chunks": 16, "kappa": 8},
        "cesgc": {"sparsity": 64, "chunks": 8, "kappa": 4, "rank": 8},
        "galore": {"rank": 8},
    }[name]

    def train(device):
        compressor = sgc.create("compressor", name, residual=residual, **sizes)
        made = [normal(64, 128, seed=i, dtype=dtype).to(device) for i in range(3)]
        weights = [torch.nn.Parameter(w) for w in made]
        optimizer = sgc.CompressedAdamW(weights, lr=1e-2, compressor=compressor)
        for step in range(4):
            for i, w in enumerate(weights):
                w.grad = normal(64, 128, seed=10 * step + i, dtype=dtype).to(device) * 1e-3
            optimizer.step()
        return torch.stack([w.detach() for w in weights]).float().cpu()

    ours = train("cuda")
    plain = train("cpu") if reference == "CPU" else without_kernels(train, "cuda")
    # A near tie decided otherwise moves a few coordinates by a step; nothing else may differ. The
    # CPU projects bf16 gradients on a float32 basis, the GPU on a bf16 one.
    near = 4e-2 if name != "mesgc" and dtype == torch.bfloat16 else 1e-3
    differ = (ours - plain).abs() > 2e-2 * plain.abs() + near
    assert differ.float().mean() <= 0.01
