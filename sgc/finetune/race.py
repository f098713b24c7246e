"""A race at equal bytes: every method as large as a budget allows, each at its own best rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from rich.console import Console

from sgc.budget import BudgetError
from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.defaults import Method, resolve_method
from sgc.finetune.entrants import largest
from sgc.finetune.lineup import METHODS, REFERENCES, family_of
from sgc.finetune.pareto import plot_races
from sgc.finetune.race_report import ChooseBy, Entry, RaceReport, budget_table
from sgc.finetune.runner import Course, Runner
from sgc.finetune.targets import TargetError
from sgc.finetune.task import locate
from sgc.finetune.timing import step_times, time_steps, timing_id
from sgc.finetune.tuning import GRID, best_rate, next_rates
from sgc.results import Result, ResultStore

__all__ = ["Race", "race", "show_race"]

#: Rates are chosen with this seed, whose head, data order and dropout no later run has.
TUNING_SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is raced.

    Args:
        config: the task; method, rate and seed are replaced.
        budgets: bytes that a method may hold beside the model, for the targets.
        methods: label → spec; those that have a size get the largest that fits.
        references: label → spec of methods that race whatever they take, at their own size.
        grid: learning rates that may be chosen.
        choose_by: what decides, on a validation part: ``accuracy``, or ``loss``, which still tells
            rates apart where all but a few examples go to the larger class.
        patience: worse rates on either side of the best before its walk ends.
        seeds: runs at the chosen rate, with the seeds ``config.seed``, ``config.seed + 1``, ….
        tuning_seeds: runs of each rate that is tried.
    """

    config: FinetuneConfig
    budgets: Sequence[int]
    methods: Mapping[str, str] = field(default_factory=lambda: METHODS)
    references: Mapping[str, str] = field(default_factory=lambda: REFERENCES)
    grid: Sequence[float] = GRID
    choose_by: ChooseBy = "accuracy"
    patience: int = 1
    seeds: int = 3
    tuning_seeds: int = 1

    def __post_init__(self) -> None:
        if self.choose_by not in get_args(ChooseBy):
            known = " or ".join(get_args(ChooseBy))
            raise ConfigError(f"rates are chosen by {known}, not by {self.choose_by!r}")
        first, tuned = self.config.seed, range(TUNING_SEED, TUNING_SEED + self.tuning_seeds)
        if first < tuned.stop and tuned.start < first + self.seeds:
            raise ConfigError(
                f"seeds {first} to {first + self.seeds - 1} meet those that rates are chosen with, "
                f"{tuned.start} to {tuned.stop - 1}: give another --seed"
            )


@dataclass(frozen=True)
class _Entrant:
    label: str
    method: Method
    budgets: tuple[int, ...]


@dataclass(frozen=True)
class _Ended:
    """An entrant's course: rates with what decided, the runs that count, and their results."""

    entrant: _Entrant
    tried: Mapping[float, float | None]
    finals: Sequence[FinetuneConfig]
    found: Mapping[str, Result]

    @property
    def first(self) -> Result:
        return self.found[self.finals[0].run_id]


def race(plan: Race, *, folder: Path, console: Console, jobs: int = 1) -> RaceReport:
    """Size, tune, run and time every method; finished runs are taken from ``folder``.

    Every entrant takes its course at its own pace. Its learning rate is the best of a walk along
    the grid, by accuracy or loss on a validation part of the training data; the test part is looked
    at with the chosen rate only.
    Of entrants whose runs shared their device with others (``jobs`` > 1), some steps are timed
    alone, afterwards.

    Raises:
        BudgetError: nobody fits.
        as :func:`sgc.finetune.run`.
    """
    config = locate(plan.config)
    entrants, refused = _enter(plan, config)
    for label, reasons in refused.items():
        for budget, reason in reasons.items():
            text = f"{label} is not in the race at {budget:,} bytes: {reason}"
            console.print(text, highlight=False, markup=False)
    if not any(e.budgets for e in entrants):
        raise BudgetError("no method fits into any of the budgets")
    with Runner(folder, jobs=jobs, console=console) as runner:
        courses = [_course(entrant, plan, config) for entrant in entrants]
        # Rates first, then a seed after the other: an early stop leaves a fair picture.
        ended = runner.follow(
            courses, title="racing", rank=lambda c: (c.evaluate == "test", c.seed)
        )
    for course in ended:
        for run in course.finals:
            if run.run_id not in course.found:
                reason = f"a run failed: {runner.failed[run.run_id]}"
                why = dict.fromkeys(course.entrant.budgets or plan.budgets, reason)
                refused.setdefault(course.entrant.label, {}).update(why)
    whole = [course for course in ended if len(course.found) == len(course.finals)]
    shared = [c.finals[0] for c in whole if not c.first.metrics.get("alone")]
    time_steps(shared, folder=folder, console=console)
    times = step_times(ResultStore(folder / "results.jsonl").load())
    entries = [_entry(course, times.get(timing_id(course.finals[0]))) for course in whole]
    return RaceReport(
        config=config.to_dict(),
        budgets=tuple(sorted(set(plan.budgets))),
        grid=tuple(plan.grid),
        seeds=plan.seeds,
        tuning_seeds=plan.tuning_seeds,
        choose_by=plan.choose_by,
        patience=plan.patience,
        entries=tuple(entries),
        refused=refused,
    )


