"""Method specs: what is written is what is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgc.specs import Spec, SpecError

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,11}", fullmatch=True)
keys = st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True)
words = st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True)
words = words.filter(lambda word: word not in ("true", "false"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = numbers | st.booleans() | words


@given(names, st.dictionaries(keys, values, max_size=5))
def test_parse_inverts_format(name: str, options: dict) -> None:
    spec = Spec(name=name, options=options)
    again = Spec.parse(spec.format())
    assert again.name == name
    assert dict(again.options) == options
    assert [type(v) for v in again.options.values()] == [type(v) for v in options.values()]


def test_reads_each_kind_of_value() -> None:
    spec = Spec.parse(" mesgc: sparsity=48, residual=1e-1,refresh-every = 3,x=TRUE,recovery=omp ")
    assert spec.name == "mesgc"
    assert dict(spec.options) == {
        "sparsity": 48,
        "residual": 0.1,
        "refresh_every": 3,
        "x": True,
        "recovery": "omp",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "method name"),
        ("mesgc:sparsity", "write NAME:OPTION=VALUE"),
        ("mesgc:sparsity=", "write NAME:OPTION=VALUE"),
        ("mesgc:sparsity=1,sparsity=2", "stands twice"),
        ("mesgc:sparsity=1 2", "cannot be written"),
        ("me sgc", "method name"),
    ],
)
def test_refuses_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        Spec.parse(text)


@pytest.mark.parametrize("value", ["48", "a,b", "true", "1e5", float("inf"), ""])
def test_refuses_values_that_would_not_come_back(value: object) -> None:
    with pytest.raises(SpecError, match="cannot be written"):
        Spec(name="mesgc", options={"x": value})
