"""FLoRA against flora-opt 0.0.3, `Flora`.

Its projections come from torch's generator and a seed for each parameter, drawn again at every
step. Ours get the same ones from a source that calls the package's own functions: all else is
ours, the seeds' successor at a resampling included.
"""

import importlib
import importlib.util
import math
import sys
import types

import pytest
import torch

import sgc
from sgc.sources.base import Source
from tests.helpers import normal
from tests.peers.common import LR, STEPS, every_shape, gradients

RANK, KAPPA, SEED = 3, 8, 5


@pytest.fixture
def peer(monkeypatch):
    """The package's module. It needs bitsandbytes only to quantise, and that is off here."""
    for needed in ("flora_opt", "accelerate"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"the package {needed} is not installed: see tests/peers/__init__.py")
    if "bitsandbytes" not in sys.modules and importlib.util.find_spec("bitsandbytes") is None:
        functional = types.ModuleType("bitsandbytes.functional")
        functional.quantize_blockwise = functional.dequantize_blockwise = None
        whole = types.ModuleType("bitsandbytes")
        whole.functional = functional
        monkeypatch.setitem(sys.modules, "bitsandbytes", whole)
        monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)
    return importlib.import_module("flora_opt.optimizers.torch.flora")


class TheirProjections(Source):
    """The package's Gaussian matrices: its n-th after n resamplings."""

    stored = False

    def __init__(self, peer, kappa):
        self._peer, self._kappa = peer, kappa
        self.drawn = set()

    def find(self, matrices, rank, *, start, states, turn):
        seed = SEED + 1  # of its first parameter
        for _ in range(turn // self._kappa):
            seed = self._peer.next_seed(seed)
        self.drawn.add(seed)
        left, right = self._peer.split_seed(seed)
        rows, columns = matrices[0].shape
        drawn = {"device": matrices[0].device, "dtype": matrices[0].dtype}
        if rows < columns:
            basis = self._peer.stable_randn((rank, rows), seed=left, **drawn).T
        else:
            basis = self._peer.stable_randn((columns, rank), seed=right, **drawn)
        return (basis / math.sqrt(rank)).expand(len(matrices), -1, -1)


def differences(peer, shape, *, beta1=0.9, kappa=KAPPA, **options):
    """Per step, ‖ours − theirs‖∞ over how far theirs has moved."""
    start = normal(*shape).double()
    a, b = (torch.nn.Parameter(start.clone()) for _ in range(2))
    scale = options.get("scale_parameter", False)
    reference = peer.Flora(
        [a], lr=LR, rank=RANK, kappa=kappa, beta1=beta1, scale_parameter=scale, seed=SEED
    )
    source = TheirProjections(peer, kappa)
    ours = sgc.create(
        "compressor", "flora", rank=RANK, refresh_every=kappa, source=source, **options
    )
    own = sgc.CompressedAdamW([b], lr=LR, betas=(beta1, 0.999), compressor=ours)
    found = []
    for t, gradient in enumerate(gradients(shape)):
        a.grad, b.grad = (gradient * 3 ** (t % 4) for _ in range(2))
        reference.step()
        own.step()
        moved = (a.detach() - start).abs().max()
        found.append(float((a - b).detach().abs().max() / moved))
    assert len(found) == STEPS
    assert len(source.drawn) == min(STEPS, 1 + STEPS // kappa)
    return found


@every_shape
@pytest.mark.parametrize("scale_parameter", [False, True])
def test_with_their_projections_over_three_resamplings(peer, shape, scale_parameter):
    assert max(differences(peer, shape, scale_parameter=scale_parameter)) < 1e-11


@every_shape
@pytest.mark.parametrize("kappa", [1, 100])
def test_resampled_at_every_step_or_never(peer, shape, kappa):
    assert max(differences(peer, shape, beta1=0.3, kappa=kappa)) < 1e-11
