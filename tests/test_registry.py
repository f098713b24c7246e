"""Names: listing, creating, adding, and the errors on the way."""

import os
import pathlib
import subprocess
import sys

import pytest

import sgc

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("kind", sgc.KINDS)
def test_built_ins_resolve(kind):
    names = sgc.available(kind)
    assert names == sorted(names)
    for name in names:
        if (kind, name) == ("recovery", "omp-cupy"):
            continue  # may not be importable here; see the test of missing packages
        part = sgc.registry.resolve(kind, name)
        assert part.__doc__, f"{kind} {name} has no docstring"
        assert sgc.registry.option_names(kind, name) is not None


def test_the_names_of_the_contract_are_there():
    assert {"gaussian", "rademacher", "srht", "identity"} <= set(sgc.available("projection"))
    assert {"omp", "omp-inverse-cholesky", "omp-cupy", "cosamp", "iht", "niht"} <= set(
        sgc.available("recovery")
    )
    assert {"contiguous", "strided", "permuted"} <= set(sgc.available("chunker"))
    assert {"joint", "literal"} <= set(sgc.available("decode"))
    assert {"none", "sgc", "mesgc", "cesgc", "galore"} <= set(sgc.available("compressor"))


def test_unknown_names_get_a_suggestion_and_the_list():
    with pytest.raises(sgc.UnknownPluginError, match="did you mean 'gaussian'.*rademacher.*srht"):
        sgc.create("projection", "gausian", 2, 3)
    with pytest.raises(LookupError, match="did you mean 'recovery'"):
        sgc.available("recovry")


def test_unknown_options_get_a_suggestion_and_the_list():
    with pytest.raises(TypeError, match="did you mean 'sparsity'.*chunks, kappa"):
        sgc.create("compressor", "mesgc", sparsty=4)
    with pytest.raises(sgc.UnknownOptionError, match="rank, .*sparsity, chunks"):
        sgc.create("compressor", "cesgc", ranks=4)


def test_register_and_unregister():
    @sgc.register("decode", "test-decode")
    class Part:
        """A part."""

        def __init__(self, *, x=1):
            self.x = x

    assert sgc.create("decode", "test-decode", x=3).x == 3
    with pytest.raises(sgc.DuplicatePluginError, match="'test-decode'"):
        sgc.register("decode", "test-decode", Part)
    with pytest.raises(sgc.DuplicatePluginError, match="'joint'"):
        sgc.register("decode", "joint", Part)
    sgc.unregister("decode", "test-decode")
    assert "test-decode" not in sgc.available("decode")
    with pytest.raises(sgc.UnknownPluginError):
        sgc.unregister("decode", "test-decode")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it now fails, wherever it is
    monkeypatch.delitem(sys.modules, "recovery.omp_cupy", raising=False)
    assert "omp-cupy" in sgc.available("recovery")
    with pytest.raises(sgc.MissingDependencyError, match="pip install cupy-cuda"):
        sgc.create("recovery", "omp-cupy")


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    ).stdout


def test_listing_imports_nothing_heavy():
    out = run_python(
        "import sys, sgc\n"
        "[sgc.available(kind) for kind in sgc.KINDS]\n"
        "heavy = {'cupy', 'transformers', 'sklearn', 'scipy', 'matplotlib', 'recovery.omp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert out.strip() == "[]"


def test_a_third_party_package_plugs_in_without_a_change_here():
    """The example package beside this file is put on the path, as if it were installed."""
    out = run_python(
        "import sgc, torch\n"
        "print('sparse-signs' in sgc.available('projection'), 'matched-filter' in "
        "sgc.available('recovery'))\n"
        "compressor = sgc.create('compressor', 'mesgc', sparsity=8, chunks=2, kappa=4,"
        " projection='sparse-signs', recovery='matched-filter')\n"
        "w = torch.nn.Parameter(torch.ones(8, 8))\n"
        "optimizer = sgc.CompressedAdamW([w], compressor=compressor)\n"
        "for _ in range(5):\n"
        "    optimizer.zero_grad(); w.square().sum().backward(); optimizer.step()\n"
        "print(bool((w < 1).any() and w.isfinite().all()))",
        PYTHONPATH=str(ROOT / "tests" / "example_plugin"),
    )
    assert out.split() == ["True", "True", "True"]


def test_a_projection_inside_is_chosen_by_name_alone():
    with pytest.raises(sgc.UnknownOptionError, match="chosen by its name alone"):
        sgc.create("compressor", "mesgc", **{"projection.seed": 3})
