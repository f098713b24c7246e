"""Which rows of a file are drawn: all of the study, each trial once."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sgc.results import Result
from studies.plugins import outdated
from studies.runner.workers import Point
from studies.study import Study

__all__ = ["drawn"]


def drawn(
    study: Study, rows: Sequence[Result], grid: Sequence[Point], device: str | None = None
) -> tuple[list[Result], list[str]]:
    """Rows to be drawn, and what there is to say about them.

    Any seeds, devices and parts count, whether or not they are registered now. Of rows that repeat
    a trial, with other files, on another device or with ``--fresh``, one is drawn: of those that
    the grid asks for now if there are any, the latest.

    Args:
        study: whose.
        rows: of a file, the oldest first.
        grid: the preset's trials as they would run now.
        device: only rows computed there.

    Returns:
        The rows, those of the grid first and in its order; a sentence for each oddity.
    """
    own = [row for row in rows if row.kind == study.kind]
    fields = set(study.module.Config.__dataclass_fields__)
    fit = [row for row in own if set(row.config) == fields]
    notes = []
    if len(fit) < len(own):
        notes.append(
            f"{len(own) - len(fit)} of {len(own)} rows are left out: "
            "their configs have other fields"
        )
    if device is not None:
        fit = [row for row in fit if row.config["device"] == device]
    configs = {_trial(point.config): point.config for point in reversed(grid)}
    places = {trial: i for i, trial in enumerate(reversed(configs))}

    trials: dict[tuple[str, int], dict[str, Result]] = {}
    for row in fit:
        again = trials.setdefault((_trial(row.config), row.seed), {})
        again.pop(row.run_id, None)  # the latest is the last
        again[row.run_id] = row
    chosen = {
        key: max(
            enumerate(found.values()), key=lambda one: (*_asked(study, one[1], configs), one[0])
        )[1]
        for key, found in trials.items()
    }
    if repeated := sum(len(found) - 1 for found in trials.values()):
        notes.append(f"{repeated} rows are left out: drawn trials on another device or other files")
    if odd := sum(trial not in places for trial, _ in chosen):
        notes.append(
            f"{odd} of {len(chosen)} rows are drawn that the preset does not ask for now: of an "
            "older or another grid, or of parts that are not registered here"
        )
    old = sum(not _asked(study, row, configs)[0] for row in chosen.values())
    if old:
        notes.append(
            f"{old} of {len(chosen)} rows are drawn that a run would measure again: made with "
            "older code or from other files"
        )
    devices = Counter(str(row.config.get("device")) for row in chosen.values())
    if len(devices) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(devices.items()))
        notes.append(f"rows of several devices are drawn: {counts}")
    last = len(places)
    order = sorted(chosen, key=lambda one: (one[0] not in places, one[1], places.get(one[0], last)))
    return [chosen[one] for one in order], notes


def _asked(study: Study, row: Result, configs: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the row's trial would be the same one now, and whether it is on the grid's device.

    Of a trial that is not in the grid, only what the row says of itself is known.
    """
    config = configs.get(_trial(row.config))
    read = row.metrics.get("inputs", "") if config is None else study.inputs(config)
    device = getattr(config, "device", None)
    return (
        row.run_id == study.identity(row.config, row.seed, read)
        and not outdated(row.config, row.environment),
        row.config.get("device") == device,
    )


def _trial(config: Any) -> str:
    """What is asked of a trial, wherever it computes."""
    values = config if isinstance(config, Mapping) else asdict(config)
    return json.dumps({key: v for key, v in values.items() if key != "device"}, sort_keys=True)
