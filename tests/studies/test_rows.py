"""Which rows count as done and which are drawn: by what was asked, and of which files."""

import json

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from sgc.cli import app as sgc_app
from sgc.results import ResultStore
from studies import study as registry
from studies.cli import app, main
from studies.measures import captured
from studies.runner.grid import points
from studies.runner.rows import drawn
from studies.runner.show import WIDTH
from studies.study import Study, product
from tests.studies import toy

TOY = Study("toy", toy)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(registry, "STUDIES", {"toy": "tests.studies.toy"})
    monkeypatch.setattr("studies.cli.STUDIES", registry.STUDIES)


@pytest.fixture
def of_toys(tmp_path):
    """The command line on the toy study's ``smoke`` rows."""

    def call(command, *arguments):
        ask = [command, "toy", "--preset", "smoke", "--out", tmp_path, *arguments]
        if command == "run":
            ask += ["--jobs", 1]
        done = CliRunner().invoke(app, list(map(str, ask)))
        assert done.exit_code == 0, done.output
        return done.output

    return call


def rewritten(path, change):
    """Each line of the file changed, as older code may have written it."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for i, line in enumerate(lines):
        change(i, line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_other_files_make_other_trials(of_toys, tmp_path, monkeypatch):
    """Of a trial that reads them; identities of the others are what they always were."""
    plain = {TOY.run_id(p.config, p.seed) for p in points(TOY, "smoke") if p.config.value == 1}
    says = ["aaa"]
    reads = lambda config: says[0] if config.value == 2 else ""  # noqa: E731
    monkeypatch.setattr(toy, "inputs", reads, raising=False)
    path = tmp_path / "toy-smoke.jsonl"
    of_toys("run")
    says[0] = "bbb"
    assert "4 trials are already in" in of_toys("run")
    says[0] = "aaa"
    found = ResultStore(path).load()
    assert len(found) == 8 + 4
    assert {row.run_id for row in found if row.config["value"] == 1} == plain
    assert [row.metrics.get("inputs") for row in found if row.config["value"] == 1] == [None] * 4
    assert "8 trials are already in" in of_toys("run")

    chosen, notes = drawn(TOY, found, points(TOY, "smoke"))
    assert {row.metrics["inputs"] for row in chosen if row.config["value"] == 2} == {"aaa"}
    assert notes == ["4 rows are left out: drawn trials on another device or other files"]
    fewer = [point for point in points(TOY, "smoke") if point.seed == 0]
    chosen, _ = drawn(TOY, found, fewer)  # the other seed, too, is of the files there are now
    assert {row.metrics["inputs"] for row in chosen if row.config["value"] == 2} == {"aaa"}
    says[0] = "ccc"
    chosen, notes = drawn(TOY, found, points(TOY, "smoke"))
    assert {row.metrics["inputs"] for row in chosen if row.config["value"] == 2} == {"bbb"}
    assert "4 of 8 rows are drawn that a run would measure again" in notes[1]


def test_a_file_that_changes_during_a_trial_fails_it(tmp_path, monkeypatch):
    said = iter(range(1000))
    monkeypatch.setattr(toy, "inputs", lambda config: str(next(said)), raising=False)
    ask = ["run", "toy", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 1
    assert "8 of 8 trials failed" in done.output
    assert "replaced during the run" in done.output


def test_a_figure_has_all_rows(of_toys, tmp_path, monkeypatch):
    """More seeds, and values that the grid no longer has."""
    of_toys("run", "--seeds", 3)
    assert "(12 rows)" in of_toys("figure")
    fewer = registry.Preset(configs=lambda: product(toy.Config, value=[2], method=["mean", "sum"]))
    monkeypatch.setitem(toy.PRESETS, "smoke", fewer)
    said = of_toys("figure")
    assert "(12 rows)" in said
    assert "6 of 12 rows are drawn that the preset does not ask for now" in said
    rows = ResultStore(tmp_path / "toy-smoke.jsonl").load()
    order = [
        (row.config["value"], row.seed, row.config["method"])
        for row in drawn(TOY, rows, points(TOY, "smoke"))[0]
    ]
    assert order[:6] == [(2, seed, method) for seed in range(3) for method in ("mean", "sum")]
    assert {value for value, _, _ in order[6:]} == {1}
    assert "(12 rows)" in of_toys("run", "--seeds", 1)  # draws what the figure does


def test_a_trial_on_two_devices_is_drawn_once(of_toys, tmp_path):
    of_toys("run")
    of_toys("run", "--device", "meta", "--seeds", 1)
    rows = ResultStore(tmp_path / "toy-smoke.jsonl").load()
    assert len(rows) == 8 + 4
    said = of_toys("figure")
    assert "(8 rows)" in said
    assert "4 rows are left out: drawn trials on another device" in said
    assert "(4 rows)" in of_toys("figure", "--device", "meta")
    for device in ("cpu", "meta"):
        chosen, notes = drawn(TOY, rows, points(TOY, "smoke", device=device))
        assert {r.config["device"] for r in chosen if r.seed == 0} == {device}
        assert any("several devices" in note for note in notes) == (device == "meta")


def test_rows_of_older_code_are_told_apart(of_toys, tmp_path):
    of_toys("run")

    def change(i, line):
        if i < 3:
            line["run_id"] = f"{i:012}"  # of another scheme
        elif i == 3:
            line["config"]["forgotten"] = 1

    rewritten(tmp_path / "toy-smoke.jsonl", change)
    said = of_toys("figure")
    assert "(7 rows)" in said
    assert "3 of 7 rows are drawn that a run would measure again" in said
    assert "1 of 8 rows are left out: their configs have other fields" in said


def test_a_row_that_was_measured_again_is_drawn_anew(of_toys, tmp_path):
    of_toys("run")
    of_toys("run", "--fresh")
    rows = ResultStore(tmp_path / "toy-smoke.jsonl").load()
    assert len(rows) == 16
    chosen, notes = drawn(TOY, rows, points(TOY, "smoke"))
    assert chosen == rows[8:]
    assert not notes


def test_a_second_run_into_the_same_file_is_refused(of_toys, tmp_path):
    of_toys("run", "--seeds", 1)
    with FileLock(tmp_path / ".toy-smoke.jsonl.run.lock"):
        ask = ["run", "toy", "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
        done = CliRunner().invoke(app, ask)
        assert done.exit_code == 1
        assert f"another run is measuring rows of {tmp_path / 'toy-smoke.jsonl'}" in done.output
        of_toys("figure")  # which measures nothing
    assert len(ResultStore(tmp_path / "toy-smoke.jsonl").load()) == 4
    of_toys("run")
    assert len(ResultStore(tmp_path / "toy-smoke.jsonl").load()) == 8


def test_tables_are_wide_and_kept(of_toys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    wide = "x" * (WIDTH - 20)
    real = toy.table

    def table(rows):
        made = real(rows)
        made.add_row("0", wide)
        return [made, real(rows[:1])]

    monkeypatch.setattr(toy, "table", table)
    said = of_toys("run")
    assert wide in said
    kept = (tmp_path / "toy-smoke.txt").read_text("utf-8")
    assert wide in kept
    assert kept.count("answer") == 2
    assert "\x1b" not in kept
    assert f"table: {tmp_path / 'toy-smoke.txt'}" in said


@pytest.mark.parametrize(
    ("form", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_pictures_have_the_format_of_their_names(form, begins, of_toys, tmp_path):
    of_toys("run", "--format", form)
    picture = tmp_path / f"toy-smoke.{form}"
    assert picture.read_bytes().startswith(begins)
    picture.unlink()
    of_toys("figure", "--format", form)
    assert picture.read_bytes().startswith(begins)
    assert len(list(tmp_path.glob("toy-smoke.[ps]*"))) == 1


def test_of_several_studies_paths_are_printed_only(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.STUDIES, "other", "tests.studies.toy")
    ask = ["all", "--preset", "smoke", "--out", str(tmp_path)]
    for command in (["run", "--jobs", "1"], ["figure"]):
        done = CliRunner().invoke(app, [*command, *ask])
        assert done.exit_code == 0, done.output
        for name in ("toy", "other"):
            assert f"figure: {tmp_path / f'{name}-smoke.png'} (8 rows)" in done.output
            assert "answer" in (tmp_path / f"{name}-smoke.txt").read_text("utf-8")
        assert "answer" not in done.output


def test_a_wrong_command_is_answered_with_the_nearest(capsys):
    for given, answer in (("toi", "'toy'"), ("figur", "'figure'")):
        with pytest.raises(SystemExit) as left:
            main([given])
        assert left.value.code == 2
        assert f"did you mean {answer}" in capsys.readouterr().err


def test_help_has_the_name_it_was_asked_by():
    done = CliRunner().invoke(sgc_app, ["study", "run", "--help"])
    assert "Usage: sgc study run" in done.output


def test_points_that_are_left_out_are_announced(of_toys, tmp_path, monkeypatch):
    def configs():
        return product(toy.Config, value=[1, 2] if captured.available() else [1])

    monkeypatch.setitem(toy.PRESETS, "smoke", registry.Preset(configs=configs))
    monkeypatch.setattr(captured, "GRADIENTS", tmp_path / "none.npz")
    said = of_toys("run")
    assert f"toy: no captured gradients in {tmp_path / 'none.npz'}: points that need" in said
    assert len(ResultStore(tmp_path / "toy-smoke.jsonl").load()) == 1
    assert "no captured" not in of_toys("figure")