def _enter(plan: Race, config: FinetuneConfig) -> tuple[list[_Entrant], dict[str, dict[int, str]]]:
    """Who races, and who cannot and why."""
    entered: dict[tuple[str, str], tuple[Method, list[int]]] = {}
    refused: dict[str, dict[int, str]] = {}
    for label, spec in plan.methods.items():
        for budget in sorted(set(plan.budgets)):
            try:
                method = largest(spec, config, budget)
            except (BudgetError, TargetError) as error:  # too large, or not for this model
                refused.setdefault(label, {})[budget] = str(error)
            else:
                entered.setdefault((label, method.spec), (method, []))[1].append(budget)
    for label, spec in plan.references.items():
        method = resolve_method(spec)
        entered.setdefault((label, method.spec), (method, []))
    entrants = [
        _Entrant(label, method, tuple(fits)) for (label, _), (method, fits) in entered.items()
    ]
    return entrants, refused


def _course(entrant: _Entrant, plan: Race, config: FinetuneConfig) -> Course[_Ended]:
    """What an entrant goes through: the walk along the grid, then the runs that count."""
    own = config.replace(method=entrant.method.spec)
    tried: dict[float, float | None] = {}
    sign = -1 if plan.choose_by == "loss" else 1  # the walk goes uphill

    def scores() -> dict[float, float | None]:
        return {rate: None if found is None else sign * found for rate, found in tried.items()}

    while rates := _rates(entrant.method, scores(), plan):
        trials = {
            rate: [
                own.replace(lr=rate, seed=TUNING_SEED + seed, evaluate="validation")
                for seed in range(plan.tuning_seeds)
            ]
            for rate in rates
        }
        found = yield [trial for trials_of_rate in trials.values() for trial in trials_of_rate]
        for rate, configs in trials.items():
            runs = [found.get(trial.run_id) for trial in configs]
            tried[rate] = _mean(runs, f"validation_{plan.choose_by}")
    best = own.replace(lr=best_rate(scores()))
    finals = [best.replace(seed=config.seed + seed) for seed in range(plan.seeds)]
    found = yield finals
    return _Ended(entrant, tried, finals, found)


def _rates(method: Method, scores: Mapping[float, float | None], plan: Race) -> list[float]:
    if not method.tunable:
        return [] if scores else [method.lr]
    return next_rates(scores, plan.grid, start=method.lr, patience=plan.patience)


def _mean(results: Sequence[Result | None], metric: str) -> float | None:
    if any(result is not None and metric not in result.metrics for result in results):
        raise ConfigError(
            f"runs that are there already have no {metric}, which was not measured when they were "
            "made: give a new folder with --out, or --choose-by accuracy"
        )
    found = [result.metrics[metric] for result in results if result is not None]
    whole = len(found) == len(results) and None not in found
    return sum(found) / len(found) if whole else None


def _entry(course: _Ended, alone: float | None) -> Entry:
    entrant, metrics = course.entrant, course.first.metrics
    results = [course.found[run.run_id] for run in course.finals]
    return Entry(
        label=entrant.label,
        family=family_of(entrant.label),
        spec=entrant.method.spec,
        budgets=entrant.budgets,
        lr=course.finals[0].lr,
        tried=dict(sorted(course.tried.items())),
        accuracies=tuple(result.metrics["test_accuracy"] for result in results),
        losses=tuple(result.metrics.get("test_loss") for result in results),
        test_examples=metrics["test_examples"],
        states=metrics["states"],
        states_full=metrics["states_full"],
        state_bytes=metrics["state_bytes"],
        shared_bytes=metrics["shared_bytes"],
        extra_weight_bytes=metrics["extra_weight_bytes"],
        revisions=tuple(sorted({str(r.environment.get("git")) for r in results})),
        ms_per_step=metrics.get("ms_per_step") if metrics.get("alone") else alone,
    )


def show_race(report: RaceReport, path: Path, *, console: Console) -> None:
    """Save the report at ``path`` and its picture beside it, and print a table for each budget."""
    report.save(path)
    for budget in report.budgets:
        console.print(budget_table(report, budget))
    picture = path.with_suffix(".png")
    plot_races([report], picture)
    console.print(f"plot: {picture}\nreport: {path}", markup=False, highlight=False, soft_wrap=True)
