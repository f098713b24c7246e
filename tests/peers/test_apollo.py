"""APOLLO against apollo-torch 1.0.3, `APOLLOAdamW`, with its random projections handed over."""

import pytest

import sgc
from tests.peers.common import (
    EPS,
    GAP,
    LR,
    RANK,
    TheirBases,
    differences,
    every_shape,
    gradients,
    package,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def make_peer(monkeypatch):
    APOLLOAdamW = package("apollo_torch", monkeypatch).APOLLOAdamW

    def make(weights, *, rank=RANK, scale=4.0, per="channel"):
        group = {
            "params": weights,
            "rank": rank,
            "update_proj_gap": GAP,
            "scale": scale,
            "scale_type": per,
            "proj": "random",
            "proj_type": "std",
        }
        return APOLLOAdamW([group], lr=LR, eps=EPS)

    return make


def ours(source, **options):
    """The compressor `apollo`, with another source."""
    compressor = sgc.create("compressor", "apollo", refresh_every=GAP, **options)
    compressor.source = source
    return compressor


@every_shape
@pytest.mark.parametrize("growth", [1.0, 1.3])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_with_their_projections(make_peer, shape, growth, per):
    """√scale, either type of φ, limiter on, two refreshes: 3e-8 (measured 5.0e-9).

    A run without the limiter ends elsewhere, so it did bite. What is left is the 1e-8 that they add
    to the norm of the step before, at each of the limited steps; without it, 4e-13.
    """
    steps = gradients(shape, growth=growth)
    source = TheirBases()

    def peer(weights):
        return make_peer(weights, per=per)

    own = ours(source, rank=RANK, scale=4.0, per=per)
    assert max(differences(peer, own, steps, source=source)) < 3e-8
    free = ours(source, rank=RANK, scale=4.0, per=per, growth=0)
    assert differences(peer, free, steps, source=source)[-1] > 1e-3


@every_shape
def test_apollo_mini(make_peer, shape):
    """Rank 1, one φ for the tensor, scale 128: 3e-8 (measured 7.8e-9)."""
    source = TheirBases()
    found = differences(
        lambda w: make_peer(w, rank=1, scale=128.0, per="tensor"),
        ours(source, rank=1, scale=128.0, per="tensor"),
        gradients(shape),
        source=source,
    )
    assert max(found) < 3e-8
