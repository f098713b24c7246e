"""Pictures and tables of races, from reports alone."""

import dataclasses
import gzip
import itertools
import json
import re
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

from sgc.cli import app
from sgc.finetune.lineup import FAMILIES, METHODS
from sgc.finetune.pareto import plot_races
from sgc.finetune.pareto_panels import arrange
from sgc.finetune.pareto_style import Name, Style, name_ends, names_height, styles
from sgc.finetune.race_markdown import markdown_table
from sgc.finetune.race_report import Entry, RaceReport, budget_table, bytes_text
from sgc.finetune.readers import DataError

ROOT = Path(__file__).parents[2]
REPORTS = [ROOT / f"results/race-b{batch}-nvidia-h200.json" for batch in (16, 256)]
BOOLQ = [ROOT / f"results/race-boolq-b{batch}-nvidia-h200.json" for batch in (16, 256)]


def entry(label, held, accuracies, *, budgets=(100, 1000), **changes):
    return Entry(
        **{
            "label": label,
            "family": next((f for f, members in FAMILIES.items() if label in members), ""),
            "spec": f"{label}:size={held}",
            "budgets": budgets,
            "lr": 1.0,
            "tried": {},
            "accuracies": accuracies,
            "test_examples": 100,
            "states": 0,
            "states_full": 1,
            "state_bytes": held,
            "shared_bytes": 0,
            "extra_weight_bytes": 0,
            "ms_per_step": None,
            **changes,
        }
    )


def report(*entries, budgets=(100, 1000), data="here", refused=None):
    config = {"model": "tiny", "data": data, "steps": 2, "batch_size": 4}
    return RaceReport(
        config=config,
        budgets=budgets,
        grid=(1.0,),
        seeds=2,
        tuning_seeds=1,
        entries=entries,
        refused=refused or {},
        environment={},
    )


@pytest.fixture(scope="module")
def raced():
    return [RaceReport.load(path) for path in REPORTS]


SMALL = report(
    entry("sign-sgd", 1, (0.80, 0.81)),
    entry("galore", 90, (0.78, 0.79), budgets=(100,), losses=(0.5, 0.7)),
    entry("galore", 900, (0.82, 0.83), budgets=(1000,)),
    entry("lora", 800, (0.81, None), budgets=(1000,)),
    entry("adamw", 14_155_824, (0.84, 0.85), budgets=()),
    refused={"lora": {100: "too large"}, "fira": {100: "too large", 1000: "a run failed: nan"}},
)


def test_two_columns_and_every_size_in_one_panel(raced):
    for reports, rows in [(raced, 4), (raced[:1], 2)]:
        arranged = arrange(reports)
        assert [len(row) for row in arranged] == [2] * rows
        drawn = [(panel.report, e) for row in arranged for panel in row for e in panel.own]
        for report_ in reports:
            own = [e.spec for r, e in drawn if r is report_]
            assert sorted(own) == sorted(e.spec for e in report_.entries if e.budgets)
    assert [len(row) for row in arrange([*raced, raced[0]])] == [2] * 4 + [1] * 4
    for row in arrange(raced):
        assert [panel.report for panel in row] == raced
    ((few,),) = arrange([SMALL])  # families are told apart where there are many methods only
    assert few.family is None
    assert {e.label for e in few.own} == {"sign-sgd", "galore", "lora"}


def test_races_of_one_task_share_their_axes():
    other = report(entry("sign-sgd", 1, (0.5, 0.5)))
    scales = [panel.scale for row in arrange([SMALL, other]) for panel in row]
    assert scales[0] == scales[1]
    elsewhere = dataclasses.replace(other, config={**other.config, "data": "there"})
    scales = [panel.scale for row in arrange([SMALL, elsewhere]) for panel in row]
    assert scales[0].floor > 70
    assert 45 < scales[1].floor < 50


def test_no_two_methods_look_alike_and_each_looks_the_same_everywhere():
    found = styles(METHODS, in_family_panels=True)
    assert len({(s.colour, s.marker, s.variant) for s in found.values()}) == len(METHODS)
    assert found["galore"].colour == found["galore + ρ"].colour == found["galore, adafactor"].colour
    for family in FAMILIES.values():
        whole = [found[label] for label in family if not found[label].variant]
        assert len({s.colour for s in whole}) == len(whole)
    some = styles(["lora", "own:size=1", "mesgc"], in_family_panels=True)
    assert all(some[label] == found[label] for label in ("lora", "mesgc"))
    specs = [f"galore:rank={rank},inner=mesgc" for rank in range(40)]
    made = styles(specs, in_family_panels=False)
    assert len(set(made.values())) == 40
    assert len({s.colour for s in list(made.values())[:8]}) == 8


