"""What the study counts is what tensors take, and Table 1 is read as it is printed."""

import io
import json
import warnings

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import sgc
from sgc.budget import Prediction
from sgc.finetune.config import ConfigError
from sgc.results import Result, ResultStore
from studies import memory as study
from studies.cli import app
from studies.figures.memory import break_even, figure, table, total
from studies.measures.captured import GRADIENTS
from studies.memory import Config, specs, trial
from studies.runner.grid import points
from studies.study import find


def measured(spec, rows=64, columns=64, count=2, **options):
    config = Config(spec=spec, rows=rows, columns=columns, count=count, **options)
    return config, trial(config, torch.Generator().manual_seed(1))


def kept(config, metrics):
    return Result(
        run_id="x", kind="study-memory", config=config, seed=0, metrics=metrics, environment={}
    )


def row(spec, *, count=2, state=100, shared=0, table_1=None, **metrics):
    config = {"spec": spec, "rows": 64, "columns": 64, "count": count, "adapter_rank": 0}
    found = {
        **dict.fromkeys(("moments", "bases", "counters", "projection", "solver"), 0),
        **{"state": state, "shared": shared, "predicted_state": state, "predicted_shared": shared},
        **{"scratch": 50, "first_step": 60, "gradient": 16384, "moment_numbers": 20},
        **{"table_1": table_1, **metrics},
    }
    return kept({**config, "device": "cpu"}, found)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    ask = ["run", "memory", "--preset", "smoke", "--jobs", "1", "--out", str(folder)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    return folder, done.output, ResultStore(folder / "memory-smoke.jsonl").load()


def test_the_command_finds_all_predictions_true(smoke):
    folder, said, rows = smoke
    assert len(rows) == len(points(find("memory"), "smoke"))
    assert (folder / "memory-smoke.png").read_bytes().startswith(b"\x89PNG")
    assert f"predicted = counted for {len(rows)} of {len(rows)} methods" in said
    for one in rows:
        found = one.metrics
        json.dumps(found, allow_nan=False)
        assert found["state"] == found["predicted_state"], one.config
        assert found["shared"] == found["predicted_shared"], one.config
        assert found["state"] == sum(found[k] for k in ("moments", "bases", "counters")) or (
            found["shared"] > found["projection"] + found["solver"]  # a shared random basis
        )
        parts = ("moments", "bases", "counters", "projection", "solver")
        assert sum(found[part] for part in parts) == total(one)


def test_every_compressor_solver_and_projection_is_asked(monkeypatch):
    named = [spec for spec, _ in specs(64, 64)]
    assert set(sgc.available("compressor")) <= set(named)
    assert len(set(specs(64, 64))) == len(named)
    sgc.register("compressor", "mine", lambda: sgc.create("compressor", "sgd"))
    try:
        assert "mine" in [spec for spec, _ in specs(64, 64)]
        assert "mine" in [c.spec for c in study.PRESETS["smoke"].configs()]
    finally:
        sgc.registry.unregister("compressor", "mine")


def test_what_is_too_large_for_a_bench_is_left_out():
    gram, dense = "recovery.precompute_gram=true", "sgc:projection=gaussian"
    small, large = (" ".join(s for s, _ in specs(n, 2048)) for n in (64, 8192))
    assert dense in small
    assert dense not in large  # 512×16.8M: 34 GB
    middle = " ".join(s for s, _ in specs(1024, 2048))
    assert gram in middle  # d_c = 8192: 268 MB, which the solver does not take by itself
    assert gram not in large  # d_c = 65536: 17 GB


@pytest.mark.parametrize(
    ("rows", "columns", "variants"),
    [(64, 64, ["false"]), (1024, 1024, ["false"]), (1024, 2048, ["true"]), (4096, 4096, [])],
)
def test_what_the_solver_chooses_by_itself_is_not_asked_twice(rows, columns, variants):
    """The Gram matrix of chunks: 1 kB, 64 MiB, 256 MiB, 17 GB; up to 64 MiB it is kept."""
    plain = "mesgc:recovery=omp-inverse-cholesky"
    asked = [spec for spec, _ in specs(rows, columns) if "cholesky" in spec]
    options = [f"{plain},recovery.precompute_gram={variant}" for variant in variants]
    assert asked == [plain, *options]


def test_table_1_is_what_the_paper_prints():
    side, d = 64, 64 * 64
    by_hand = {
        "none": 2 * d,
        "galore:rank=3": 2 * 3 * side + 3 * side,
        "mesgc:sparsity=48,chunks=16,kappa=8": 2 * 8 * 48,
        "sgc:sparsity=16,kappa=7": 2 * 7 * 16,
        "cesgc:rank=8,sparsity=16,chunks=16,kappa=4": 2 * 4 * 16 + 8 * side,
    }
    for spec, numbers in by_hand.items():
        config, found = measured(spec)
        assert found["table_1"] == config.count * numbers, spec
        assert found["moments"] + found["bases"] == 4 * config.count * numbers, spec
    _, lora = measured("none", adapter_rank=2)
    assert lora["table_1"] == 2 * 4 * 2 * side  # 4r√d each
    assert lora["moments"] == 4 * lora["table_1"]
    assert measured("adafactor")[1]["table_1"] is None


def test_bytes_beyond_table_1_are_a_its_copy_and_the_gram_matrix():
    chunk, k = 64 * 64 // 16, 24
    spec = "mesgc:sparsity=48,chunks=16,kappa=8"
    _, plain = measured(f"{spec},recovery=omp")
    assert plain["projection"] == 4 * k * chunk
    assert plain["solver"] == 4 * (k * chunk + chunk)  # unit columns, and their norms
    assert plain["counters"] == 2 * 4
    cholesky = f"{spec},recovery=omp-inverse-cholesky,recovery.precompute_gram"
    _, gram = measured(f"{cholesky}=true")
    _, none = measured(f"{cholesky}=false")
    assert gram["solver"] - none["solver"] == 4 * chunk**2
    assert gram["moments"] == none["moments"] == plain["moments"] == 2 * 4 * 2 * 8 * 48
    _, twice = measured(f"{spec},recovery=omp", count=4)
    assert twice["shared"] == plain["shared"]
    assert twice["state"] == 2 * plain["state"]


def test_counts_are_those_of_the_live_tensors(monkeypatch):
    """Counted again by hand from the optimizer that the trial stepped."""
    made = []
    original = sgc.CompressedAdamW

    def remembered(*arguments, **options):
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(sgc, "CompressedAdamW", remembered)
    for spec in ("galore:rank=3", "explicit-sparse", "mesgc:sparsity=48,chunks=16"):
        _, found = measured(spec)
        tensors = [t for state in made[-1].state.values() for t in state.values()]
        assert found["state"] == sum(t.numel() * t.element_size() for t in tensors)
        assert found["first_step"] >= found["state"]
        assert found["scratch"] > 0


def test_a_wrong_prediction_is_shown(monkeypatch):
    monkeypatch.setattr(study, "predict", lambda *_, **__: Prediction(1, 0))
    config, found = measured("galore:rank=3")
    assert found["predicted_state"] == 1 != found["state"]
    assert "0 of 1" in str(table([kept(vars(config), found)])[0].title)


def test_a_trial_depends_on_config_and_seed_alone():
    spec = "mesgc:sparsity=48,chunks=16"
    first, other = measured(spec)[1], measured("adjoint")[1]
    assert measured(spec)[1] == first != other


def test_break_even_by_hand():
    galore = row("galore:rank=1", count=2, state=2 * 60)
    sketch = row("mesgc", count=2, state=2 * 20, shared=400)
    assert break_even(sketch, galore) == pytest.approx(10)  # 20·10 + 400 = 60·10
    assert break_even(row("a", count=2, state=2 * 60, shared=400), galore) is None
    assert break_even(row("a", count=2, state=2 * 61), galore) is None
    assert break_even(row("a", count=2, state=2 * 59), galore) == 0


def test_the_figure_and_table_read_rows_only(tmp_path):
    rows = [
        row("none", state=65536, table_1=16384.0),
        row("mesgc", state=400, shared=4000, table_1=100.0),
        row("galore:rank=1", state=1200, table_1=300.0),
    ]
    picture = figure(rows)
    (axes,) = picture.axes
    assert "%" in axes.get_xlabel()
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["none", "mesgc", "galore r=1"]
    marks = {mark.get_label(): mark.get_offsets().tolist() for mark in axes.collections}
    adamw = 2 * 4 * 2 * 64 * 64
    assert marks["Table 1 of the paper"][1] == pytest.approx([100 * 400 / adamw, 1])
    assert marks["+ shared: A, the solver's copy and Gram matrix"][1] == pytest.approx(
        [100 * 4400 / adamw, 1]
    )
    assert marks["+ peak scratch of a step"][1] == pytest.approx([100 * 4450 / adamw, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.savefig(tmp_path / "x.png")
    (made,) = table(rows)
    cells = dict(zip([str(c.header) for c in made.columns], made.columns, strict=True))
    assert list(cells["/Table 1"].cells) == ["1×", "11×", "1×"]
    assert list(cells["< GaLore"].cells) == ["never", "10", "–"]


def test_what_a_shape_was_not_measured_with_is_said_and_options_are_set_apart():
    large = row("mesgc", state=400)
    large.config.update(rows=1024, columns=1024)
    rows = [row("mesgc", state=400), row("sgc:projection=gaussian", state=400, shared=10**9), large]
    small, wide = figure(rows).axes
    assert not small.texts
    (note,) = wide.texts
    assert note.get_text().startswith("not run: A > 512 MiB")
    assert note.get_position()[1] == 1  # its line
    for axes in (small, wide):
        assert [0.5, 0.5] in [list(line.get_ydata()) for line in axes.lines]  # between the two


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"adapter_rank": -1}, "adapter_rank must be at least 0"),
        ({"spec": "galroe"}, "did you mean 'galore'"),
        ({"spec": "galore:rank=65"}, "rank=65 exceeds"),
        ({"spec": "mesgc:sparsity=48,chunks=5000"}, "5000"),
    ],
)
def test_what_cannot_be_is_refused(change, said):
    good = {"spec": "galore:rank=1", "rows": 64, "columns": 64}
    with pytest.raises(ConfigError, match=said):
        Config(**{**good, **change})


