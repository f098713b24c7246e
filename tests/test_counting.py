"""Parameters on the meta device are planned for as on the CPU, and nothing is drawn for them."""

import itertools

import pytest
import torch

import sgc
from projections import DenseOperator
from recovery import Solver
from sgc import counting
from tests.conftest import makeable
from tests.helpers import every_compressor, small, takes

SHAPES = ((24, 16), (12, 30), (6, 4, 3, 3), (7,))
SKETCHES = [{"sparsity": 6, "chunks": 2, "kappa": 3}, {"sparsity": 16, "chunks": 4, "kappa": 8}]


def both(make, shapes, dtype=torch.float32):
    """What is predicted, or why it is not, on the CPU and for the same shapes on meta."""
    found = []
    for device in ("cpu", "meta"):
        try:
            found.append(
                sgc.predict(make(), [torch.empty(s, dtype=dtype, device=device) for s in shapes])
            )
        except ValueError as error:
            found.append(str(error))
    return found


@every_compressor
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_every_compressor_is_predicted_as_on_the_cpu(name, dtype):
    on_cpu, on_meta = both(lambda: small(name), SHAPES, dtype)
    assert on_meta == on_cpu
    assert on_meta.bytes > 0


@every_compressor
@pytest.mark.parametrize("projection", sgc.available("projection"))
def test_every_projection_is_counted_as_on_the_cpu(name, projection):
    if not takes(name, "projection"):
        pytest.skip("it has no projection")
    on_cpu, on_meta = both(lambda: small(name, projection=projection), SHAPES)
    assert on_meta == on_cpu


@pytest.mark.filterwarnings("ignore:.*columns that differ by more than a sign")
@pytest.mark.parametrize("recovery", makeable("recovery"))
@pytest.mark.parametrize("projection", sgc.available("projection"))
def test_what_a_solver_keeps_is_counted_as_on_the_cpu(projection, recovery):
    parts = {"projection": projection, "recovery": recovery}
    options = [{**parts, **sizes} for sizes in SKETCHES]
    if projection == "identity":
        options = [{**parts, "sparsity": 4, "chunks": 4, "kappa": n // 4} for n in (384, 2052)]
    if recovery == "omp-inverse-cholesky":
        options += [
            {**o, "recovery.precompute_gram": gram} for o in options for gram in (True, False)
        ]
    shapes = ((24, 16), (50, 41), (2000, 1), (38, 54))
    for given, shape, dtype in itertools.product(options, shapes, (torch.float32, torch.float64)):
        on_cpu, on_meta = both(
            lambda o=given: sgc.create("compressor", "mesgc", **o), [shape], dtype
        )
        assert on_meta == on_cpu, (given, shape, dtype)


@pytest.mark.parametrize("source", ["random", "svd", "iass", "online-pca"])
def test_every_source_is_counted_as_on_the_cpu(source):
    on_cpu, on_meta = both(
        lambda: sgc.create("compressor", "subspace", rank=3, source=source), ((24, 16), (12, 30))
    )
    assert on_meta == on_cpu


def test_a_model_that_fits_nowhere_is_planned_for_and_little_is_drawn(monkeypatch):
    drawn = []
    real = counting.create

    def create(kind, name, k, d, **options):
        drawn.append((name, k, d))
        return real(kind, name, k, d, **options)

    monkeypatch.setattr(counting, "create", create)
    monkeypatch.setattr(sgc.operators, "create", None)  # nothing is made as it is
    with torch.device("meta"):
        model = torch.nn.Sequential(
            *(torch.nn.Linear(4096, 4096, bias=False) for _ in range(64)),
            torch.nn.Linear(4096, 32000, bias=False),
        )
    for method in ("mesgc", "sgc", "cesgc", "adjoint"):
        plan = sgc.plan(model, budget_bytes=2 * 10**8, method=method)
        assert 1.9e8 < plan.bytes <= 2e8
    with pytest.raises(sgc.BudgetError, match=r"sparsity=1 takes 10,053,751,108 bytes"):
        sgc.plan(model, budget_bytes=10**9, method="sgc:projection=gaussian")
    assert {name for name, *_ in drawn} == {"gaussian", "srht"}
    assert max(d for _, _, d in drawn) < 10**6  # of up to 131 million columns
    assert max(k * d for name, k, d in drawn if name == "gaussian") <= 2**20


def test_a_plan_on_meta_is_the_plan_on_the_cpu():
    for method in ("mesgc:projection=rademacher", "galore", "apollo", "adjoint"):
        on_cpu, on_meta = (
            sgc.plan(torch.empty(256, 96, device=device), budget_bytes=60_000, method=method)
            for device in ("cpu", "meta")
        )
        assert on_meta == on_cpu


class KeepsWhatIsNotZero(Solver):
    """Its bytes follow from the numbers of A."""

    def prepare(self, dictionary):
        return dictionary.matrix[dictionary.matrix > 0]

    def recover(self, dictionary, extra, y, *, sparsity, tolerance):
        raise NotImplementedError


class NotOnTheCpu(KeepsWhatIsNotZero):
    devices = frozenset({"cuda"})


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (KeepsWhatIsNotZero(), "KeepsWhatIsNotZero keeps for A cannot be known on the meta device"),
        (NotOnTheCpu(), "NotOnTheCpu runs on cuda only, and parameters on the meta device"),
    ],
)
def test_what_cannot_be_known_is_said(solver, message):
    compressor = sgc.create("compressor", "mesgc", sparsity=8, chunks=2, recovery=solver)
    with pytest.raises(ValueError, match=message):
        sgc.predict(compressor, torch.empty(24, 16, device="meta"))


@pytest.mark.parametrize("structured", [True, False])
def test_a_projection_from_elsewhere_is_counted(structured):
    class Signs(DenseOperator):
        def __init__(self, k, d, *, seed=0, device="cpu", dtype=torch.float32):
            super().__init__(torch.ones(k, d, device=device, dtype=dtype))

    Signs.structured = structured
    sgc.register("projection", "test-ones", Signs)
    try:
        on_cpu, on_meta = both(
            lambda: sgc.create("compressor", "adjoint", measurements=8, projection="test-ones"),
            [(24, 16)],
        )
    finally:
        sgc.unregister("projection", "test-ones")
    assert on_meta == on_cpu
    assert on_cpu.shared_bytes == 4 * 8 * 384