def test_what_is_far_below_or_diverged_is_written_and_the_rest_drawn():
    usual = [entry(f"m{i}", 50, (0.8 + i / 1000,) * 2) for i in range(8)]
    low = entry("two", 60, (0.5, 0.5), budgets=(100,))
    high = entry("two", 600, (0.81, 0.81), budgets=(1000,))
    lost = entry("lost", 60, (None, 0.8))
    ((panel,),) = arrange([report(*usual, low, high, lost)])
    assert not panel.scale.shows(low)
    assert panel.scale.shows(high)
    assert [line.replace("\xa0", " ") for line in panel.notes] == [
        "↓ two (100 B) 50.0",
        "diverged: lost",
    ]


def test_a_race_in_which_all_diverged_does_not_move_the_other_one():
    lost = report(entry("lost", 60, (None, None)))
    ((alone,),) = arrange([SMALL])
    ((first, second),) = arrange([SMALL, lost])
    assert first.scale.floor == second.scale.floor == alone.scale.floor


def test_what_holds_next_to_nothing_stands_left_of_the_budgets():
    ((panel,),) = arrange([SMALL])
    none, first = panel.own[0], panel.own[1]
    assert panel.scale.x(none) == panel.scale.left < 90 == panel.scale.x(first)


def test_names_are_near_their_lines_and_do_not_overlap():
    axes = Figure(figsize=(5, 4)).add_axes((0.1, 0.1, 0.5, 0.5))
    axes.set_ylim(0, 1)
    levels = [0.5, 0.52, 0.51, 0.02, 0.98, 0.53]
    names = [Name(f"m{y}", 1.0, y, Style("red", "o")) for y in levels]
    names.append(Name("mesgc:chunks=16,sparsity=48,kappa=8,chunker=permuted", 1.0, 0.52, None))
    name_ends(axes, names, size=(2.5, 2.0))
    drawn = sorted((text.get_position()[1], text.get_text()) for text in axes.texts if str(text))
    drawn = [(y * 2.0, text) for y, text in drawn if text]
    assert len(drawn) == len(names)
    order = [float(text[1:]) for _, text in drawn if text[1:].replace(".", "").isdigit()]
    assert order == sorted(levels)
    needed = {name.lines[0]: names_height([name]) for name in names}
    spans = [(y, needed[text.partition("\n")[0]] / 2) for y, text in drawn]
    for (y, half), (above, other) in itertools.pairwise(spans):
        assert above - y >= half + other - 1e-9
    assert spans[0][0] >= spans[0][1] - 1e-9
    assert spans[-1][0] <= 2.0 - spans[-1][1] + 1e-9
    assert spans[0][0] == pytest.approx(spans[0][1])  # 0.02 is the edge: as near as can be


def test_a_long_spec_is_broken_where_options_end():
    lines = Name("adjoint:chunks=16,measurements=12336", 0, 0, None).lines
    assert lines == ["adjoint:chunks=16,", "measurements=12336"]
    assert Name("a:" + ",".join(f"option{i}=1" for i in range(20)), 0, 0, None).lines[2][-1] == "…"
    assert Name("galore, adafactor", 0, 0, None).lines == ["galore, adafactor"]


AT_THE_EDGE = report(entry("one", 100, (0.5, 0.5), budgets=(100,)), budgets=(100,))
LOST = report(entry("lost", 60, (None, None)))
MANY = report(
    *(
        entry(f"m{i}:size={b}", b, (0.6, 0.61), budgets=(b,))
        for b in range(100, 2000, 90)
        for i in range(2)
    ),
    budgets=tuple(range(100, 2000, 90)),
)


@pytest.mark.parametrize(
    "reports", [[SMALL], [SMALL, LOST], [LOST], [AT_THE_EDGE], [MANY], [SMALL, MANY, LOST]]
)
def test_any_report_is_drawn_in_at_most_eleven_inches(reports, tmp_path):
    plot_races(reports, tmp_path / "races.png")
    _, width, _ = imread(tmp_path / "races.png").shape[:3]
    assert width <= 11 * 150


def test_the_line_up_is_drawn_with_every_name(raced, tmp_path):
    plot_races(raced, tmp_path / "races.png")
    picture = imread(tmp_path / "races.png")
    assert picture.shape[1] <= 11 * 150
    assert np.allclose(picture[:, -5:, :3], 1)  # nothing is cut off


