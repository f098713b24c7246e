import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="needs pip install transformers")

from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.defaults import resolve_method
from sgc.finetune.prepare import prepare
from sgc.finetune.task import locate
from sgc.finetune.train import backward
from studies.capture import OUT as CAPTURED_INTO
from studies.capture import chosen_layers, largest_entries
from studies.cli import app
from studies.measures import captured as module
from studies.measures.captured import (
    COMMAND,
    GRADIENTS,
    VARIABLE,
    captured,
    digest,
    provenance,
    shape,
)
from tests.finetune.conftest import tiny_csv, tiny_model  # noqa: F401 - fixtures


def test_the_largest_entries_come_first_and_ties_in_the_order_of_their_places():
    G = torch.tensor([[1.0, -5.0, 2.0], [-2.0, 0.0, 5.0]])
    found = largest_entries(G, 4)
    assert found["index"].tolist() == [1, 5, 2, 3]
    assert found["values"].tolist() == [-5.0, 5.0, 2.0, -2.0]
    assert found["energy"] == 59.0
    assert found["shape"].tolist() == [2, 3]
    tiny = largest_entries(1e-25 * G, 2)  # squares that float32 does not have
    assert tiny["energy"] == pytest.approx(59e-50)


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ConfigError, match="--entries 7 of a matrix of 6 numbers: at most 6"):
        largest_entries(torch.ones(2, 3), 7)
    with pytest.raises(ConfigError, match="not finite"):
        largest_entries(torch.tensor([[1.0, float("nan")]]), 1)


def test_layers_are_chosen_by_the_number_in_a_name():
    names = [f"body.layer.{i}.{kind}.weight" for i in range(12) for kind in ("q", "v")]
    assert [n.split(".")[2] for n in chosen_layers(names)] == ["0", "0", "6", "6", "11", "11"]
    assert chosen_layers(["a.weight", "b.weight"]) == ["a.weight", "b.weight"]
    assert chosen_layers(["layer.0.q", "layer.1.q"]) == ["layer.0.q", "layer.1.q"]


def test_the_command_keeps_the_gradients_of_the_training(tiny_model, tiny_csv, tmp_path):  # noqa: F811
    path = tmp_path / "new" / "gradients.npz"
    asked = ["--model", tiny_model, "--data", tiny_csv, "--batch-size", 4, "--entries", 50]
    arguments = ["capture", "--out", path, "--step", 3, "--step", 1, *asked]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    found = captured(path)
    assert [one.step for one in found] == [1, 1, 3, 3]
    made = provenance(path)
    assert made["config"]["steps"] == 3
    assert made["environment"]["packages"]["torch"]
    assert list(path.parent.iterdir()) == [path]

    method = resolve_method("adamw")
    places = {"model": str(tiny_model), "data": str(tiny_csv)}
    config = locate(
        FinetuneConfig(
            method=method.spec, lr=method.lr, steps=3, batch_size=4, device="cpu", **places
        )
    )
    assert made["config"]["inputs"] == config.inputs
    ready = prepare(config)
    from sgc.finetune.batches import Order  # noqa: PLC0415

    ready.model.train()
    rows = Order(ready.task.train, batch_size=4, seed=0, group_by_length=False).rows(0)
    backward(ready.model, ready.task.train, rows, config, step=0)
    for one in found[:2]:
        G = ready.targets[one.name].grad.double().numpy().ravel()
        assert one.shape == (32, 32)
        assert one.numel == 1024
        assert one.index.dtype == np.int64
        assert one.index.tolist() == np.argsort(-np.abs(G), kind="stable")[:50].tolist()
        np.testing.assert_array_equal(one.values, G[one.index])
        assert one.energy == pytest.approx((G**2).sum(), rel=1e-12)


