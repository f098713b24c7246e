"""Every residual rule behind several compressors, for the suites of both."""

import pytest

import sgc
from sgc.compressors.stateless import ResidualOnly
from tests.conftest import makeable

RULES = makeable("residual")
SKETCH = {"sparsity": 16, "chunks": 2, "kappa": 4}
LOW_RANK = {"rank": 4, "refresh_every": 5}
#: Sparse, of low rank, a sketch of low rank, and no update at all.
COMPRESSORS = {
    "mesgc": SKETCH,
    "sgc": {"sparsity": 16, "kappa": 4, "projection": "gaussian"},
    "cesgc": {**SKETCH, **LOW_RANK},
    "galore": LOW_RANK,
    "subspace": {**LOW_RANK, "source": "random"},
    "nothing": {},
}
every_pair = pytest.mark.parametrize(
    ("rule", "name"), [(rule, name) for rule in RULES for name in COMPRESSORS]
)
every_rule = pytest.mark.parametrize("rule", RULES)


def made(name, residual, **options):
    if name == "nothing":
        return ResidualOnly(residual=residual)
    return sgc.create("compressor", name, residual=residual, **{**COMPRESSORS[name], **options})
