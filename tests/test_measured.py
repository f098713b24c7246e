"""What methods share that measure chunks: refusals, remedies, and what they are made of."""

import copy
import pickle
import re
import warnings

import pytest
import torch

import sgc
from sgc.chunkers.permuted import Permuted
from tests.helpers import normal, steps, weights_like

every_sketch = pytest.mark.parametrize("name", ["mesgc", "sgc", "cesgc", "adjoint"])


@pytest.mark.parametrize("shape", [(8, 12), (7, 31), (4096, 4096)], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgc", {"sparsity": 1}),
        ("sgc", {"sparsity": 3}),
        ("mesgc", {"sparsity": 6, "chunks": 2}),
        ("adjoint", {"chunks": 1}),
        ("adjoint", {"chunks": 4, "measurements": 8}),
    ],
)
def test_the_remedy_of_a_refusal_is_one(name, options, shape):
    """Of a projection that has as many rows as columns."""
    options = {**options, "projection": "identity"}
    reason = sgc.create("compressor", name, **options).refuses(shape)
    option, value = re.search(r"set (\w+)=([\d.e+]+),", reason).groups()
    value = float(value) if option == "kappa" else int(value)
    assert sgc.create("compressor", name, **{**options, option: value}).refuses(shape) is None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_where_nothing_is_left_out_nothing_is_prepared(device, monkeypatch):
    """There is no support to find, so no solver is asked, and it keeps nothing."""
    whole = sgc.create("compressor", "sgc", sparsity=384, kappa=1, projection="identity")
    monkeypatch.setattr(type(whole.recovery), "solve", None)
    planned = sgc.predict(whole, [torch.nn.Parameter(torch.zeros(24, 16, device=device))])
    (w,) = weights_like((24, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=whole)
    steps(optimizer, [w], 1)
    report = sgc.state_report(optimizer)
    assert (planned.state_bytes, planned.shared_bytes) == (report.state_bytes, report.shared_bytes)
    assert planned.shared_bytes == 0


@every_sketch
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1.5}, "seed must be an integer, got 1.5"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"chunker": "nope"}, "unknown chunker 'nope'"),
        ({"chunker": {}}, "a chunker is given by its name or as an object"),
        ({"chunker": Permuted}, "a chunker is given by its name or as an object"),
        ({"recovery": object()}, "a recovery is given by its name or as an object"),
        ({"projection": None}, "projection must be a registered name, got None"),
        ({"projection": 3}, "projection must be a registered name, got 3"),
    ],
)
def test_parts_that_are_none_are_refused_when_they_are_given(name, options, message):
    if not set(options) <= set(sgc.registry.option_names("compressor", name)):
        pytest.skip("it has no such option")
    with pytest.raises((TypeError, LookupError), match=re.escape(message)):
        sgc.create("compressor", name, **options)


def test_one_chunk_keeps_a_chunker_of_ones_own():
    class Reversed(Permuted):
        layout = None

        def source(self, slots, *, length):
            return self.chunks * length - 1 - slots

    sgc.register("chunker", "reversed", Reversed)
    try:
        one = sgc.create("compressor", "adjoint", measurements=8, chunker="reversed")
        assert isinstance(one.chunker, Reversed)
    finally:
        sgc.registry.unregister("chunker", "reversed")


@pytest.mark.parametrize(("length", "warned"), [(128, False), (129, True)])
def test_too_few_columns_are_said_once(length, warned):
    """Eight rows of ±1 have 2⁷ columns that differ by more than a sign."""
    (w,) = weights_like((length, 1))
    sketch = sgc.create("compressor", "sgc", sparsity=1, kappa=8, projection="rademacher")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        steps(sgc.CompressedAdamW([w], compressor=sketch), [w], 3)
    assert len(said) == warned


def sketch(**options):
    return sgc.create("compressor", "mesgc", chunks=2, sparsity=8, **options)


@pytest.mark.parametrize(
    "other",
    [
        *(sketch(seed=1), sketch(rule="momentum"), sketch(residual="fira"), None, "mesgc"),
        sgc.create("compressor", "adjoint", measurements=32),
    ],
    ids=["seed", "rule", "residual", "None", "name", "adjoint"],
)
def test_moments_do_not_go_on_with_another_compressor(other):
    (w,) = weights_like((16, 16))
    optimizer = sgc.CompressedAdamW([w], compressor=sketch())
    steps(optimizer, [w], 2)
    before, own = w.detach().clone(), optimizer.param_groups[0]["compressor"]
    optimizer.param_groups[0]["compressor"] = other
    with pytest.raises(ValueError, match="group 0 was changed in mid-run"):
        steps(optimizer, [w], 1)
    assert torch.equal(w, before)
    for equal in (own, sketch()):
        optimizer.param_groups[0]["compressor"] = equal
        steps(optimizer, [w], 1)


def test_copies_and_new_groups_go_on():
    w, v = weights_like((16, 16), (8, 8))
    optimizer = sgc.CompressedAdamW([w], compressor=sketch())
    steps(optimizer, [w], 2)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        copied.param_groups[0]["params"][0].grad = normal(16, 16)
        copied.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [v], "compressor": None})
    steps(optimizer, [w, v], 1)
    del optimizer.param_groups[0]
    steps(optimizer, [v], 1)
