"""A race at equal bytes: every method as large as a budget allows, each at its own best rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from sgc.budget import BudgetError
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import Method, resolve_method
from sgc.finetune.entrants import largest
from sgc.finetune.lineup import METHODS, REFERENCES, family_of
from sgc.finetune.pareto import plot_races
from sgc.finetune.race_report import Entry, RaceReport, budget_table
from sgc.finetune.runner import Runner
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
        seeds: runs at the chosen rate, with the seeds ``config.seed``, ``config.seed + 1``, ….
        tuning_seeds: runs of each rate that is tried.
    """

    config: FinetuneConfig
    budgets: Sequence[int]
    methods: Mapping[str, str] = field(default_factory=lambda: METHODS)
    references: Mapping[str, str] = field(default_factory=lambda: REFERENCES)
    grid: Sequence[float] = GRID
    seeds: int = 3
    tuning_seeds: int = 1


@dataclass(frozen=True)
class _Entrant:
    label: str
    method: Method
    budgets: tuple[int, ...]


def race(plan: Race, *, folder: Path, console: Console, jobs: int = 1) -> RaceReport:
    """Size, tune, run and time every method; finished runs are taken from ``folder``.

    The learning rate of each entrant is the best of a walk along the grid, by accuracy on a
    validation part of the training data; the test part is looked at with the chosen rate only.
    Runs that share their device with others (``jobs`` > 1) are not timed: some steps of each
    entrant are timed alone, afterwards.

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
        tried = _tune(plan, config, entrants, runner)
        finals = [
            [
                config.replace(method=e.method.spec, lr=best_rate(scores), seed=config.seed + seed)
                for seed in range(plan.seeds)
            ]
            for e, scores in zip(entrants, tried, strict=True)
        ]
        # A seed after the other: an early stop leaves a fair picture.
        in_turn = [runs[seed] for seed in range(plan.seeds) for runs in finals]
        found = runner.run(in_turn, title="racing")
    for e, runs in zip(entrants, finals, strict=True):
        for reason in (runner.failed[run.run_id] for run in runs if run.run_id not in found):
            why = dict.fromkeys(e.budgets or plan.budgets, f"a run failed: {reason}")
            refused.setdefault(e.label, {}).update(why)
    done = [all(run.run_id in found for run in runs) for runs in finals]
    if jobs > 1:
        whole = [runs[0] for runs, is_done in zip(finals, done, strict=True) if is_done]
        time_steps(whole, folder=folder, console=console)
    alone = step_times(ResultStore(folder / "results.jsonl").load())
    entries = [
        _entry(e, scores, [found[run.run_id] for run in runs], alone.get(timing_id(runs[0])))
        for e, scores, runs, is_done in zip(entrants, tried, finals, done, strict=True)
        if is_done
    ]
    return RaceReport(
        config=config.to_dict(),
        budgets=tuple(sorted(set(plan.budgets))),
        grid=tuple(plan.grid),
        seeds=plan.seeds,
        tuning_seeds=plan.tuning_seeds,
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


def _tune(
    plan: Race, config: FinetuneConfig, entrants: Sequence[_Entrant], runner: Runner
) -> list[dict[float, float | None]]:
    """What each tried: all walk at once, a round of runs at a time."""
    scores: list[dict[float, float | None]] = [{} for _ in entrants]
    number = 0
    while True:
        number += 1
        trials = {
            (i, rate): [
                config.replace(
                    method=entrant.method.spec,
                    lr=rate,
                    seed=TUNING_SEED + seed,
                    evaluate="validation",
                )
                for seed in range(plan.tuning_seeds)
            ]
            for i, entrant in enumerate(entrants)
            for rate in _rates(entrant.method, scores[i], plan.grid)
        }
        if not trials:
            return scores
        wanted = [config for configs in trials.values() for config in configs]
        found = runner.run(wanted, title=f"tuning, round {number}")
        for (i, rate), configs in trials.items():
            scores[i][rate] = _mean_score([found.get(config.run_id) for config in configs])


def _rates(
    method: Method, scores: Mapping[float, float | None], grid: Sequence[float]
) -> list[float]:
    if not method.tunable:
        return [] if scores else [method.lr]
    return next_rates(scores, grid, start=method.lr)


def _mean_score(results: Sequence[Result | None]) -> float | None:
    scores = [r.metrics["validation_accuracy"] for r in results if r is not None]
    whole = len(scores) == len(results) and None not in scores
    return sum(scores) / len(scores) if whole else None


def _entry(
    entrant: _Entrant,
    tried: Mapping[float, float | None],
    results: Sequence[Result],
    alone: float | None,
) -> Entry:
    metrics = results[0].metrics
    return Entry(
        label=entrant.label,
        family=family_of(entrant.label),
        spec=entrant.method.spec,
        budgets=entrant.budgets,
        lr=best_rate(tried),
        tried=dict(sorted(tried.items())),
        accuracies=tuple(result.metrics["test_accuracy"] for result in results),
        test_examples=metrics["test_examples"],
        states=metrics["states"],
        states_full=metrics["states_full"],
        state_bytes=metrics["state_bytes"],
        shared_bytes=metrics["shared_bytes"],
        extra_weight_bytes=metrics["extra_weight_bytes"],
        revisions=tuple(sorted({str(r.environment.get("git")) for r in results})),
        ms_per_step=metrics.get("ms_per_step") if alone is None else alone,
    )


def show_race(report: RaceReport, path: Path, *, console: Console) -> None:
    """Save the report at ``path`` and its picture beside it, and print a table for each budget."""
    report.save(path)
    for budget in report.budgets:
        console.print(budget_table(report, budget))
    picture = path.with_suffix(".png")
    plot_races([report], picture)
    console.print(f"plot: {picture}\nreport: {path}", markup=False, highlight=False, soft_wrap=True)
