"""Pictures and tables of the study of κ: which A and law they name, and nothing covered."""

import io
import warnings
from dataclasses import asdict, replace

import pytest
from rich.console import Console

import sgc
from sgc.results import Result, ResultStore
from studies.figures.intervals import wilson
from studies.figures.kappa import figure
from studies.figures.kappa_curves import curves
from studies.figures.kappa_tables import table
from studies.kappa import PRESETS, Config
from studies.measures.captured import GRADIENTS
from studies.measures.thresholds import l1_kappa, omp_kappa
from studies.plugins import ensembles, solvers
from studies.study import find

STUDY = find("kappa")
SMALL = Config(d=64, k=24, sparsity=3, signals=40)


def made(config, *, exact, seed=0, seconds=0.002, **environment):
    counts = {"signals": config.signals, "exact": exact, "accurate": exact, "statuses": {}}
    metrics = {**counts, "energy": exact / config.signals, "seconds_per_signal": seconds}
    if config.law == "captured":
        metrics["by_gradient"] = {
            name: [value // 2, value - value // 2]
            for name, value in counts.items()
            if name != "statuses"
        }
    return Result(
        run_id=STUDY.run_id(config, seed),
        kind=STUDY.kind,
        config=asdict(config),
        seed=seed,
        metrics=metrics,
        environment=environment,
    )


def rows_of(law, rates, **fields):
    return [
        made(Config(d=64, k=4 * kappa, sparsity=4, law=law, signals=100, **fields), exact=good)
        for kappa, good in rates.items()
    ]


def test_the_figure_and_the_table_read_rows_only(tmp_path):
    rows = [
        *rows_of("gaussian", {3: 10, 5: 60, 7: 99, 9: 100}),
        *rows_of("signs", {3: 0, 5: 1, 7: 20, 9: 70}),
        *rows_of("signs", {3: 0, 5: 0, 7: 0, 9: 0}, solver="iht"),
        *rows_of("gaussian", {3: 0, 7: 60}, noise=0.1),
        *[made(replace(SMALL, k=k, sparsity=1), exact=40) for k in (3, 7)],
    ]
    again = made(Config(d=64, k=12, sparsity=4, signals=100), exact=30, seed=1)
    first, *_ = curves([*rows, again])
    assert (first.kappas, first.exact, first.signals) == (
        [3, 5, 7, 9],
        [40, 60, 99, 100],
        [200, 100, 100, 100],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = figure(rows)
        picture.savefig(tmp_path / "x.png")
        figure(rows[:4]).savefig(tmp_path / "x.png")
        figure(rows[-2:]).savefig(tmp_path / "x.png")  # one nonzero only
    axes = picture.axes
    assert [one.get_title().partition("\n")[0] for one in axes] == [
        "omp by law of the nonzeros",
        "by solver, ±1 nonzeros",
        "omp with noise",
    ]
    assert axes[0].get_ylabel() == "share of supports found exactly"
    assert all("κ = k/s" in one.get_xlabel() for one in axes)
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["Gaussian (n 100)", "±1 (n 100)"]
    assert all(one.get_legend() for one in axes)
    lines = {round(float(line.get_xdata()[0]), 3) for line in axes[0].lines}
    assert {round(omp_kappa(64, 4), 3), round(l1_kappa(64, 4), 3)} <= lines
    choice, clean, noisy, single = table(rows)
    cells = {c.header: list(c.cells) for c in clean.columns}
    ends = [wilson(good, 100) for good in (99, 20, 0)]
    spread = [
        f"{rate} ±{f'{(high - low) / 2:.3f}'[1:]}"
        for rate, (low, high) in zip((".990", ".200", ".000"), ends, strict=True)
    ]
    assert cells["κ 7"][:3] == spread
    assert cells["κ 5"][:3] == [".60", ".01", ".00"]
    assert cells["energy"][:3] == [".990", ".200", ".000"]
    assert first.energy == pytest.approx([0.2, 0.6, 0.99, 1])
    fit = curves(rows)[0].fit("exact").crossing(0.5)
    assert cells["κ of 50 %"][0] == f"{fit.at:.1f} ({fit.low:.1f}–{fit.high:.1f})"
    assert cells["κ of 95 %"][1:3] == ["> 9", "> 9"]
    assert next(c for c in single.columns if c.header == "κ of 50 %")._cells == ["< 3"]
    assert [one.row_count for one in (clean, noisy, single)] == [3, 1, 1]
    chosen = {c.header: list(c.cells) for c in choice.columns}
    assert chosen["solver"] == ["omp", "iht"]
    assert chosen["±1"] == spread[1:]
    assert chosen["Gaussian"] == [spread[0], ""]
    assert chosen["ms a signal"] == ["2.0", "2.0"]


def test_a_grid_of_ones_own_has_its_rates_and_the_papers_stands_for_one_that_is_too_fine():
    rows = rows_of("gaussian", {2: 10, 9: 70, 15: 99})
    cells = {c.header: list(c.cells) for c in table(rows)[0].columns}
    low, high = wilson(70, 100)
    assert [cells[f"κ {k}"][0][:4] for k in (2, 9, 15)] == [".100", ".700", ".990"]
    assert cells["κ 9"][0].endswith(f"±{(high - low) / 2:.3f}".replace("0.", "."))
    assert "energy" not in cells
    many = rows_of("gaussian", dict.fromkeys(range(3, 15), 50))
    heads = [c.header for c in table(many)[0].columns]
    assert [head for head in heads if head.startswith("κ ") and "of" not in head] == [
        *("κ 5", "κ 6", "κ 7", "κ 8")
    ]


def test_solvers_with_the_same_counts_share_a_line():
    rates = {3: 0, 7: 60, 9: 90}
    rows = [*rows_of("signs", rates), *rows_of("signs", rates, solver="omp-inverse-cholesky")]
    axes = figure(rows).axes[1]
    (label,) = [text.get_text() for text in axes.get_legend().get_texts()]
    assert label == "omp =\nomp-inverse-cholesky\n(n 100)"


def test_the_committed_rows_fit_the_width_of_a_pipe():
    path = GRADIENTS.with_name("kappa.jsonl")
    console = Console(width=140, file=io.StringIO())
    for one in table(ResultStore(path).load()):
        console.print(one)
    text = console.file.getvalue()
    assert "κ of 95 %" in text
    assert "…" not in text


def both_sizes(own="gaussian"):
    """d = 64 with a Gaussian A; d = 128 with an SRHT first, then with the ensemble given."""
    first = rows_of("gaussian", {3: 10, 7: 99})
    rest = [
        made(Config(d=128, k=4 * kappa, sparsity=4, ensemble=name, signals=100), exact=good)
        for name, counts in (("srht", {3: 20, 7: 80}), (own, {3: 30, 7: 70}))
        for kappa, good in counts.items()
    ]
    return [*first, *rest]


def heights(axes):
    """Points by their label in the legend."""
    found = {}
    for bars in axes.containers:
        found[bars.get_label().partition(" (")[0]] = [float(y) for y in bars[0].get_ydata()]
    return found


def test_one_ensemble_is_meant_wherever_none_is_named():
    picture = figure(both_sizes())
    assert "Gaussian A unless said otherwise" in picture.get_suptitle()
    for said in ("omp by law", "by solver"):
        panels = [axes for axes in picture.axes if axes.get_title().startswith(said)]
        assert "SRHT" not in "".join(axes.get_title() for axes in panels)
        assert [list(heights(axes).values()) for axes in panels] == [[[0.1, 0.99]], [[0.3, 0.7]]]
    (compared,) = [axes for axes in picture.axes if "by ensemble" in axes.get_title()]
    assert heights(compared) == {"SRHT": [0.2, 0.8], "Gaussian": [0.3, 0.7]}
    assert " A" not in compared.get_title()
    small, choice, large = table(both_sizes())
    assert str(small.title).endswith("without noise; Gaussian A")
    assert str(large.title).endswith("without noise; Gaussian A unless said otherwise")
    assert large.columns[0]._cells == ["omp, SRHT", "omp"]
    assert choice.columns[1]._cells == ["SRHT", "Gaussian"]


def test_a_size_without_that_ensemble_names_its_own():
    rows = both_sizes("rademacher")
    rows += [made(Config(d=128, k=28, sparsity=4, ensemble="srht", noise=0.1), exact=5)]
    titles = [axes.get_title() for axes in figure(rows).axes]
    said = [title.rpartition("\n")[2] for title in titles if "by ensemble" not in title and title]
    assert said == ["d = 64, s = 4", "d = 128, s = 4, SRHT A"] * 2 + ["d = 128, s = 4, SRHT A"]
    large, noisy = table(rows)[-2:]
    assert str(large.title).endswith("SRHT A unless said otherwise")
    assert str(noisy.title).endswith("; SRHT A")


def test_every_part_of_the_smoke_preset_is_in_the_figure(monkeypatch):
    """Ensembles are compared there on another law than solvers; so would one's own be."""
    monkeypatch.setattr("studies.kappa.available", lambda: True)  # captured signals
    sgc.register("projection", "mine", lambda k, d, **_: sgc.create("projection", "srht", k, d))
    try:
        assert "mine" in ensembles()
        configs = PRESETS["smoke"].configs()
    finally:
        sgc.registry.unregister("projection", "mine")
    rows = [made(config, exact=i % config.signals) for i, config in enumerate(configs)]
    panels = {axes.get_title().partition("\n")[0]: axes for axes in figure(rows).axes}
    assert list(panels) == [
        "omp by law of the nonzeros",
        "by solver, captured nonzeros",
        "omp by ensemble, Gaussian nonzeros",
        "omp with noise",
    ]
    shown = {title: " ".join(heights(axes)) for title, axes in panels.items()}
    assert "mine" in shown["omp by ensemble, Gaussian nonzeros"]
    assert all(name in shown["by solver, captured nonzeros"] for name in solvers())


def test_of_laws_with_as_many_ensembles_the_captured_one_is_drawn():
    rows = [
        row
        for law in ("gaussian", "captured", "signs")
        for name in ("gaussian", "srht")
        for row in rows_of(law, {3: 10, 7: 60}, ensemble=name)
    ]
    assert "omp by ensemble, captured nonzeros" in figure(rows).axes[2].get_title()
    more = rows_of("signs", {3: 1, 7: 6}, ensemble="rademacher")
    assert "omp by ensemble, ±1 nonzeros" in figure([*rows, *more]).axes[2].get_title()


@pytest.mark.parametrize("committed", [False, True])
def test_no_legend_lies_on_a_panel_or_on_its_label(committed):
    rows = both_sizes("rademacher")
    if committed:
        rows = ResultStore(GRADIENTS.with_name("kappa.jsonl")).load()
    picture = figure(rows)
    picture.draw_without_rendering()
    panels = [axes for axes in picture.axes if axes.axison]
    assert panels
    for axes in panels:
        legend = axes.get_legend().get_window_extent()
        for other in panels:
            assert not legend.overlaps(other.get_window_extent())
            assert not legend.overlaps(other.xaxis.label.get_window_extent())
            assert not legend.overlaps(other.title.get_window_extent())
        assert 0 <= legend.x0 < legend.x1 <= picture.bbox.width
        assert legend.y0 >= 0


def test_times_of_other_revisions_and_processors_are_left_out():
    def row(where, **fields):
        return made(Config(d=64, k=28, sparsity=4, signals=100, **fields), exact=50, **where)

    here = {"git": "aaa", "cpu": "x"}
    rows = [
        row({**here, "git": "bbb", "seconds": 0.001}, ensemble="srht"),  # first, no reference
        row({**here, "seconds": 0.003}),
        row({**here, "seconds": 0.004}, solver="niht"),
        row({**here, "cpu": "y"}, solver="iht"),
        row(here, ensemble="rademacher"),
        replace(row({"git": "bbb", "cpu": "x"}, ensemble="rademacher"), seed=1),
    ]
    choice, _ = table(rows)
    cells = {c.header: list(c.cells) for c in choice.columns}
    assert cells["solver"] == ["omp", "omp", "niht", "iht", "omp"]
    assert cells["ms a signal"] == ["–", "3.0", "4.0", "–", "–"]
    assert "–: timed at another git revision" in str(choice.caption)
    assert "than omp with the Gaussian A" in str(choice.caption)
    alone, _ = table(rows[1:3])
    assert "left out" not in str(alone.caption)
