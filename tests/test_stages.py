"""Compressors inside compressors: what is refused, and what an inner one covers of the gradient."""

import pytest
import torch

import sgc
from sgc.specs import Spec
from tests.helpers import normal

SKETCH = {"inner": "mesgc", "inner.sparsity": 8, "inner.chunks": 2, "inner.kappa": 4}


def make(spec):
    parsed = Spec.parse(spec)
    return sgc.create("compressor", parsed.name, **parsed.options)


def moved(compressor, *, steps=4, dtype=torch.float64):
    w = torch.nn.Parameter(torch.zeros(24, 16, dtype=dtype))
    optimizer = sgc.CompressedAdamW([w], lr=1.0, compressor=compressor)
    for t in range(steps):
        w.grad = normal(24, 16, seed=t + 1, dtype=dtype)
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("stage", ["galore", "subspace", "gwt"])
@pytest.mark.parametrize("inner", ["sgd", "sign-sgd", "normalised-sgd"])
def test_a_method_that_is_all_residual_is_no_inner_one(stage, inner):
    with pytest.raises(ValueError, match=r"own residual .* not be applied"):
        sgc.create("compressor", stage, inner=inner)


@pytest.mark.parametrize("stage", ["galore", "gwt"])
def test_a_residual_of_the_inner_compressor_is_refused(stage):
    with pytest.raises(ValueError, match=r"inner=MESGC inside .* give residual to"):
        sgc.create("compressor", stage, **SKETCH, **{"inner.residual": 0.1})
    sgc.create("compressor", stage, residual=0.1, **SKETCH)


@pytest.mark.parametrize(
    ("spec", "state"),
    [
        ("galore:inner=galore", "basis, basis_step"),
        ("galore:inner=flora", "basis_step"),
        ("galore:inner=ldadam", "basis, basis_step"),
        ("galore:inner=gwt,inner.inner=galore", "basis, basis_step"),
        ("adafactor:inner=adafactor", "exp_avg_sq_col"),
        ("adafactor:inner=flora", "exp_avg_sq_col"),
        ("adafactor:inner=galore,inner.inner=adafactor", "exp_avg_sq_col"),
        (
            "galore:residual=fira,inner=adafactor,inner.inner=mesgc,inner.inner.residual=fira",
            "residual_norm",
        ),
    ],
)
def test_two_parts_that_would_share_one_state_are_refused(spec, state):
    with pytest.raises(ValueError, match=rf"share one state \({state}"):
        make(spec)


@pytest.mark.parametrize("residual", ["0.5", "fira", "sign", "apollo", "raw"])
@pytest.mark.parametrize("stage", ["galore:rank=4", "gwt:level=1"])
def test_an_inner_transform_that_changes_nothing_changes_nothing(stage, residual):
    plain = make(f"{stage},residual={residual}")
    within = make(f"{stage},residual={residual},inner=gwt,inner.level=0")
    torch.testing.assert_close(moved(within), moved(plain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("residual", ["0.5", "fira", "raw"])
def test_a_subspace_may_be_the_inner_one(residual):
    """Of full rank it covers all that it is given, as dense moments do; it turns them only."""
    alone = make(f"gwt:level=1,residual={residual},inner=sgd-momentum")
    full = "rank=8,inner.source=svd,inner.inner=sgd-momentum"
    within = make(f"gwt:level=1,residual={residual},inner=subspace,inner.{full}")
    torch.testing.assert_close(moved(within), moved(alone), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "gwt:level=1,inner=adafactor,inner.inner=galore,inner.inner.rank=2",
        "galore:rank=6,inner=adafactor,inner.inner=gwt,inner.inner.level=1",
        "galore:rank=6,inner=adafactor,inner.inner=adjoint,inner.inner.measurements=32",
        "gwt:level=1,inner=galore,inner.rank=3,inner.inner=explicit-sparse,inner.inner.entries=5",
    ],
)
def test_three_stages_take_a_residual(spec):
    plain, completed = moved(make(spec)), moved(make(f"{spec},residual=0.1"))
    assert torch.isfinite(completed).all()
    assert not torch.equal(plain, completed)


def test_the_given_compressors_stay_as_they_are():
    galore = sgc.create("compressor", "galore", rank=2)
    middle = sgc.create("compressor", "adafactor", inner=galore)
    outer = sgc.create("compressor", "gwt", level=1, inner=middle, residual=0.1)
    assert outer.inner._is_inner
    assert outer.inner.inner._is_inner
    assert not any(given._is_inner for given in (galore, middle, middle.inner))


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        ("galore:inner=sign-sgd,residual=sign", "sign,residual.scale=0.5"),
        ("galore:inner=sgd,residual=raw,residual.scale=1.0", "raw,residual.scale=0.5"),
        ("galore:inner=normalised-sgd,residual=1.0", "0.5"),
    ],
)
def test_an_inner_residual_is_the_outer_one_however_it_is_spelt(spec, other):
    make(spec)
    with pytest.raises(
        ValueError, match=r"own residual .* would not be applied there, but that of"
    ):
        make(f"{spec.split(',residual')[0]},residual={other}")
