"""Predicted memory is measured memory, and a plan fills its budget."""

import itertools

import pytest
import torch
from torch.nn.utils import skip_init

import sgc
from sgc.budget import predict
from tests.conftest import compressing
from tests.helpers import COMPRESSORS, every_compressor, small, steps, weights_like

SHAPES = ((24, 16), (24, 16), (12, 30), (7,))


def measured(compressor, weights):
    optimizer = sgc.CompressedAdamW(weights, compressor=compressor)
    steps(optimizer, weights, 2)
    return sgc.state_report(optimizer)


@every_compressor
@pytest.mark.filterwarnings("ignore:.*get plain AdamW")
def test_predicted_is_measured(name, device):
    weights = weights_like(*SHAPES, device=device)
    report = measured(small(name), weights)
    predicted = predict(small(name), weights)
    assert (predicted.state_bytes, predicted.shared_bytes) == (
        report.state_bytes,
        report.shared_bytes,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["mesgc", "galore", "none", "fira"])
def test_predicted_is_measured_in_other_dtypes(name, dtype, device):
    weights = weights_like((24, 16), dtype=dtype, device=device)
    report = measured(small(name), weights)
    assert predict(small(name), weights).bytes == report.bytes


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("budget", [20_000, 60_000])
def test_a_plan_is_the_largest_size_that_fits(name, budget):
    weights = weights_like((64, 48), (64, 48))
    try:
        plan = sgc.plan(weights, budget_bytes=budget, method=name)
    except sgc.BudgetError:
        with pytest.raises(sgc.BudgetError, match=f"{budget:,}"):
            sgc.plan(weights, budget_bytes=budget, method=name)
        return
    assert plan.bytes <= budget
    assert measured(plan.compressor(), weights).bytes == plan.bytes
    size = plan.compressor().size(1)
    if size is None:
        return
    larger = next(
        (s for s in range(1, 10_000) if plan.compressor().size(s).items() <= plan.options.items()),
        None,
    )
    assert larger is not None
    more = {**plan.options, **plan.compressor().size(larger + 1)}
    try:
        beyond = predict(sgc.create("compressor", name, **more), weights).bytes
    except ValueError:  # no larger one for these matrices
        return
    assert beyond > budget


MODELS = {
    "biases": ((16, 16), (16,)) * 6 + ((16,), (16,)),
    "lengths": ((20, 12), (20,), (20,), (9, 30), (9,), (130,), (130,)),
    "vectors": ((40,), (25,), (3,)),
}


