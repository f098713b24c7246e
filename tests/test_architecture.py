"""The shape of the tree: imports run one way, files stay small, nothing seeds the global RNG."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
#: What each folder may import of ours.
ALLOWED = {
    "projections": {"projections"},
    "recovery": {"projections", "recovery"},
    "sgc": {"projections", "recovery", "sgc"},
    "studies": {"projections", "recovery", "sgc", "studies"},
}
SOURCES = [path for folder in ALLOWED for path in sorted((ROOT / folder).rglob("*.py"))]
every_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@every_source
def test_imports_run_one_way(path):
    """projections ← recovery ← sgc ← studies."""
    folder = path.relative_to(ROOT).parts[0]
    ours = {name.partition(".")[0] for name in imported(path)} & set(ALLOWED)
    assert ours <= ALLOWED[folder], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[folder]}"


#: Of the studies' rooms, what each may import; files beside them are questions, which may all.
ROOMS = {
    "measures": {"measures"},
    "figures": {"measures", "figures"},
    "runner": {"measures", "runner", "study", "plugins"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_of_the_studies_know_no_question(room):
    for path in sorted((ROOT / "studies" / room).glob("*.py")):
        ours = (name.split(".") for name in imported(path) if name.startswith("studies."))
        known = {parts[1] for parts in ours}
        assert known <= ROOMS[room], f"{path.name} imports {known - ROOMS[room]}"
        assert "studies" not in imported(path), f"{path.name}: import from the room that is meant"


@every_source
def test_no_god_files(path):
    assert len(path.read_text("utf-8").splitlines()) <= 330


@every_source
def test_no_global_seeding(path):
    """Dropout can only be seeded globally: one file does it, inside fork_rng."""
    seeds = re.search(
        r"torch\.manual_seed|np\.random\.seed|random\.seed\(", path.read_text("utf-8")
    )
    assert not seeds or path.name == "randomness.py"


def test_the_adam_step_is_written_once():
    """Only torch's own AdamW and one file of ours: no copy per method."""
    copies = [p for p in SOURCES if re.search(r"\.lerp_\(", p.read_text("utf-8"))]
    assert copies == [ROOT / "sgc" / "adam.py"]
