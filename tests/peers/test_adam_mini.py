"""Adam-mini against adam-mini 1.1.1, `Adam_mini`, which chooses blocks by the parameter's name."""

import pytest
import torch

import sgc
from tests.helpers import normal
from tests.peers.common import LR, STEPS, gradients, package

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

DIM, HEADS = 16, 4

#: Name, shape, and ours: rows of a block (a head has 16/4 rows), None for plain AdamW.
PARAMETERS = [
    ("layers.0.mlp.weight", (24, DIM), 1),
    ("layers.0.self_attn.v_proj.weight", (DIM, DIM), 1),
    ("layers.0.self_attn.q_proj.weight", (DIM, DIM), DIM // HEADS),
    ("layers.0.self_attn.k_proj.weight", (DIM // 2, DIM), DIM // HEADS),  # two key heads
    ("layers.0.mlp.bias", (24,), None),
    ("layers.0.norm.weight", (DIM,), 1),
]


@pytest.mark.parametrize("eps", [1e-12, 1e-2])
@pytest.mark.parametrize(("name", "shape", "block_rows"), PARAMETERS)
def test_each_kind_of_parameter(name, shape, block_rows, eps, monkeypatch):
    """Also with decay and a large ε, which both add to √V̂, to 1e-12."""
    Adam_mini = package("adam_mini", monkeypatch).Adam_mini
    start = normal(*shape).double()
    theirs, ours = (torch.nn.Parameter(start.clone()) for _ in range(2))
    no_decay = "bias" in name or "norm" in name
    options = {"lr": LR, "eps": eps, "weight_decay": 0.1}
    peer = Adam_mini(
        [(name, theirs)],
        **options,
        dim=DIM,
        n_heads=HEADS,
        n_kv_heads=HEADS // 2,
        verbose=False,
    )
    compressor = block_rows and sgc.create("compressor", "adam-mini", block_rows=block_rows)
    options["weight_decay"] = 0.0 if no_decay else 0.1
    own = sgc.CompressedAdamW([ours], **options, compressor=compressor)
    matrix = shape if len(shape) == 2 else (*shape, 1)
    for gradient in gradients(matrix):
        theirs.grad, ours.grad = (1e-4 * gradient.reshape(shape) for _ in range(2))
        peer.step()
        own.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert own.state[ours]["step"] == STEPS