@pytest.mark.parametrize("shapes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    "method",
    [
        "explicit-sparse",
        "sift",
        "adjoint",
        "adjoint:projection=gaussian",
        "adafactor:inner=explicit-sparse",
        "adafactor:inner=adjoint",
        "gwt:inner=explicit-sparse,inner.entries=10",
    ],
)
def test_vectors_that_fall_to_plain_adamw_do_not_end_the_search(method, shapes):
    """A vector may hold less there, so that a larger size fits where a smaller one did not."""
    weights = [torch.empty(shape) for shape in shapes]
    spec = sgc.specs.Spec.parse(method)
    sizes = sgc.create("compressor", spec.name, **spec.options).size
    largest = max(p.numel() for p in weights if p.ndim > 1 or len(shapes) < 4)
    held = {}
    for size in range(1, largest + 1):
        try:
            held[size] = predict(spec.updated(**sizes(size)), weights).bytes
        except ValueError:
            continue
    bytes_ = sorted(set(held.values()))
    for budget in {bytes_[0], *(b - 1 for b in bytes_[1 :: len(bytes_) // 6 + 1]), bytes_[-1]}:
        best = max(size for size in held if held[size] <= budget)
        plan = sgc.plan(weights, budget_bytes=budget, method=method)
        assert plan.spec == spec.updated(**sizes(best))
    with pytest.raises(sgc.BudgetError):
        sgc.plan(weights, budget_bytes=bytes_[0] - 1, method=method)


def test_a_size_that_fits_above_one_that_does_not_in_numbers():
    """Of six Linear(64, 64) and a LayerNorm: 59 entries fit everywhere, 81 in the matrices."""
    weights = [torch.empty(s) for s in ((64, 64), (64,)) * 6 + ((64,), (64,))]
    for budget, entries in ((10_000, 81), (9_000, 67)):
        plan = sgc.plan(weights, budget_bytes=budget, method="explicit-sparse")
        assert plan.options["entries"] == entries
    assert predict("explicit-sparse:entries=60", weights).bytes > 10_000


def test_a_plan_for_a_model_with_biases_looks_at_few_sizes(monkeypatch):
    looked = []
    real = sgc.budget.predict

    def counted(*args, **options):
        looked.append(args)
        return real(*args, **options)

    monkeypatch.setattr(sgc.budget, "predict", counted)
    widths = (384, 384, 384, 1536)
    layer = [((width, 384), (width,), (384,)) for width in widths]
    weights = [torch.empty(s, device="meta") for s in itertools.chain(*layer * 6)]
    plan = sgc.plan(weights, budget_bytes=10**6, method="explicit-sparse")
    assert 0.99e6 < plan.bytes <= 10**6
    assert len(looked) < 250


def test_a_plan_says_which_shape_limits_it():
    weights = weights_like((64, 64), (64, 2))
    plan = sgc.plan(weights, budget_bytes=100_000, method="galore")
    assert plan.options["rank"] == 2
    assert str(plan).endswith("; no larger size: rank=3 exceeds the shorter side of a 64×2 matrix")
    assert not sgc.plan(weights[:1], budget_bytes=9000, method="galore").limit
    assert "level" in sgc.plan(weights, budget_bytes=10**6, method="gwt").limit
    assert not sgc.plan(weights, budget_bytes=10**6, method="none").limit


def test_adamw_is_called_none():
    called = "AdamW is the compressor 'none'"
    with pytest.raises(sgc.registry.UnknownPluginError, match=called):
        sgc.plan(weights_like((8, 8)), budget_bytes=1000, method="adamw")
    with pytest.raises(sgc.registry.UnknownPluginError, match=called):
        predict("adamw", weights_like((8, 8)))


@pytest.mark.parametrize("name", ["apollo", "flora", "mesgc", "adjoint"])
def test_what_two_dtypes_share_is_counted_for_each(name, device):
    """A base is made in the dtype of the moments: one for float32 and one for float64."""
    weights = [
        *weights_like((24, 16), device=device),
        *weights_like((24, 16), dtype=torch.float64, device=device),
    ]
    report = measured(small(name), weights)
    predicted = predict(small(name), weights)
    alone = [predict(small(name), [w]).shared_bytes for w in weights]
    assert predicted.bytes == report.bytes
    assert predicted.shared_bytes == report.shared_bytes == sum(alone)


def test_a_random_basis_is_counted_as_it_is_alive(device):
    weights = [
        *weights_like((24, 16), device=device),
        *weights_like((24, 16), dtype=torch.float64, device=device),
    ]
    compressor = small("apollo", rank=1)
    report = measured(compressor, weights)
    alive = sum(basis.nbytes for _, basis in compressor.source._latest.values())
    assert predict(small("apollo", rank=1), weights).shared_bytes == report.shared_bytes == alive


def test_a_model_is_planned_by_what_trains():
    linear = [skip_init(torch.nn.Linear, 64, 64, bias=False) for _ in "12"]
    linear[0].requires_grad_(False)
    model = torch.nn.Sequential(*linear)
    whole = sgc.plan(list(linear[1].parameters()), budget_bytes=4000, method="galore")
    assert sgc.plan(model, budget_bytes=4000, method="galore") == whole
    assert whole.options["rank"] >= 1


def test_what_does_not_fit_says_how_much_it_takes():
    weights = weights_like((64, 48))
    with pytest.raises(sgc.BudgetError, match=r"none takes 24,580 bytes .* budget is 100"):
        sgc.plan(weights, budget_bytes=100, method="none")
    with pytest.raises(sgc.BudgetError, match=r"smallest galore:rank=1 takes 712 bytes"):
        sgc.plan(weights, budget_bytes=100, method="galore")
    with pytest.raises(sgc.BudgetError, match="projection=srht"):
        sgc.plan(weights_like((512, 512)), budget_bytes=2000, method="mesgc")


def test_other_options_are_left_as_they_are():
    weights = weights_like((64, 48))
    plan = sgc.plan(weights, budget_bytes=9000, method="galore:alpha=2.0,refresh_every=7")
    assert (plan.options["alpha"], plan.options["refresh_every"]) == (2.0, 7)
    assert plan.compressor().alpha == 2.0


@pytest.mark.parametrize("method", ["galore:inner=mesgc,inner.chunks=64", "gwt:inner=mesgc"])
def test_small_sizes_need_not_exist(method):
    """A sketch of many chunks needs a subspace of some rank, or coefficients that are not few."""
    weights = weights_like((64, 48))
    plan = sgc.plan(weights, budget_bytes=10**6, method=method)
    assert measured(plan.compressor(), weights).bytes == plan.bytes
    with pytest.raises(sgc.BudgetError, match=r"smallest .* takes [0-9,]+ bytes.* budget is 100"):
        sgc.plan(weights, budget_bytes=100, method=method)


def test_nothing_to_plan_for_is_said():
    frozen = skip_init(torch.nn.Linear, 8, 8).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        sgc.plan(frozen, budget_bytes=1000, method="galore")
    with pytest.raises(ValueError, match="all of these parameters to plain AdamW"):
        sgc.plan(weights_like((7,), (9,)), budget_bytes=1000, method="galore")
    with pytest.raises(TypeError, match="budget_bytes must be an integer, got '40k'"):
        sgc.plan(weights_like((8, 8)), budget_bytes="40k", method="galore")


def test_a_tied_weight_is_counted_once():
    tied, other = weights_like((24, 16), (24, 16))
    assert predict("galore:rank=2", [tied, other, tied]) == predict("galore:rank=2", [tied, other])


def test_predict_takes_a_spec_and_one_parameter():
    W = torch.empty(64, 32)
    by_spec = sgc.predict("galore:rank=2", W)
    assert by_spec == sgc.predict(sgc.create("compressor", "galore", rank=2), [W])
    assert by_spec.bytes == sgc.plan(W, budget_bytes=by_spec.bytes, method="galore").bytes


@pytest.mark.parametrize("name", sgc.available("compressor"))
def test_what_is_shared_at_least_is_never_more_than_what_is(name):
    W = torch.empty(48, 32)
    known = sgc.registry.option_names("compressor", name) or []
    given = {"chunks": 4, "sparsity": 8, "measurements": 64}
    for projection in compressing():
        options = {key: value for key, value in given.items() if key in known}
        options |= {"projection": projection} if "projection" in known else {}
        made = sgc.create("compressor", name, **options)
        floor = made.shared_floor(tuple(W.shape), W.dtype)
        assert 0 <= floor <= sgc.predict(made, W).shared_bytes
        stored = not sgc.registry.resolve("projection", projection).structured
        assert (floor > 0) == ("projection" in known and stored)


def test_a_plan_that_cannot_fit_draws_no_large_matrix(monkeypatch):
    drawn = []
    real = sgc.operators.create

    def create(kind, name, k, d, **options):
        drawn.append(k * d)
        return real(kind, name, k, d, **options)

    monkeypatch.setattr(sgc.operators, "create", create)
    with pytest.raises(sgc.BudgetError, match="projection=srht"):
        sgc.plan(torch.empty(256, 256), budget_bytes=3000, method="mesgc:sparsity=4,chunks=4")
    assert len(drawn) <= 2  # to say what the smallest takes
