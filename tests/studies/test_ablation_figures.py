"""Picture and tables of the ablation: read from rows, every panel says what it asks."""

import io
import math

import pytest
from rich.console import Console

from sgc.results import Result, ResultStore
from studies import ablation
from studies.figures.ablation import figure
from studies.figures.ablation_lines import AXES, lines_of
from studies.measures.captured import GRADIENTS


def row(axis, x, label, accuracy, *, majority=0.5):
    return Result(
        run_id=f"{axis}{x}{label}",
        kind="study-ablation",
        config={
            **{"axis": axis, "x": x, "label": label},
            **{"model": "minilm", "data": "rotten-tomatoes", "steps": 9, "choose_by": "loss"},
        },
        seed=0,
        metrics={
            "accuracy": accuracy,
            "test_loss": [None if value is None else 1 - value for value in accuracy],
            **{"majority": majority, "test_examples": 400},
            "tried": {} if label == "frozen" else {"0.1": {}},
        },
        environment={},
    )


def panel_of(made):
    (panel,) = [axes for axes in made.axes if axes.get_visible() and axes.axison]
    return panel


def across(panel):
    """Label → height of the horizontal lines."""
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    return {label: y[0] for label, y in lines.items() if len(y) == 2 and y[0] == y[1]}


def test_lines_and_figure_come_from_rows_alone():
    rows = [
        row("batch", x, label, [0.7, None if x == 32 else 0.71])
        for x in (16, 32)
        for label in ("adamw", "sign-sgd")
    ]
    assert lines_of("batch", rows)["adamw"] == {16: [0.7, 0.71], 32: [0.7, 0.5]}
    assert lines_of("batch", rows, "test_loss")["adamw"][32] == [pytest.approx(0.3), math.inf]
    made = figure(rows)
    panel = panel_of(made)
    assert panel.get_xlabel().startswith("batch size")
    assert panel.get_ylabel() == "test accuracy, %"
    names = [text.get_text() for text in made.legends[0].get_texts()]
    assert names == ["adamw", "sign-sgd", "majority class"]
    assert across(panel)["majority class"] == pytest.approx(50)
    assert [text.get_text() for text in panel.get_xticklabels()] == ["16\n9 steps", "32\n9 steps"]
    assert "2 of 8 runs diverged" in made.get_suptitle()
    assert "±2.3" in made.get_suptitle()  # √(.7·.3/400)
    assert "chosen by one run's validation loss" in made.get_suptitle()
    assert "chosen" not in figure([row("batch", 16, "frozen", [0.7])]).get_suptitle()
    console = Console(width=140, record=True, file=io.StringIO())
    for table in ablation.table(rows):
        console.print(table)
    text = console.export_text()
    assert "70.5±.5" in text
    assert ".295±.005" in text
    assert "diverged" in text


def test_rules_without_state_are_drawn_at_zero_and_adamw_beside_the_axis():
    rows = [
        row("states", 0, "sign-sgd", [0.8]),
        row("states", 0, "frozen", [0.58]),
        row("states", 294_912, "adamw", [0.9]),
        *(row("states", x, "mesgc", [0.6 + x / 1e5]) for x in (48, 768, 12_288)),
    ]
    panel = panel_of(figure(rows))
    labels = [text.get_text() for text in panel.get_xticklabels()]
    assert labels == ["0", "48", "768", "12,288"]
    places = panel.transData.transform([(x, 60) for x in (0, 48, 768, 12_288)])[:, 0]
    assert all(places[i + 1] - places[i] > 30 for i in range(3))  # pixels
    assert panel.get_xlim()[1] < 294_912
    flat = across(panel)
    assert flat["adamw (294,912 numbers)"] == pytest.approx(90)
    assert flat["frozen (head only)"] == pytest.approx(58)
    assert "majority class" not in flat
    assert panel.get_title("right") == "majority class: 50.0, below"
    assert panel.get_title("left") == "little state (Figure 2(b), Table 5)"


def test_one_place_is_drawn_as_a_method_a_row_with_the_error_of_the_test():
    found = {"adamw": [0.7, 0.72], "mesgc": [0.6, 0.6], "lora": [0.65, 0.65]}
    panel = panel_of(figure([row("examples", 100, name, found[name]) for name in found]))
    assert [text.get_text() for text in panel.get_yticklabels()] == ["mesgc", "lora", "adamw"]
    assert "100; thin bars" in panel.get_xlabel()
    assert panel.get_title("right") == "majority class: 50.0, to the left"
    ends = [c.get_segments()[0][:, 0] for c in panel.collections]
    widths = sorted(round(float(high - low) / 2, 2) for low, high in ends)
    assert widths[-3:] == [2.27, 2.38, 2.45]  # √(p(1−p)/400)
    assert widths[:3] == [0, 0, 1]  # of the seeds


def test_lines_across_stand_upright_where_accuracies_lie_along_x():
    rows = [row("states", 768, "mesgc", [0.6]), row("states", 0, "frozen", [0.58])]
    rows += [row("chunks", c, "mesgc", [0.61]) for c in (1, 4)]
    (states,) = [p for p in figure(rows).axes if "Figure 2(b)" in p.get_title("left")]
    (line,) = [one for one in states.lines if str(one.get_label()).startswith("frozen")]
    assert list(line.get_xdata()) == [pytest.approx(58)] * 2
    assert [text.get_text() for text in states.get_yticklabels()] == ["mesgc"]


