"""Courses of runs: each at its own pace, in the order of rank, without what is there already."""

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
