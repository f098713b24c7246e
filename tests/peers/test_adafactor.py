"""Adafactor against transformers' `Adafactor`.

Theirs takes the momentum of the scaled step, ours scales the momentum: the same for a learning rate
that does not change, so not together with ``scale_parameter``. Theirs factors the last two
dimensions of a convolution, ours all but the first: matrices and vectors only. Theirs scales the
weight decay too: there is none here.
"""

import pytest
import torch

import sgc
from tests.helpers import normal
from tests.peers.common import LR, STEPS, gradients

SHAPES = [(24, 16), (16, 24), (5, 300), (1, 7), (33,)]


def differences(compressor, shape, *, theirs, betas=(0.9, 0.999), scale=1.0):
    """Per step, ‖ours − theirs‖∞ over how far theirs has moved."""
    peer = pytest.importorskip("transformers.optimization").Adafactor
    start = normal(*shape).double()
    a, b = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"scale_parameter": False, "relative_step": False, **theirs}
    reference = peer([a], lr=LR, **options)
    own = sgc.CompressedAdamW([b], lr=LR, betas=betas, compressor=compressor)
    matrices = gradients((shape[0], shape[1] if len(shape) > 1 else 1))
    found = []
    for t, matrix in enumerate(matrices):
        # Steps of very different size, so that clipping comes and goes.
        gradient = matrix.view(shape) * scale * 3 ** (t % 4)
        a.grad, b.grad = gradient.clone(), gradient.clone()
        reference.step()
        own.step()
        moved = (a.detach() - start).abs().max()
        found.append(float((a - b).detach().abs().max() / moved))
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale_parameter", [False, True])
def test_without_momentum(shape, scale_parameter):
    ours = sgc.create("compressor", "adafactor", scale_parameter=scale_parameter)
    theirs = {"scale_parameter": scale_parameter}
    assert max(differences(ours, shape, theirs=theirs)) < 1e-12


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("beta1", [0.5, 0.9])
def test_with_momentum(shape, beta1):
    ours = sgc.create("compressor", "adafactor", inner="sgd-momentum")
    found = differences(ours, shape, theirs={"beta1": beta1}, betas=(beta1, 0.999))
    assert max(found) < 1e-12


def test_other_options():
    """Where ε₁ shows (gradients of its root's size), with another clip and decay."""
    options = {"clip": 0.3, "decay_rate": -0.5, "eps1": 1e-6, "eps2": 2.0}
    ours = sgc.create("compressor", "adafactor", scale_parameter=True, **options)
    theirs = {
        "eps": (1e-6, 2.0),
        "clip_threshold": 0.3,
        "decay_rate": -0.5,
        "scale_parameter": True,
    }
    assert max(differences(ours, (24, 16), theirs=theirs, scale=1e-7)) < 1e-12
