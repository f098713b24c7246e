"""GaLore against galore-torch 1.0, `GaLoreAdamW`."""

import pytest
import torch

import sgc
from sgc.low_rank import leading_bases
from tests.peers.common import (
    EPS,
    GAP,
    LR,
    RANK,
    TheirBases,
    basis_of,
    differences,
    every_shape,
    gradients,
    package,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def make_peer(monkeypatch):
    GaLoreAdamW = package("galore_torch", monkeypatch).GaLoreAdamW

    def make(weights, *, gap=GAP, scale=0.25):
        group = {"params": weights, "rank": RANK, "update_proj_gap": gap, "scale": scale}
        return GaLoreAdamW(
            [{**group, "proj_type": "std"}], lr=LR, eps=EPS, no_deprecation_warning=True
        )

    return make


@every_shape
def test_with_their_bases(make_peer, shape):
    """All of GaLore but the SVD, over two refreshes: 1e-11 (measured 2e-13)."""
    source = TheirBases()
    ours = sgc.create(
        "compressor", "subspace", rank=RANK, refresh_every=GAP, alpha=0.25, source=source
    )
    assert max(differences(make_peer, ours, gradients(shape), source=source)) < 1e-11


@every_shape
def test_with_our_own_basis(make_peer, shape):
    """Until a refresh the sign of a singular vector cancels out, so all of it is ours.

    Their SVD is float32's: 1e-4 (measured 4e-6).
    """
    ours = sgc.create("compressor", "galore", rank=RANK, refresh_every=100, alpha=0.25)
    found = differences(lambda w: make_peer(w, gap=100), ours, gradients(shape))
    assert max(found) < 1e-4


@every_shape
def test_refreshes_find_the_same_subspace(make_peer, shape):
    """At a refresh too: the projections B Bᵀ agree to 1e-4, whatever the signs."""
    weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    peer = make_peer([weight])
    basis = None
    for t, gradient in enumerate(gradients(shape)):
        weight.grad = gradient.clone()
        peer.step()
        if t % GAP == 0:
            start = None if basis is None else basis[None]
            basis = leading_bases([gradient], RANK, start=start)[0]
            theirs = basis_of(peer.state[weight]["projector"])
            torch.testing.assert_close(basis @ basis.T, theirs @ theirs.T, atol=1e-4, rtol=0)
