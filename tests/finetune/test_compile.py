"""Compiled blocks: the same numbers, the same names, and any length of text."""

import pytest
import torch
from torch import nn

from sgc.finetune import FinetuneConfig, resolve_method
from sgc.finetune.batches import collate
from sgc.finetune.forward import logits
from sgc.finetune.model import ModelError, compile_blocks
from sgc.finetune.prepare import prepare


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo
@pytest.mark.parametrize("model", ["tiny_model", "tiny_llama"])
def test_compiled_blocks_give_the_same_gradients(model, tiny_csv, request) -> None:
    method = resolve_method("adamw")
    where = {"model": str(request.getfixturevalue(model)), "data": str(tiny_csv)}
    config = FinetuneConfig(method=method.spec, lr=method.lr, pooling="model", **where)
    plain, fused = prepare(config), prepare(config)
    compile_blocks(fused.model, backend="aot_eager")
    assert list(plain.model.state_dict()) == list(fused.model.state_dict())
    for size in (8, 5):
        batch = collate(plain.task.train, range(size))
        for ready in (plain, fused):
            ready.model.eval()
            ready.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(logits(ready.model, batch), batch.labels)
            loss.backward()
        for name, p in plain.tuned.items():
            torch.testing.assert_close(fused.tuned[name].grad, p.grad, rtol=1e-4, atol=1e-7)


def test_a_run_compiles_if_it_is_asked_to(tiny_model, tiny_csv, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr("sgc.finetune.prepare.compile_blocks", seen.append)
    method = resolve_method("adamw")
    config = FinetuneConfig(
        method=method.spec, lr=method.lr, model=str(tiny_model), data=str(tiny_csv)
    )
    prepare(config)
    assert seen == []
    ready = prepare(config.replace(compile=True))
    assert seen == [ready.model]
    assert config.replace(compile=True).run_id != config.run_id


def test_a_model_without_repeated_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="Sequential has no repeated blocks"):
        compile_blocks(nn.Sequential(nn.Identity()))