def test_rows_of_other_tasks_and_settings_are_not_drawn_with_the_first():
    rows = [row("chunks", c, "mesgc", [0.6 + c / 100]) for c in (1, 4)]
    other, longer = row("chunks", 16, "mesgc", [0.9]), row("chunks", 4, "mesgc", [0.8])
    other.config["data"], longer.config["steps"] = "boolq", 99
    assert lines_of("chunks", [*rows, other, longer]) == lines_of("chunks", rows)
    assert "2 rows of other tasks" in figure([*rows, other, longer]).get_suptitle()


def test_lines_of_other_names_look_different():
    names = ("mesgc b", "mesgc c", "mesgc, contiguous")
    rows = [row("chunks", c, name, [0.6]) for c in (1, 4) for name in names]
    shown = {line.get_label(): line for line in panel_of(figure(rows)).containers}
    looks = {(shown[n][0].get_color(), shown[n][0].get_marker()) for n in names}
    assert len(looks) == 3


def test_what_is_far_below_leaves_the_panel_and_a_batch_says_its_steps():
    rows = [row("batch", x, "frozen", [0.4]) for x in (16, 32)]
    rows += [row("batch", x, "mesgc", [0.7]) for x in (16, 32)]
    for one in rows:
        one.config["steps"] = 320 // one.config["x"]
    panel = panel_of(figure(rows))
    assert panel.get_ylim()[0] > 60
    labels = [text.get_text() for text in panel.get_xticklabels()]
    assert labels == ["16\n20 steps", "32\n10 steps"]


def test_every_axis_has_a_question_and_its_place_in_the_paper():
    rows = [row(axis, x, "mesgc", [0.6]) for axis in AXES for x in (1, 4)]
    titles = [p.get_title("left") for p in figure(rows).axes if p.axison]
    assert titles[0] == "little data (Figure 2(a))"
    for title, axis in zip(titles, AXES.values(), strict=True):
        question, _, paper = title.partition(" (")
        assert question
        assert paper == f"{axis.paper})"


def test_what_of_the_frozen_line_is_out_of_sight_is_noted():
    rows = [row("batch", x, "frozen", [y]) for x, y in ((16, 0.69), (64, 0.637), (256, 0.558))]
    rows += [row("batch", x, "mesgc", [0.7]) for x in (16, 64, 256)]
    panel = panel_of(figure(rows))
    notes = ["frozen: 63.7, 55.8, below", "majority class: 50.0, below"]
    assert panel.get_title("right").splitlines() == notes
    for one in rows:
        one.metrics["majority"] = 0.63
    panel = panel_of(figure(rows))  # which shows 63 % now
    assert panel.get_ylim()[0] < 63
    assert panel.get_title("right") == "frozen: 55.8, below"
    assert panel_of(figure(rows[:2] + rows[3:5])).get_title("right") == ""


def least_names(panel):
    """Where the names of the least states are, in pixels."""
    found = [text for text in panel.texts if text.get_text().strip().startswith("least ")]
    return {text.get_text().strip(): text.get_window_extent() for text in found}


def curves_of(panel):
    """Lines of points, horizontal lines and bars, as paths in pixels."""
    for line in panel.lines:
        if line.get_linestyle() != "None":
            path = line.get_transform().transform_path(line.get_path())
            if len(set(path.vertices[:, 0])) > 1:
                yield path
    for bars in panel.collections:
        yield from map(bars.get_transform().transform_path, bars.get_paths())


def clear(panel):
    """Both names, on nothing that is drawn, and inside."""
    frame, names = panel.get_window_extent(), least_names(panel)
    first, second = names.values()
    paths = list(curves_of(panel))
    assert len(paths) > 5
    return not first.overlaps(second) and all(
        frame.x0 <= own.x0 < own.x1 <= frame.x1
        and frame.y0 <= own.y0
        and not any(path.intersects_bbox(own, filled=False) for path in paths)
        for own in (first, second)
    )


@pytest.mark.parametrize(
    ("galore", "lora"),
    [
        ((768, 3072), (1536, 12_288)),
        ((48, 768), (96, 12_288)),
        ((3072, 12_288), (768, 1536)),
        ((6144,), (12_288,)),
    ],
)
def test_names_of_the_least_states_lie_on_nothing(galore, lora):
    given = {"galore": galore, "lora": lora, "mesgc": (48, 768, 1536, 6144, 12_288)}
    rows = [
        *(row("states", x, name, [0.58, 0.66]) for name, places in given.items() for x in places),
        *(row("states", 0, name, [0.58, 0.6]) for name in ("sign-sgd", "frozen")),
        row("states", 294_912, "adamw", [0.64]),
    ]
    made = figure(rows)
    made.draw_without_rendering()
    panel = panel_of(made)
    assert set(least_names(panel)) == {"least galore", "least lora"}
    assert clear(panel)


@pytest.mark.parametrize("preset", ["", "-siqa"])
def test_names_of_the_least_states_are_clear_of_committed_points(preset):
    made = figure(ResultStore(GRADIENTS.with_name(f"ablation{preset}.jsonl")).load())
    made.draw_without_rendering()
    (panel,) = [p for p in made.axes if "Figure 2(b)" in p.get_title("left")]
    assert clear(panel)
