"""What the comparisons share: packages that may be absent, gradients, and bases handed over."""

import importlib
import importlib.util
import sys
import types

import pytest
import torch

import sgc
from sgc.sources.base import Source
from tests.helpers import normal

STEPS, GAP, RANK, LR, EPS = 25, 10, 3, 1e-2, 1e-12
#: Tall, wide and square (projected on its right side by the packages and by us).
SHAPES = [(24, 16), (16, 24), (16, 16)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def package(name, monkeypatch):
    """A package; skips where it is absent. bitsandbytes is only its 8-bit classes' base."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed: see tests/peers/__init__.py")
    if "bitsandbytes" not in sys.modules and importlib.util.find_spec("bitsandbytes") is None:
        for module, content in [
            ("bitsandbytes", {}),
            ("bitsandbytes.functional", {}),
            ("bitsandbytes.optim", {}),
            ("bitsandbytes.optim.optimizer", {"Optimizer2State": torch.optim.Optimizer}),
        ]:
            stub = types.ModuleType(module)
            vars(stub).update(content)
            monkeypatch.setitem(sys.modules, module, stub)
    return importlib.import_module(name)


class TheirBases(Source):
    """Hands over the basis that a peer's projector has just found, whatever it looks like."""

    def __init__(self):
        self.basis = None

    def find(self, matrices, rank, *, start, states, turn):
        assert self.basis.shape == (min(matrices[0].shape), rank)
        return self.basis.expand(len(matrices), -1, -1)


def basis_of(projector):
    """A peer's basis with the rank last: for tall matrices it keeps the transpose."""
    basis = projector.ortho_matrix.detach()
    return basis if basis.shape[0] > basis.shape[1] else basis.T


def gradients(shape, *, steps=STEPS, growth=1.0):
    """Of the size 1e4, in float64, with a few strong directions; multiplied by growth each step."""
    return [
        1e4
        * growth**t
        * (
            normal(*shape, seed=t + 1) + 3 * normal(shape[0], 2) @ normal(2, shape[1], seed=9)
        ).double()
        for t in range(steps)
    ]


def differences(make_peer, compressor, gradients, *, source=None):
    """Per step, ‖ours − theirs‖∞ over how far theirs has moved.

    Args:
        make_peer: the peer's optimizer of a list of one weight.
        compressor: ours.
        gradients: of every step.
        source: gets the basis of the peer's projector before our step.
    """
    start = normal(*gradients[0].shape).double()
    theirs, ours = (torch.nn.Parameter(start.clone()) for _ in range(2))
    peer = make_peer([theirs])
    own = sgc.CompressedAdamW([ours], lr=LR, eps=EPS, compressor=compressor)
    found = []
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        peer.step()
        if source is not None:
            source.basis = basis_of(peer.state[theirs]["projector"]).double()
        own.step()
        moved = (theirs.detach() - start).abs().max()
        found.append(float((ours - theirs).detach().abs().max() / moved))
    return found
