"""Races as one table in Markdown, for a README."""

from collections.abc import Sequence

from sgc.finetune.race_report import Entry, RaceReport, bytes_text, standard_error
from sgc.finetune.readers import DataError

__all__ = ["markdown_table"]


def markdown_table(reports: Sequence[RaceReport], *, loss: bool = False) -> str:
    """One table in Markdown: a row a method, a column a race (its batch size) and budget.

    A cell is the mean ± standard error over the seeds of the test accuracy (or loss, in nats); –
    where the method does not fit, ″ where it is what the cell on the left is already, n/a where a
    report of before losses were measured has none.

    Raises:
        DataError: losses are asked for and no report has any.
    """
    if loss and all(e.loss is None for r in reports for e in r.entries):
        raise DataError(
            "the runs of these reports have no test loss, which was not measured when they were "
            "made: race again in a new folder, or leave --loss out"
        )
    heads = [
        bytes_text(budget) + f", b{report.config['batch_size']}" * (len(reports) > 1)
        for report in reports
        for budget in report.budgets
    ]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    names = [label for r in reports for label in (*(e.label for e in r.entries), *r.refused)]
    beyond = {e.label: e for r in reports for e in r.entries if not e.budgets}
    for label in dict.fromkeys(sorted(names, key=lambda name: name in beyond)):
        held = f" ({bytes_text(beyond[label].bytes, rounded=True)})" if label in beyond else ""
        cells = [cell for report in reports for cell in _cells(report, label, loss=loss)]
        lines.append(f"| {label}{held} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(report: RaceReport, label: str, *, loss: bool) -> list[str]:
    """What a method has to show in each budget."""
    cells, shown = [], None
    for budget in report.budgets:
        own = (e for e in report.at(budget) if e.label == label)
        found = next(own, None)
        if found is None:
            why = report.refused.get(label, {}).get(budget, "")
            cells.append("failed" if "a run failed" in why else "–" if why else "")
        else:
            cells.append("″" if found is shown else _cell(found, loss=loss))
        shown = found
    return cells


def _cell(entry: Entry, *, loss: bool) -> str:
    if entry.diverged:
        return f"diverged {entry.diverged}/{len(entry.accuracies)}"
    if not loss:
        return f"{_points(entry.accuracy or 0.0)} ± {_points(entry.error)}"
    if entry.loss is None:
        return "n/a"
    found = [each for each in entry.losses if each is not None]
    spread = f" ± {_points(standard_error(found))}" if len(found) > 1 else ""
    return _points(entry.loss) + spread


def _points(number: float) -> str:
    """``.812``: three decimals, without a nought before them."""
    return f"{number:.3f}".removeprefix("0")