@pytest.mark.parametrize(("reports", "rows"), [(REPORTS, 28), (BOOLQ, 19)])
def test_the_page_of_races_has_the_tables_that_the_command_prints(reports, rows):
    done = CliRunner().invoke(app, ["races", *map(str, reports), "--markdown"])
    assert done.exit_code == 0, done.output
    assert done.output.count("\n") == 2 + rows
    assert done.output in (ROOT / "docs/races.md").read_text("utf-8")


def test_the_readme_quotes_the_middle_budget_of_the_reports():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    first = 2 + next(i for i, line in enumerate(lines) if "| SmolLM2, 800 kB" in line)
    rows = list(takewhile(lambda line: line.startswith("|"), lines[first:]))
    assert len(rows) == 17
    for row in rows:
        label, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        for path, cell in zip((*REPORTS, *BOOLQ), cells, strict=True):
            race = RaceReport.load(path)
            (e,) = (
                e
                for e in race.entries
                if e.label == label.split(" (")[0]
                and race.budgets[1] in (e.budgets or race.budgets)
            )
            assert cell == " ± ".join(f"{x:.3f}".removeprefix("0") for x in (e.accuracy, e.error))


@pytest.mark.parametrize("path", [*REPORTS, *BOOLQ], ids=lambda path: path.stem)
def test_every_entry_of_a_report_lies_among_the_runs_beside_it(path):
    runs = gzip.decompress(
        path.with_name(path.name.replace("-nvidia", "-runs-nvidia") + "l.gz").read_bytes()
    )
    tested = {}
    for row in map(json.loads, runs.splitlines()):
        if row["kind"] == "finetune" and row["config"]["evaluate"] == "test":
            key = row["config"]["method"], row["config"]["lr"], row["seed"]
            tested.setdefault(key, row["metrics"]["test_accuracy"])
    for e in RaceReport.load(path).entries:
        assert list(e.accuracies) == [
            tested[e.spec, e.lr, seed] for seed in range(len(e.accuracies))
        ]


def test_a_cell_says_what_happened():
    assert markdown_table([SMALL, SMALL]).splitlines() == [
        "| method | 100 B, b4 | 1 kB, b4 | 100 B, b4 | 1 kB, b4 |",
        "|---|---|---|---|---|",
        "| sign-sgd | .805 ± .005 | ″ | .805 ± .005 | ″ |",
        "| galore | .785 ± .005 | .825 ± .005 | .785 ± .005 | .825 ± .005 |",
        "| lora | – | diverged 1/2 | – | diverged 1/2 |",
        "| fira | – | failed | – | failed |",
        "| adamw (14 MB) | .845 ± .005 | ″ | .845 ± .005 | ″ |",
    ]


def test_losses_in_place_of_accuracies():
    lines = markdown_table([SMALL], loss=True).splitlines()
    assert lines[2:4] == ["| sign-sgd | n/a | ″ |", "| galore | .600 ± .100 | n/a |"]
    with pytest.raises(DataError, match="no test loss"):
        markdown_table([AT_THE_EDGE], loss=True)
    done = CliRunner().invoke(app, ["races", str(REPORTS[0]), "--loss"])
    assert done.exit_code == 2
    assert "--loss goes with --markdown" in done.output


def test_the_spec_of_every_size_is_shown_if_asked_for(raced, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plain = CliRunner().invoke(app, ["races", str(REPORTS[0])])
    done = CliRunner().invoke(app, ["races", str(REPORTS[0]), "--specs"])
    assert done.exit_code == 0, done.output
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.output.splitlines()]
    for e in raced[0].entries:
        fits = ", ".join(map(bytes_text, e.budgets)) or "any"
        assert [e.label, fits, e.spec] in rows
    assert "galore:rank=21,residual=0.1" not in plain.output


def test_the_table_of_a_budget_fits_into_a_hundred_columns(raced):
    console = Console(width=300)
    for budget in raced[0].budgets:
        table = budget_table(raced[0], budget)
        table.title = table.caption = None
        lines = console.render_lines(table, pad=False)
        assert max(sum(part.cell_length for part in line) for line in lines) <= 100


def test_bytes_are_told_in_powers_of_a_thousand():
    told = {0: "0 B", 999: "999 B", 1000: "1 kB", 1_250_000: "1.25 MB", 8_000_000: "8 MB"}
    assert {number: bytes_text(number) for number in told} == told
    assert bytes_text(106_168_320, rounded=True) == "106 MB"
    assert bytes_text(1_234_000_000, rounded=True) == "1.2 GB"
