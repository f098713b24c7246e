"""A study from its command line to its rows and its picture."""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sgc.results import Result, ResultStore, environment
from studies.plugins import outdated
from studies.runner.grid import (
    Point,
    TrialsFailed,
    check_devices,
    is_whole,
    missing,
    only_one,
    points,
    run,
)
from studies.runner.parts import Parts
from studies.runner.rows import drawn
from studies.runner.show import NotDrawnError, Place, show
from studies.study import Study

__all__ = ["carry_out", "draw", "say"]


def carry_out(
    study: Study,
    *,
    preset: str,
    place: Place,
    jobs: int | None,
    seeds: int | None,
    device: str | None,
    fresh: bool,
    tables: bool,
    console: Console,
) -> None:
    """Run what a file of rows lacks, then draw what it has.

    Args:
        study: whose.
        preset: its grid.
        place: the files.
        jobs: trials at a time; None: a process a core, or 1 on a GPU.
        seeds, device: instead of the preset's.
        fresh: run trials again that are there.
        tables: whether to print them.
        console: for messages.

    Raises:
        ConfigError: no such preset or device.
        RunBusyError: another run is at this file.
        TrialsFailed: some did, and the others have their rows; or the rows cannot be drawn.
        ResultStoreError, OSError: a file cannot be written.
    """
    store, here = ResultStore(place.rows), environment()
    wanted = _announced(study, preset, console, device=device, seeds=seeds)
    check_devices(missing(study, _done(study, store, here, fresh), wanted))
    with only_one(place.rows):
        there = _done(study, store, here, fresh)
        todo = missing(study, there, wanted)
        store.prepare()
        place.check_writable()
        if fresh:
            parts = Parts(store.path, here["git"])
            for point in todo:
                parts.forget(study.run_id(point.config, point.seed))
        _say_what_is_there(study, there, wanted, store, here, console)
        on_gpu = any(str(getattr(p.config, "device", "cpu")).startswith("cuda") for p in wanted)
        own = study.preset(preset).jobs
        at_once = jobs or own or (1 if on_gpu else os.cpu_count() or 1)
        if study.alone and jobs not in (None, 1):
            say(console, f"{study.name} measures times: one trial runs at a time")
        with _progress(console) as bar:
            task = bar.add_task(study.name, total=len(wanted), completed=len(wanted) - len(todo))
            failed = run(
                study,
                todo,
                store,
                here=here,
                jobs=at_once,
                on_trial=lambda point: bar.advance(task),
            )
        wrong = []
        if failed:
            point, reason = next(iter(failed.items()))
            wrong.append(
                f"{len(failed)} of {len(wanted)} trials failed, the first with {reason} "
                f"({point.config}, seed {point.seed})"
            )
        try:
            draw(study, store.load(), wanted, place, console, tables=tables)
        except NotDrawnError as error:
            wrong.append(str(error))
    say(console, f"results: {store.path}")
    if wrong:
        raise TrialsFailed("; ".join(wrong))


def draw(
    study: Study,
    rows: Sequence[Result],
    grid: Sequence[Point],
    place: Place,
    console: Console,
    *,
    tables: bool,
    device: str | None = None,
) -> bool:
    """Write picture and text of a file's rows; False for none.

    See :func:`studies.runner.rows.drawn`.
    """
    chosen, notes = drawn(study, rows, grid, device)
    for note in notes:
        say(console, f"{place.rows}: {note}")
    if chosen:
        show(study, chosen, place, console, tables=tables)
    return bool(chosen)


def say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _announced(study: Study, preset: str, console: Console, **options: Any) -> list[Point]:
    """The trials, and what the grid leaves out here."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        wanted = points(study, preset, **options)
    for text in dict.fromkeys(str(one.message) for one in said):
        say(console, f"{study.name}: {text}")
    return wanted


def _done(study: Study, store: ResultStore, here: dict[str, Any], fresh: bool) -> list[Result]:
    """Rows that count: of this machine, where that matters."""
    if fresh:
        return []
    same = [("cpu", here["cpu"]), ("gpu", here["gpu"])] if study.alone else []
    return [row for row in store.load() if all(row.environment.get(k) == v for k, v in same)]


def _say_what_is_there(
    study: Study,
    there: Sequence[Result],
    wanted: Sequence[Point],
    store: ResultStore,
    here: dict[str, Any],
    console: Console,
) -> None:
    ids = {study.run_id(point.config, point.seed) for point in wanted}
    own = (row for row in there if row.kind == study.kind and row.run_id in ids)
    rows = {row.run_id: row for row in own if is_whole(study, row)}
    again = {
        i: files for i, row in rows.items() if (files := outdated(row.config, row.environment))
    }
    for which, count in Counter(", ".join(files) for files in again.values()).items():
        say(
            console,
            f"{study.name}: {count} trials are run again: their rows are of another {which}",
        )
    kept = [row for i, row in rows.items() if i not in again]
    if not kept:
        return
    others = {str(row.environment.get("git")) for row in kept}
    if not str(here["git"]).endswith("-dirty"):  # which says nothing of what was changed
        others -= {str(here["git"])}
    made = f", some with revision {', '.join(sorted(others))}" if others else ""
    say(
        console,
        f"{study.name}: {len(kept)} trials are already in {store.path}{made} (or: --fresh)",
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True) if not console.is_terminal else console,
    )
