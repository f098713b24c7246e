"""Courses of runs: each at its own pace, in the order of rank, without what is there already."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from sgc.finetune import runner as module
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.runner import Runner
from sgc.results import Result

QUIET = Console(quiet=True)


def wish(seed: int, *, lr: float = 1e-3) -> FinetuneConfig:
    return FinetuneConfig(method="sign-sgd", lr=lr, seed=seed)


@pytest.fixture
def carried_out(monkeypatch):
    """Seeds in the order in which they were run; seed 13 fails."""
    seeds = []

    def run(config, *, folder, console):
        seeds.append(config.seed)
        if config.seed == 13:
            raise ArithmeticError("thirteen")
        return Result(
            run_id=config.run_id, kind="finetune", config={}, seed=config.seed, metrics={}
        )

    monkeypatch.setattr(module, "run", run)
    return seeds


def course(*wishes):
    """Asks for each wish in turn; returns the seeds that came back."""
    got = []
    for configs in wishes:
        found = yield configs
        got.append(sorted(result.seed for result in found.values()))
    return got


def follow(folder, *courses):
    with Runner(folder, console=QUIET) as runner:
        return runner.follow(courses, title="test", rank=lambda c: c.seed), runner


def test_courses_go_on_as_soon_as_they_have_what_they_want(tmp_path, carried_out):
    quick = course([wish(1)], [wish(2)], [wish(3)])
    slow = course([wish(5), wish(9)])
    (first, second), _ = follow(tmp_path, quick, slow)
    assert first == [[1], [2], [3]]
    assert second == [[5, 9]]
    assert carried_out == [1, 2, 3, 5, 9]  # by rank, and 2 and 3 were not held up by 9


def test_a_run_that_several_want_is_made_once(tmp_path, carried_out):
    found, _ = follow(tmp_path, course([wish(1)], [wish(2)]), course([wish(2)], [wish(1), wish(4)]))
    assert found == [[[1], [2]], [[2], [1, 4]]]
    assert sorted(carried_out) == [1, 2, 4]


def test_a_failed_run_is_missing_and_nobody_waits_for_it(tmp_path, carried_out):
    found, runner = follow(tmp_path, course([wish(13), wish(1)], [wish(2)]), course([wish(13)]))
    assert found == [[[1], [2]], [[]]]
    assert runner.failed == {wish(13).run_id: "ArithmeticError: thirteen"}
    with pytest.raises(ArithmeticError, match="thirteen"):
        follow(tmp_path, course([wish(13)]))


def test_a_course_that_wants_nothing_ends(tmp_path, carried_out):
    assert follow(tmp_path, course(), course([]))[0] == [[], [[]]]
    assert carried_out == []


ORPHAN = """
import os, signal
from sgc.finetune.runner import worker_pool

if __name__ == "__main__":
    pool = worker_pool(1)
    asked = pool.submit(os.getpid)
    print({worker}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize(
    "worker", ["asked.result()", "next(iter(pool._processes))"], ids=["at work", "while it starts"]
)
def test_workers_end_with_a_parent_that_is_killed(worker, tmp_path):
    (tmp_path / "killed.py").write_text(ORPHAN.replace("{worker}", worker))
    with subprocess.Popen(
        [sys.executable, tmp_path / "killed.py"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
    ) as parent:
        worker = int(parent.stdout.readline())
        parent.wait()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody asks about does not."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
