"""What a race found, in one file that tables and pictures are made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from sgc.files import replacing
from sgc.finetune.readers import DataError
from sgc.results import environment

__all__ = [
    "ChooseBy",
    "Entry",
    "RaceReport",
    "budget_table",
    "bytes_text",
    "specs_table",
    "standard_error",
]

#: What decides on a learning rate, measured on a validation part.
ChooseBy = Literal["accuracy", "loss"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method of one size at its chosen rate.

    Attributes:
        label: what it is called in tables and pictures.
        family: whom it is drawn with.
        spec: what it is.
        budgets: those that this size was chosen for; none for a reference beyond all of them.
        lr: the chosen learning rate.
        tried: rate → what decided, on the validation part; None where a run diverged.
        accuracies: on the test part, one a seed; None where a run diverged.
        losses: mean cross-entropy there, in nats; empty in reports of before it was measured.
        test_examples: in the test part.
        states: numbers of optimizer state for the targets.
        states_full: those of AdamW.
        state_bytes, shared_bytes, extra_weight_bytes: what is held beside the model: state, what
            parameters share, and weights that the method adds (LoRA's adapters).
        revisions: of the code that the runs were made with.
        ms_per_step: median time of a step, with nothing else on the device.
    """

    label: str
    family: str = ""
    spec: str
    budgets: tuple[int, ...]
    lr: float
    tried: Mapping[float, float | None]
    accuracies: tuple[float | None, ...]
    losses: tuple[float | None, ...] = ()
    test_examples: int
    states: int
    states_full: int
    state_bytes: int
    shared_bytes: int
    extra_weight_bytes: int
    revisions: tuple[str, ...] = ()
    ms_per_step: float | None

    @property
    def bytes(self) -> int:
        """All that is held beside the model."""
        return self.state_bytes + self.shared_bytes + self.extra_weight_bytes

    @property
    def diverged(self) -> int:
        """Seeds without an accuracy."""
        return sum(a is None for a in self.accuracies)

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds; None if one diverged."""
        found = [a for a in self.accuracies if a is not None]
        return fmean(found) if found and not self.diverged else None

    @property
    def loss(self) -> float | None:
        """Mean test loss over the seeds, in nats; None if one has none."""
        found = [loss for loss in self.losses if loss is not None]
        return fmean(found) if found and len(found) == len(self.accuracies) else None

    @property
    def error(self) -> float:
        """Standard error over the seeds; of one seed, of the test part's size."""
        found = [a for a in self.accuracies if a is not None]
        if len(found) > 1:
            return standard_error(found)
        return float((found[0] * (1 - found[0]) / self.test_examples) ** 0.5) if found else 0.0


@dataclass(frozen=True, kw_only=True)
class RaceReport:
    """A race: the task, who entered, what came out, who could not and why."""

    config: Mapping[str, Any]
    budgets: tuple[int, ...]
    grid: tuple[float, ...]
    seeds: int
    tuning_seeds: int
    choose_by: ChooseBy = "accuracy"
    patience: int = 1
    entries: tuple[Entry, ...]
    refused: Mapping[str, Mapping[int, str]]
    environment: Mapping[str, Any] = field(default_factory=environment)

    def at(self, budget: int) -> list[Entry]:
        """Who ran in one budget, and the references, the best first."""
        inside = [e for e in self.entries if budget in e.budgets or not e.budgets]
        return sorted(inside, key=lambda e: (e.accuracy is None, -(e.accuracy or 0)))

    @property
    def title(self) -> str:
        """Model, data, batch and steps."""
        model, data = (Path(self.config[key]).name for key in ("model", "data"))
        return f"{model}, {data}: {self.config['steps']} steps of batch {self.config['batch_size']}"

    def save(self, path: Path) -> None:
        """Write it as JSON, all or nothing."""
        with replacing(path) as file:
            file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> "RaceReport":
        """Read what :meth:`save` wrote.

        Raises:
            DataError: it is no report.
        """
        try:
            return _report(json.loads(path.read_text("utf-8")))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{path} is no report of a race: {what} (results.jsonl holds its runs; the report "
                "is what --report named, or OUT/race.json)"
            ) from error