def test_registered_names_are_whole_in_the_figure_and_the_table():
    """Old rows have the same setting twice: both are drawn."""
    solver = "omp-inverse-cholesky"
    specs_ = [f"mesgc:recovery={solver}{gram}" for gram in ("", ",recovery.precompute_gram=true")]
    rows = [row(spec, state=400) for spec in specs_]
    (axes,) = figure(rows).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == [f"mesgc solver={solver}", f"mesgc solver={solver} gram=true"]
    (made,) = table(rows)
    assert made.columns[0]._cells == [
        f"mesgc solver={solver}",
        f"mesgc solver={solver}\n  gram=true",
    ]


def test_an_option_that_a_shape_was_not_measured_with_may_be_the_solvers_own_choice():
    spec = "mesgc:recovery=omp-inverse-cholesky,recovery.precompute_gram=false"
    large = row("mesgc", state=400)
    large.config.update(rows=4096, columns=4096)
    _, wide = figure([row("mesgc", state=400), row(spec, state=400), large]).axes
    (note,) = wide.texts
    assert note.get_text() == "not run: the solver's own choice, or Gram matrix > 256 MiB"


def test_the_committed_rows_fit_the_width_of_a_pipe():
    console = Console(width=140, file=io.StringIO())
    for one in table(ResultStore(GRADIENTS.with_name("memory.jsonl")).load()):
        console.print(one)
    text = console.file.getvalue()
    assert "solver=omp-inverse-cholesky" in text
    assert "…" not in text
