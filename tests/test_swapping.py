"""Swapping by name: every recovery × projection × chunker trains; what cannot says why."""

import itertools
import subprocess
import sys

import pytest
import torch

import sgc
from sgc.registry import resolve
from tests.conftest import makeable
from tests.helpers import normal
from tests.test_registry import ROOT

COMBINATIONS = [
    pytest.param(r, p, c, id=f"{r}-{p}-{c}")
    for r, p, c in itertools.product(
        sgc.available("recovery"), sgc.available("projection"), sgc.available("chunker")
    )
]


@pytest.mark.parametrize(("recovery", "projection", "chunker"), COMBINATIONS)
def test_every_combination_trains(recovery, projection, chunker, device):
    if recovery not in makeable("recovery"):
        pytest.skip(f"{recovery} cannot be made here")
    devices = resolve("recovery", recovery).devices
    if devices and device.type not in devices:
        pytest.skip(f"{recovery} runs on {', '.join(devices)}")
    square = getattr(resolve("projection", projection), "square", False)
    compressor = sgc.create(
        "compressor",
        "mesgc",
        sparsity=16,
        chunks=4,
        kappa=24 if square else 10,  # k = d for operators that exist only so
        recovery=recovery,
        projection=projection,
        chunker=chunker,
    )
    target = torch.zeros(24, 16, device=device)
    target.view(-1)[::64] = torch.tensor([1.0, -1.0, 0.8, -0.6, 1.2, 0.7], device=device)
    inputs = normal(64, 16 + 8, seed=1).to(device)
    w = torch.nn.Parameter(torch.zeros(24, 16, device=device))
    optimizer = sgc.CompressedAdamW([w], lr=3e-2, compressor=compressor)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (inputs @ (w - target)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_incompatible_pairs_say_why():
    compressor = sgc.create("compressor", "mesgc", sparsity=8, chunks=2, projection="identity")
    w = torch.nn.Parameter(torch.ones(24, 16))
    with pytest.raises(ValueError, match="'identity' exists only for .* kappa=48"):
        sgc.CompressedAdamW([w], compressor=compressor)


CHILD = """
import sys, torch, sgc
from tests.helpers import COMPRESSORS, small, weights_like, steps
folder, phase = sys.argv[1:]
for name in COMPRESSORS:
    for dtype in (torch.float32, torch.bfloat16):
        weights = weights_like((24, 16), (24, 16), dtype=dtype)
        optimizer = sgc.CompressedAdamW(weights, lr=1e-2, compressor=small(name))
        path = f"{folder}/{name}-{dtype}.pt"
        if phase == "straight":
            steps(optimizer, weights, 12)
            torch.save([w.detach() for w in weights], path + ".straight")
        elif phase == "first":
            steps(optimizer, weights, 6)
            torch.save([[w.detach() for w in weights], optimizer.state_dict()], path)
        else:
            values, state = torch.load(path, weights_only=True)
            with torch.no_grad():
                [w.copy_(v) for w, v in zip(weights, values)]
            optimizer.load_state_dict(state)
            steps(optimizer, weights, 6, start=6)
            straight = torch.load(path + ".straight", weights_only=True)
            assert all(map(torch.equal, weights, straight)), (name, dtype)
            print(name, dtype)
"""


def test_resume_in_a_new_process_is_bit_identical(tmp_path):
    for phase in ("straight", "first", "second"):
        out = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path), phase],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    assert len(out.splitlines()) == 2 * len(makeable("compressor"))
