"""A plug-in file that was edited: trials of its parts run again, and only those."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import sgc
from sgc.results import ResultStore, environment
from studies import plugins
from studies.cli import app
from studies.runner.grid import missing, points, run
from studies.runner.rows import drawn
from studies.study import Study
from tests.studies import toy_parts

PARTS = Study("parts", toy_parts)

pytestmark = pytest.mark.usefixtures("toy_parts_alone")


class Kept:
    """A solver of no plug-in file."""


def forget(names=("toy-file",)):
    """As in a new process."""
    plugins._files.clear()
    plugins._of_files.clear()
    for name in set(names) & set(sgc.available("recovery")):
        sgc.unregister("recovery", name)


def written(file, text="First", part="toy-file"):
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f'import sgc\n\n@sgc.register("recovery", "{part}")\nclass {text}:\n    "A solver."\n',
        "utf-8",
    )
    return file


@pytest.fixture
def of_parts(tmp_path):
    """A command of a new process that loads ``own.py``; its exit code and its output."""

    def call(command="run", *arguments):
        forget()
        ask = ["parts", "--preset", "smoke", "--out", tmp_path, "--plugin", tmp_path / "own.py"]
        ask += ["--jobs", "1"] if command == "run" else []
        done = CliRunner().invoke(app, [command, *map(str, ask), *arguments])
        return done.exit_code, done.output

    return call


def test_trials_of_an_edited_file_run_again_and_no_others(of_parts, tmp_path):
    path = tmp_path / "parts-smoke.jsonl"
    sgc.register("recovery", "toy-kept", Kept)
    written(tmp_path / "own.py")
    assert "run again" not in of_parts()[1]
    first = path.read_bytes()
    assert "4 trials are already in" in of_parts()[1]
    assert path.read_bytes() == first

    written(tmp_path / "own.py", "Other")  # as long, and perhaps within a second
    said = of_parts()[1]
    assert "parts: 2 trials are run again: their rows are of another own.py" in said
    assert "parts: 2 trials are already in" in said
    assert path.read_bytes().startswith(first)
    rows = ResultStore(path).load()
    assert [row.metrics["class"] for row in rows[4:]] == ["Other", "Other"]

    def classes():
        chosen, notes = drawn(PARTS, ResultStore(path).load(), points(PARTS, "smoke"))
        assert not notes
        return sorted(row.metrics["class"] for row in chosen)

    assert classes() == ["Kept", "Kept", "Other", "Other"]
    assert "4 trials are already in" in of_parts()[1]
    written(tmp_path / "own.py", "First")  # its rows are there, but later ones would be drawn
    assert "2 trials are run again" in of_parts()[1]
    assert classes() == ["First", "First", "Kept", "Kept"]


def test_rows_without_a_digest_are_of_another_file(of_parts, tmp_path):
    sgc.register("recovery", "toy-file", Kept)
    store = ResultStore(tmp_path / "parts-smoke.jsonl")
    assert not run(PARTS, points(PARTS, "smoke"), store, here=environment())
    written(tmp_path / "own.py")
    assert "2 trials are run again" in of_parts()[1]
    assert [row.metrics["class"] for row in store.load()] == ["Kept", "Kept", "First", "First"]


def test_a_row_stays_until_the_new_one_is_there(of_parts, tmp_path):
    written(tmp_path / "own.py")
    of_parts()
    broken = written(tmp_path / "own.py", "Other")
    broken.write_text(broken.read_text("utf-8") + "    def __init__(self): 1 / 0\n", "utf-8")
    for command, code in (("run", 1), ("figure", 0)):
        left, said = of_parts(command)
        assert left == code, said
        assert "2 of 2 rows are drawn that a run would measure again" in said
    rows = ResultStore(tmp_path / "parts-smoke.jsonl").load()
    assert [row.metrics["class"] for row in rows] == ["First", "First"]


def test_a_script_that_loads_a_file_has_its_digest_in_the_rows(tmp_path):
    plugins.load(written(tmp_path / "own.py"))
    store, wanted = ResultStore(tmp_path / "rows.jsonl"), points(PARTS, "smoke")
    assert not run(PARTS, wanted, store, here=environment())
    assert not missing(PARTS, store.load(), wanted)
    plugins._files[(tmp_path / "own.py").resolve()] = "edited"
    assert missing(PARTS, store.load(), wanted) == wanted


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("toy-file", True),
        ("sgc:sparsity=4,recovery=toy-file,chunks=2", True),
        ("sgc:recovery=toy-file", True),
        ([["mine", "toy-file:tol=1"]], True),
        ({"a": {"b": ("toy-file",)}}, True),
        ("toy-file-2", False),
        ("my-toy-file", False),
        ("toy-files", False),
        ({"toy-file": 1}, False),
        (7, False),
    ],
)
def test_a_config_names_a_part_as_a_value_or_within_a_spec(value, names, tmp_path):
    plugins.load(written(tmp_path / "own.py"))
    plugins.load(written(tmp_path / "more.py", part="toy-more"))
    here = {"own.py": plugins.digests()["own.py"]} if names else {}
    assert plugins.read_by({"value": value, "n": 1}) == here


def test_a_file_that_another_one_loads_keeps_its_parts(tmp_path):
    inner = written(tmp_path / "inner.py", part="toy-inner")
    outer = written(tmp_path / "outer.py")
    first = f"import pathlib, studies.plugins as p\np.load(pathlib.Path({str(inner)!r}))\n"
    outer.write_text(first + outer.read_text("utf-8"), "utf-8")
    plugins.load(outer)
    assert list(plugins.read_by({"solver": "toy-inner"})) == ["inner.py"]
    assert list(plugins.read_by({"solver": "toy-file"})) == ["outer.py"]


def test_files_of_one_name_are_told_apart(tmp_path):
    plugins.load(written(tmp_path / "b" / "own.py"))
    alone = plugins.digests()["own.py"]
    plugins.load(written(tmp_path / "a" / "own.py", "Other", part="toy-more"))
    both = plugins.digests()["own.py"]
    assert alone in both
    for part in ("toy-file", "toy-more"):
        assert plugins.outdated({"solver": part}, {"plugins": {"own.py": alone}}) == ["own.py"]
        assert not plugins.outdated({"solver": part}, {"plugins": {"own.py": both}})


def test_a_stopped_trial_does_not_go_on_with_another_file(tmp_path):
    """Its parts were made by the solver as it was."""
    found = []

    def trial(config, generator, scratch):
        found.append(list(scratch.glob("*")))
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / config.solver).touch()
        raise RuntimeError("stopped")

    study = Study("parts", SimpleNamespace(**{**vars(toy_parts), "trial": trial}))
    sgc.register("recovery", "toy-kept", Kept)
    plugins.load(written(tmp_path / "own.py"))
    wanted = [point for point in points(study, "smoke") if point.config.copy == 0]
    assert [point.config.solver for point in wanted] == ["toy-file", "toy-kept"]
    store = ResultStore(tmp_path / "rows.jsonl")

    def gone_on_from():
        found.clear()
        assert len(run(study, wanted, store, here=environment())) == 2
        return [bool(files) for files in found]

    assert gone_on_from() == [False, False]
    assert gone_on_from() == [True, True]
    plugins._files[(tmp_path / "own.py").resolve()] = "edited"
    assert gone_on_from() == [False, True]