#: Fields that hold lists in JSON.
_LISTS = ("budgets", "accuracies", "losses", "revisions", "grid")


def _report(values: Mapping[str, Any]) -> RaceReport:
    """Of the object that JSON has; keys of later versions are ignored.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is none.
    """
    report = RaceReport(
        **{
            "environment": {},  # not known, and not that of this machine
            **_fields(RaceReport, values),
            "entries": tuple(_entry(e) for e in values["entries"]),
            "refused": {
                label: {int(budget): str(why) for budget, why in reasons.items()}
                for label, reasons in values["refused"].items()
            },
        }
    )
    for name in ("model", "data"):
        Path(report.config[name])
    for name in ("steps", "batch_size"):
        int(report.config[name])
    return report


def _entry(values: Mapping[str, Any]) -> Entry:
    tried = {float(rate): score for rate, score in values["tried"].items()}
    return Entry(**{**_fields(Entry, values), "tried": tried})


def _fields(kind: type[Entry | RaceReport], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the class knows of the values, lists made tuples."""
    known = {name: values[name] for name in kind.__dataclass_fields__ if name in values}
    return {name: tuple(v) if name in _LISTS else v for name, v in known.items()}


def _of_what(seeds: int) -> str:
    return f"over {seeds} seeds" if seeds > 1 else "of one seed, by the test part's size"


def budget_table(report: RaceReport, budget: int) -> Table:
    """The entries of one budget, the best first."""
    table = Table(
        title=f"{report.title}; at most {budget:,} bytes beside the model",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        caption=f"± standard error {_of_what(report.seeds)}, at the rate whose {report.choose_by} "
        "on a validation part was best. loss: on the test part, in nats. bytes: states, what "
        "parameters share, and added weights. ms: of a step.",
        caption_justify="left",
    )
    table.add_column("method", overflow="fold")
    for name in ("lr", "test accuracy", "loss", "states", "bytes", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for e in report.at(budget):
        score = f"diverged {e.diverged}/{len(e.accuracies)}"
        if e.accuracy is not None:
            score = f"{e.accuracy:.3f} ± {e.error:.3f}"
        speed = "–" if e.ms_per_step is None else f"{e.ms_per_step:.1f}"
        label = e.label if e.bytes <= budget else f"{e.label} (beyond the budget)"
        loss = "–" if e.loss is None else f"{e.loss:.3f}"
        table.add_row(label, f"{e.lr:g}", score, loss, f"{e.states:,}", f"{e.bytes:,}", speed)
    return table


def specs_table(report: RaceReport) -> Table:
    """What the labels of a race stand for: the full spec of each size."""
    table = Table(
        title=f"{report.title}; what the labels stand for",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("method", overflow="fold")
    table.add_column("budgets", overflow="fold")
    table.add_column("spec", overflow="fold")
    for e in report.entries:
        fits = ", ".join(bytes_text(budget) for budget in e.budgets) or "any"
        table.add_row(Text(e.label), fits, Text(e.spec))
    return table


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of two values or more."""
    return float(stdev(values) / len(values) ** 0.5)


def bytes_text(number: int, *, rounded: bool = False) -> str:
    """``40 kB``, in powers of 1000, to three digits; ``rounded``: to whole ones from 10.

    Example:
        >>> bytes_text(1_200_000), bytes_text(14_155_824, rounded=True)
        ('1.2 MB', '14 MB')
    """
    units = {10**9: "GB", 10**6: "MB", 10**3: "kB", 1: "B"}
    size = next((size for size in units if number >= size), 1)
    value = number / size
    if rounded:
        value = round(value) if value >= 10 else round(value, 1)
    return f"{float(f'{value:.3g}'):g} {units[size]}"
