"""What is drawn where in the pictures of races: panels, their axes, and what has no place there."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgc.finetune.lineup import FAMILIES
from sgc.finetune.race_report import Entry, RaceReport, bytes_text

__all__ = ["Panel", "Scale", "arrange", "by_label"]

_FEW = 10  # methods that share a panel, whatever their families
_NEXT_TO_NONE = 0.02  # of the smallest budget: what holds less stands at the left


@dataclass(frozen=True)
class Scale:
    """The axes of the races of one task.

    Attributes:
        left, right: bytes.
        least: bytes of the first that does not stand at the left for holding next to nothing.
        floor, top: test accuracies, per cent.
    """

    left: float
    right: float
    least: float
    floor: float
    top: float

    def x(self, entry: Entry) -> float:
        """Where it stands: at the left if it holds next to nothing."""
        return self.left if entry.bytes < self.least else float(entry.bytes)

    def shows(self, entry: Entry) -> bool:
        """Whether it has an accuracy, and that not far below the others."""
        return entry.accuracy is not None and 100 * entry.accuracy >= self.floor


@dataclass(frozen=True, eq=False)
class Panel:
    """A race, and the methods of a family, or of all (``family`` None)."""

    report: RaceReport
    family: str | None
    scale: Scale

    @property
    def own(self) -> list[Entry]:
        """Its methods' entries."""
        return [e for e in self.report.entries if e.budgets and self.family in (None, e.family)]

    @property
    def references(self) -> list[Entry]:
        """What was raced whatever it takes."""
        return [e for e in self.report.entries if not e.budgets]

    @property
    def notes(self) -> list[str]:
        """What has no place among the others, in lines for the lower edge."""
        below: list[str] = []
        diverged: list[str] = []
        for e in (*self.own, *self.references):
            several = len([o for o in self.own if o.label == e.label]) > 1
            label = f"{e.label} ({bytes_text(e.budgets[0])})" if several else e.label
            label = label.replace(" ", "\N{NO-BREAK SPACE}")
            if e.accuracy is None:
                diverged.append(label)
            elif not self.scale.shows(e):
                below.append(f"{label}\N{NO-BREAK SPACE}{100 * e.accuracy:.1f}")
        lines = [("↓ ", below), ("diverged: ", diverged)]
        return [
            line
            for begin, found in lines
            if found
            for line in textwrap.wrap(begin + ", ".join(found), 40)
        ]


def arrange(reports: Sequence[RaceReport]) -> list[list[Panel]]:
    """Rows of at most two panels."""
    labels = {e.label for r in reports for e in r.entries if e.budgets}
    found = {e.family for r in reports for e in r.entries if e.budgets}
    known = list(FAMILIES)
    families: list[str | None] = [
        *sorted(found, key=lambda f: known.index(f) if f in known else len(known))
    ]
    if len(labels) <= _FEW or len(families) < 2:
        families = [None]
    scales = [_scale([other for other in reports if _task(other) == _task(r)]) for r in reports]
    races = list(zip(reports, scales, strict=True))
    if len(races) == 1:
        alone = [Panel(races[0][0], family, races[0][1]) for family in families]
        return [alone[i : i + 2] for i in range(0, len(alone), 2)]
    return [
        [Panel(report, family, scale) for report, scale in races[i : i + 2]]
        for i in range(0, len(races), 2)
        for family in families
    ]


def _task(report: RaceReport) -> tuple[str, str]:
    """Races with the same one share their axes."""
    return str(report.config["model"]), str(report.config["data"])


def _scale(reports: Sequence[RaceReport]) -> Scale:
    """Bytes on a logarithmic scale that begins with those that hold next to none."""
    entries = [e for r in reports for e in r.entries if e.accuracy is not None]
    budgets = [budget for r in reports for budget in r.budgets]
    least = _NEXT_TO_NONE * min(budgets)
    held = [e.bytes for e in entries if e.budgets]
    right = float(max([*budgets, *held]))
    left = min([right / 3, *budgets, *(b for b in held if b >= least)])
    if min(held, default=left) < least:
        left = left / (10 * right / left) ** 0.2
    floor = min((floor for r in reports if (floor := _floor(r)) is not None), default=0.0)
    top = max((100 * (e.accuracy + e.error) for e in entries if e.accuracy), default=100.0)
    return Scale(left, right, least, floor, top + 0.04 * (top - floor))


def _floor(report: RaceReport) -> float | None:
    """Per cent below all but what lies far below (by 2 points) the rest; None if all diverged."""
    scores = sorted(100 * e.accuracy for e in report.entries if e.accuracy is not None)
    if not scores:
        return None
    lowest = scores[0]
    for low, above in itertools.pairwise(scores[: 1 + len(scores) // 4]):
        lowest = above if above - low > 2 else lowest
    return lowest - 0.5


def by_label(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Label → its sizes, the smallest first."""
    found: dict[str, list[Entry]] = {}
    for e in sorted(entries, key=lambda e: e.bytes):
        found.setdefault(e.label, []).append(e)
    return found
