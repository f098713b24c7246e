"""``sgc compare``: several methods on one task."""

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sgc.cli import options
from sgc.cli.errors import clean_errors
from sgc.files import check_writable
from sgc.finetune import FinetuneConfig, resolve_method
from sgc.finetune import compare as comparison
from sgc.finetune.config import ConfigError
from sgc.finetune.lineup import METHODS
from sgc.finetune.race import Race, race, show_race
from sgc.finetune.tuning import GRID
from sgc.registry import did_you_mean

RACE = "Race at equal bytes"
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}

EXAMPLE = "Example: sgc compare adamw galore:rank=1 mesgc:residual=0.1,lr=1e-3 --seeds 5"


@options.takes_task
def compare(
    *,
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD]...",
            help="NAME or NAME:OPTION=VALUE,… as for 'sgc finetune --compressor'; lr is an option.",
            show_default="frozen adamw sign-sgd galore:rank=1 mesgc mesgc:residual=0.1 cesgc; "
            "with --budget the line-up of sgc/finetune/lineup.py, and always adamw beside it",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each method: --seed, --seed + 1, …")
    ] = 3,
    task: dict[str, Any],
    out: options.Out = options.OUT,
    beside: options.Beside = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BYTES",
            help="Race at equal bytes: every method as large as fits beside the model, at its own "
            "best learning rate. 40000, 40k or 1.2M; may be repeated.",
            rich_help_panel=RACE,
        ),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Race without this one of the line-up; may be repeated.",
            rich_help_panel=RACE,
        ),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(
            help="Learning rates that may be chosen, rising, with commas.",
            show_default="1e-6,3e-6,…,1e3,3e3",
            rich_help_panel=RACE,
        ),
    ] = "",
    tuning_seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each rate that is tried.", rich_help_panel=RACE)
    ] = 1,
    patience: Annotated[
        int,
        typer.Option(
            min=1,
            help="Worse rates on either side of the best one before the search for it ends.",
            rich_help_panel=RACE,
        ),
    ] = 1,
    choose_by: Annotated[
        str,
        typer.Option(
            metavar="accuracy|loss",
            help="What chooses the rate, on a validation part. Loss tells rates apart where most "
            "examples go to the larger class.",
            rich_help_panel=RACE,
        ),
    ] = "accuracy",
    jobs: Annotated[
        int,
        typer.Option(min=1, help="Runs at a time, over all GPUs there are.", rich_help_panel=RACE),
    ] = 1,
    report: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Where a race's numbers go; its picture lies beside it.",
            show_default="OUT/race.json",
            rich_help_panel=RACE,
        ),
    ] = None,
) -> None:
    """Fine-tune with several methods and seeds, and print one table with mean ± s.e.

    Data order, head and dropout are the same for every method of a seed. Runs that --out already
    has are not repeated; an interrupted comparison goes on when the same command is given again.
    """
    console = Console()
    with clean_errors():
        _check_belonging(
            racing=bool(budget),
            race={
                **{"leave-out": leave_out, "grid": grid, "report": report, "jobs": jobs > 1},
                **{"tuning-seeds": tuning_seeds > 1, "patience": patience > 1},
                "choose-by": choose_by != "accuracy",
            },
            plain={"beside": beside},
        )
        chosen = [resolve_method(spec) for spec in methods or comparison.DEFAULT_METHODS]
        config = FinetuneConfig(
            method=chosen[0].spec,
            lr=chosen[0].lr,
            **task,
        )
        if budget:
            target = report or out / "race.json"
            check_writable(target)
            plan = Race(
                config=config,
                budgets=[_bytes(each) for each in budget],
                methods=_entered(methods, leave_out or []),
                grid=_grid(grid),
                seeds=seeds,
                tuning_seeds=tuning_seeds,
                patience=patience,
                choose_by=choose_by,  # type: ignore[arg-type] # checked by the race
            )
            show_race(
                race(plan, folder=out, console=console, jobs=jobs),
                target,
                console=console,
            )
            return
        results = comparison.compare(config, chosen, seeds=seeds, folder=out, console=console)
        comparison.show(results, folder=out, console=console, beside=beside)


def _check_belonging(*, racing: bool, race: dict[str, Any], plain: dict[str, Any]) -> None:
    """Refuse options that would be ignored."""
    for name, given in (plain if racing else race).items():
        if given:
            when = "without --budget" if racing else "with --budget"
            raise ConfigError(f"--{name} means something {when} only")


def _entered(specs: list[str] | None, left_out: list[str]) -> dict[str, str]:
    """Label → spec."""
    methods = {spec: spec for spec in specs} if specs else dict(METHODS)
    for label in left_out:
        if label not in methods:
            hint = did_you_mean(label, list(methods))
            known = ", ".join(methods)
            raise ConfigError(f"--leave-out {label!r} is not in the race{hint}; there are: {known}")
        del methods[label]
    if not methods:
        raise ConfigError("--leave-out leaves nobody to race")
    return methods


def _bytes(text: str) -> int:
    number, unit = text.removesuffix("B"), 1.0
    if number and number[-1] in _UNITS:
        number, unit = number[:-1], _UNITS[number[-1]]
    try:
        found = round(float(number) * unit)
    except (ValueError, OverflowError):  # no number, or infinity
        found = 0
    if found < 1:
        raise ConfigError(f"--budget is a number of bytes such as 40000, 40k or 1.2M, got {text!r}")
    return found


def _grid(text: str) -> tuple[float, ...]:
    if not text:
        return GRID
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    rising = all(a < b for a, b in itertools.pairwise((0.0, *rates, math.inf)))  # no NaN either
    if not rates or not rising:
        raise ConfigError(f"--grid is rising numbers above 0 with commas between, got {text!r}")
    return rates
