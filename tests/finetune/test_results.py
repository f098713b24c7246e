"""The result store: nothing finished is lost, nothing broken spreads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sgc.finetune import FinetuneConfig
from sgc.results import Result, ResultStore, ResultStoreError


def make(run_id: str) -> Result:
    return Result(run_id=run_id, kind="test", config={"a": 1}, seed=0, metrics={"x": 0.5})


def test_what_is_appended_is_loaded(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "deep" / "results.jsonl")
    store.prepare()
    for name in "ab":
        store.append(make(name))
    assert [r.run_id for r in store.load()] == ["a", "b"]
    assert store.find("b") == store.load()[1]
    assert store.find("c") is None
    assert store.load()[0].environment["packages"]["torch"]


@pytest.mark.parametrize("name", ["compare", "equal-bytes"])
def test_settings_that_came_later_leave_old_runs_their_ids(name: str) -> None:
    path = Path(__file__).parents[2] / "results" / f"{name}-nvidia-h200.jsonl"
    old = ResultStore(path).load()
    assert old
    for result in old:
        config = FinetuneConfig.from_dict(result.config)
        assert config.run_id == result.run_id
        for change in ({"evaluate": "validation"}, {"precision": "autocast"}):
            assert config.replace(**change).run_id != result.run_id
            assert config.replace(**change).task_id != config.task_id
        assert config.replace(text_column="other").run_id != result.run_id


@pytest.mark.parametrize("name", ["config", "metrics", "environment"])
def test_a_line_of_wrong_types_is_named_and_skipped(name: str, tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results.jsonl")
    store.append(make("a"))
    line = json.loads(store.path.read_text())
    store.path.write_text(json.dumps({**line, name: None}) + "\n")
    with pytest.warns(
        UserWarning, match=rf"line 1 is not a whole result .*\({name} is no object\)"
    ):
        assert store.load() == []


def test_a_half_written_line_is_named_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "results.jsonl")
    store.append(make("a"))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + whole[: len(whole) // 2])
    store.append(make("b"))
    with pytest.warns(UserWarning, match="line 2 is not a whole result"):
        assert [r.run_id for r in store.load()] == ["a", "b"]


@pytest.mark.parametrize("line", [b"null\n", b"[]\n", b'{"run_id": 1}\n', b"\xff\xfe\n"])
def test_lines_that_are_no_results_are_skipped(tmp_path: Path, line: bytes) -> None:
    store = ResultStore(tmp_path / "results.jsonl")
    store.path.write_bytes(line)
    with pytest.warns(UserWarning, match="line 1"):
        assert store.load() == []


def test_a_folder_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultStoreError, match="cannot be written"):
        ResultStore(tmp_path / "file" / "results.jsonl").prepare()


def test_numbers_that_json_lacks_are_refused(tmp_path: Path) -> None:
    result = Result(run_id="a", kind="test", config={}, seed=0, metrics={"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        ResultStore(tmp_path / "results.jsonl").append(result)


WRITER = """
import sys
from pathlib import Path
from sgc.results import Result, ResultStore
for i in range(50):
    result = Result(run_id=f"{sys.argv[2]}{i}", kind="test", config={"x": "y" * 5000}, seed=i,
                    metrics={}, environment={})
    ResultStore(Path(sys.argv[1])).append(result)
"""


def test_two_processes_do_not_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(ResultStore(path).load()) == 100
