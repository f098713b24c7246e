"""A batch in parts: the same gradient, every text once, an identity of its own."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from sgc.finetune import FinetuneConfig, resolve_method, run
from sgc.finetune.batches import passes
from sgc.finetune.config import ConfigError
from sgc.finetune.prepare import prepare
from sgc.finetune.train import backward


@pytest.fixture
def config(tiny_model: Path, tiny_csv: Path) -> FinetuneConfig:
    method = resolve_method("adamw")
    where = {"model": str(tiny_model), "data": str(tiny_csv), "pooling": "model"}
    return FinetuneConfig(method=method.spec, lr=method.lr, steps=2, batch_size=13, **where)


@pytest.mark.parametrize("size", [1, 4, 12, 13, 50])
def test_the_gradient_is_that_of_the_whole_batch(size: int, config: FinetuneConfig) -> None:
    rows = list(range(13))
    found = {}
    for micro_batch in (None, size):
        cut = config.replace(micro_batch=micro_batch)
        ready = prepare(cut)
        ready.model.eval()  # no dropout, which is drawn for each part
        loss = backward(ready.model, ready.task.train, rows, cut, step=0)
        gradients = [p.grad for p in (ready.targets | ready.head).values()]
        found[micro_batch] = torch.cat([loss.view(1), *(g.flatten() for g in gradients)])
    torch.testing.assert_close(found[size], found[None], rtol=1e-4, atol=1e-6)


def test_parts_hold_every_row_once_in_the_order_of_length(config: FinetuneConfig) -> None:
    tokens = prepare(config).task.train
    rows = [5, 3, 11, 0, 7, 20, 9]
    parts = passes(tokens, rows, size=3)
    assert [len(part) for part in parts] == [3, 3, 1]
    flat = [row for part in parts for row in part]
    assert sorted(flat) == sorted(rows)
    assert [len(tokens.ids[row]) for row in flat] == sorted(len(tokens.ids[row]) for row in rows)
    assert passes(tokens, rows, size=None) == passes(tokens, rows, size=7) == [rows]


def test_a_run_has_an_identity_of_its_own_only_if_its_batches_are_cut(
    config: FinetuneConfig, tmp_path: Path
) -> None:
    assert config.replace(micro_batch=4).run_id != config.run_id
    assert "micro_batch" in config.to_dict()
    result = run(config.replace(micro_batch=4), folder=tmp_path, console=Console(quiet=True))
    assert result.metrics["status"] == "finished"
    with pytest.raises(ConfigError, match="micro_batch must be at least 1, got 0"):
        config.replace(micro_batch=0)