def test_a_step_that_fails_leaves_the_file_that_was_there(tiny_model, tiny_csv, tmp_path):  # noqa: F811
    path = tmp_path / "gradients.npz"
    path.write_bytes(b"before")
    arguments = ["capture", "--out", path, "--step", 1, "--entries", 2000]
    arguments += ["--model", tiny_model, "--data", tiny_csv]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 2
    assert "at most 1024" in done.output
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_missing_or_another_says_which_command_makes_it(tmp_path):
    with pytest.raises(ConfigError, match=f"first {COMMAND}"):
        captured(tmp_path / "none.npz")
    other = tmp_path / "other.npz"
    np.savez(other, index=np.zeros(3))
    with pytest.raises(ConfigError, match=f"lacks energy, metadata.*again {COMMAND}"):
        captured(other)
    other.write_text("text", "utf-8")
    with pytest.raises(ConfigError, match=f"no file of gradients.*again {COMMAND}"):
        captured(other)


def written(path, *, shapes=((2, 3),), value=5.0, created="then"):
    """A file of one entry a matrix."""
    n = len(shapes)
    np.savez(
        path,
        name=np.array([f"layer.{i}" for i in range(n)]),
        step=np.ones(n, dtype=np.int64),
        shape=np.array(shapes, dtype=np.int32),
        index=np.zeros((n, 1), dtype=np.int32),
        values=np.full((n, 1), value, dtype=np.float32),
        energy=np.full(n, value**2),
        metadata=np.array(json.dumps({"created_at": created})),
    )
    return path


def test_a_digest_is_of_the_gradients_alone(tmp_path):
    first = digest(written(tmp_path / "a.npz"))
    assert digest(written(tmp_path / "b.npz", created="now")) == first
    assert digest(written(tmp_path / "c.npz", value=6.0)) != first
    (tmp_path / "c.npz").replace(tmp_path / "a.npz")
    assert digest(tmp_path / "a.npz") != first  # of what is there now
    assert captured(tmp_path / "a.npz")[0].values.tolist() == [6.0]


def test_the_shape_is_the_commonest_of_the_file(tmp_path):
    path = written(tmp_path / "a.npz", shapes=[(2, 3), (4, 5), (4, 5)])
    assert shape(path) == (4, 5)
    assert shape() == (384, 384)
    with pytest.raises(ConfigError, match="no captured gradients"):
        shape(tmp_path / "none.npz")


def test_another_file_is_chosen_for_a_while(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    committed, path = digest(), written(tmp_path / "own.npz")
    with module.using(path):
        assert digest() == digest(path) != committed
        assert len(captured()) == 1
        assert module.available()
    assert digest() == committed
    with pytest.raises(ConfigError, match="no captured gradients"), module.using(tmp_path / "x"):
        pass
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.npz"))  # as a worker has it
    with pytest.warns(UserWarning, match="gone.npz: points that need them are left out"):
        assert not module.available()


def test_a_capture_leaves_the_committed_file_alone():
    assert CAPTURED_INTO.resolve() != GRADIENTS.resolve()
    assert not CAPTURED_INTO.is_relative_to("results")
    done = CliRunner().invoke(app, ["run", "kappa", "--gradients", "no-such.npz"])
    assert done.exit_code == 2
    assert "no captured gradients in no-such.npz" in done.output


def test_the_stored_gradients_are_whole():
    assert GRADIENTS.stat().st_size < 1_000_000
    found = captured()
    assert len({(one.name, one.step) for one in found}) == len(found) == 24
    assert len({one.step for one in found}) == 4
    for one in found:
        assert one.numel == one.shape[0] * one.shape[1]
        assert len(one.index) == len(set(one.index.tolist())) == len(one.values) == 4096
        assert 0 <= one.index.min() <= one.index.max() < one.numel
        assert one.values.dtype == np.float32
        magnitude = np.abs(one.values.astype(np.float64))
        assert (np.diff(magnitude) <= 0).all()
        kept = (magnitude**2).sum()
        rest = (one.numel - 4096) * magnitude[-1] ** 2
        assert kept < one.energy < kept + rest
    made = provenance()
    assert made["config"]["model"] == "minilm"
    assert made["environment"]["git"]
