"""Own parts reach every process of a run, and scripts learn what they lack."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sgc
from sgc.results import ResultStore, environment
from studies import plugins
from studies.cli import app
from studies.runner.grid import points, run
from studies.study import Study
from tests.studies import toy_parts

ROOT = Path(__file__).parents[2]
PARTS = Study("parts", toy_parts)

pytestmark = pytest.mark.usefixtures("toy_parts_alone")
PLUGIN = """
import sgc

@sgc.register("recovery", "toy-file")
class FromFile:
    "A solver."
"""
#: A script that runs the toy study; what stands before and how it is guarded differs.
SCRIPT = """
import sgc
from pathlib import Path
from sgc.results import ResultStore, environment
from studies.runner.grid import points, run
from studies.study import Study
from tests.studies import toy_parts

class Mine:
    "A solver."

def main():
    sgc.register("recovery", "toy-script", Mine)
    parts, store = Study("parts", toy_parts), ResultStore(Path("rows.jsonl"))
    print(run(parts, points(parts, "smoke"), store, here=environment(), jobs=2))
"""


class OfThisModule:
    """A solver."""


def found(path):
    return {(row.config["solver"], row.metrics["class"]) for row in ResultStore(path).load()}


def in_this_process(tmp_path, **options):
    store = ResultStore(tmp_path / "rows.jsonl")
    failed = run(PARTS, points(PARTS, "smoke"), store, here=environment(), **options)
    return failed, found(store.path)


def script(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text, "utf-8")
    return subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_plug_in_file_is_known_to_every_process(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(PLUGIN, "utf-8")
    ask = ["run", "parts", "--preset", "smoke", "--out", tmp_path, "--plugin", file]
    done = CliRunner().invoke(app, [*map(str, ask), "--jobs", "2"])
    assert done.exit_code == 0, done.output
    path = tmp_path / "parts-smoke.jsonl"
    assert found(path) == {("toy-file", "FromFile")}
    written = ResultStore(path).load()
    assert {row.environment["plugins"]["own.py"] for row in written} == {
        plugins.digests()["own.py"]
    }


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (None, "no such file"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at"),
        ('import sgc; sgc.register("recovery", "omp", object)', "called 'omp' already"),
    ],
)
def test_a_plug_in_file_that_cannot_be_used_is_named(text, answer, tmp_path):
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(text, "utf-8")
    done = CliRunner().invoke(app, ["run", "parts", "--plugin", str(file), "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert f"--plugin {file}" in done.output
    assert answer in done.output
    assert not list(tmp_path.glob("*.jsonl"))


def test_what_a_module_registered_is_known_to_every_process(tmp_path):
    sgc.register("recovery", "toy-module", OfThisModule)
    assert "toy-module" in plugins.solvers()  # asked for before, without it
    failed, classes = in_this_process(tmp_path, jobs=2)
    assert not failed
    assert classes == {("toy-module", "OfThisModule")}


def test_what_no_process_could_import_runs_here(tmp_path, monkeypatch):
    class Local:
        """A solver."""

    monkeypatch.setattr("studies.runner.workers.worker_pool", None)
    sgc.register("recovery", "toy-local", Local)
    with pytest.warns(UserWarning, match="one trial runs at a time.*'toy-local'.*--plugin FILE.py"):
        failed, classes = in_this_process(tmp_path, jobs=2)
    assert not failed
    assert classes == {("toy-local", "Local")}


def test_classes_of_a_notebook_are_no_others_to_import(monkeypatch):
    class Cell:
        """A solver."""

    Cell.__module__, Cell.__qualname__ = "__main__", "Cell"
    main = type(sys)("__main__")  # as a kernel has it: without a file
    main.Cell = Cell
    monkeypatch.setitem(sys.modules, "__main__", main)
    sgc.register("recovery", "toy-cell", Cell)
    with pytest.raises(plugins.NotForWorkersError, match="'toy-cell'"):
        plugins.handover()
    main.__file__ = __file__
    assert plugins.handover().parts


def test_a_script_with_a_guard_brings_its_own_parts(tmp_path):
    done = script(tmp_path, SCRIPT + 'if __name__ == "__main__":\n    main()\n')
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"
    assert found(tmp_path / "rows.jsonl") == {("toy-script", "Mine")}


def test_a_script_without_a_guard_is_told_before_the_work(tmp_path):
    done = script(tmp_path, SCRIPT + "main()\n")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sgc.finetune.config.ConfigError: every worker process would run")
    assert "own.py" in last
    assert 'if __name__ == "__main__":' in last
    assert done.stderr.count("Traceback") == 1


def test_a_script_with_a_misplaced_guard_is_told_why_its_workers_died(tmp_path):
    done = script(tmp_path, SCRIPT + 'main()\nif __name__ == "__main__":\n    print("end")\n')
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("studies.runner.grid.TrialsFailed: a process of the run has died")
    assert 'outside of its if __name__ == "__main__":' in last
    assert "bootstrapping" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_ctrl_c_while_processes_start_says_one_sentence(tmp_path):
    call = (
        "import signal, sys; from studies import cli, study; "
        # what is started in the background of a shell ignores it
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "cli.STUDIES = study.STUDIES = {'toy': 'tests.studies.toy'}; cli.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", call, "toy", "--preset", "slow", "--jobs", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 120
    while len(children.read_text().split()) < 3:  # two workers, and Python's own for them
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.5)  # they import
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "the same command goes on" in said
