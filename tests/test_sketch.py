"""What f does to all parameters at once: the largest entries, and their measurements."""

import itertools

import pytest
import torch

import sgc
from sgc import sketch as sketching
from sgc import top_entries as reading
from sgc.sketch import sketch
from sgc.top_entries import top_entries
from tests.conftest import makeable
from tests.helpers import normal


@pytest.mark.parametrize("name", makeable("chunker"))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", [1, 3])
def test_top_entries(name, dtype, sparsity, device, monkeypatch):
    """They are the largest of each chunk: with and without padding, one at a time or together."""
    for shape, tile in itertools.product(((8, 12), (5, 11)), (1, 2**20)):
        monkeypatch.setattr(reading, "_CPU_TILE", tile)
        monkeypatch.setattr(reading, "_ACCELERATOR_TILE", tile)
        chunker = sgc.create("chunker", name, chunks=4)
        gradients = [normal(*shape, seed=i).to(device, dtype) for i in range(3)]
        top = top_entries(gradients, chunker, sparsity, energy=True)
        assert top.index.shape == top.values.shape == (3, 4, sparsity)
        assert top.index.dtype == torch.int64
        assert top.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        parts = torch.stack([chunker.split(g.reshape(-1)) for g in gradients])
        assert torch.equal(parts.gather(-1, top.index).to(top.values.dtype), top.values)
        wanted = parts.abs().sort(descending=True).values[..., :sparsity].to(top.values.dtype)
        assert torch.equal(top.values.abs().sort(descending=True).values, wanted)
        energy = torch.stack([g.double().square().sum() for g in gradients])
        torch.testing.assert_close(top.energy, energy)
        assert top_entries(gradients, chunker, sparsity, energy=False).energy is None


def test_nan_counts_as_largest_and_energy_keeps_its_scale(device):
    chunker = sgc.create("chunker", "contiguous", chunks=2)
    gradient = torch.full((2, 8), torch.inf, device=device)
    gradient[0, 3] = torch.nan
    top = top_entries([gradient], chunker, 1, energy=True)
    assert int(top.index[0, 0, 0]) == 3
    assert top.values[0, 0, 0].isnan()
    for scale in (1e-40, 1e30):
        tiny = torch.full((2, 8), scale, device=device)
        energy = top_entries([tiny], chunker, 1, energy=True).energy
        torch.testing.assert_close(energy, tiny[:1, 0].double().square() * 16)


@pytest.mark.parametrize("name", makeable("projection"))
@pytest.mark.parametrize("s", [1, 4, 20])
@pytest.mark.parametrize("tile", [1, 2**22])
def test_sketch(name, s, tile, device, monkeypatch):
    """``A x`` and ``A x²``, by gathering (s ≤ d/4) and densely, whole and in tiles."""
    monkeypatch.setattr(sketching, "_CPU_TILE", tile)
    monkeypatch.setattr(sketching, "_ACCELERATOR_TILE", tile)
    square = getattr(sgc.registry.resolve("projection", name), "square", False)
    A = sgc.create("projection", name, 32 if square else 12, 32, device=device, dtype=torch.float64)
    index = torch.stack([normal(32, seed=i).topk(s).indices for i in range(5)]).to(device)
    values = normal(5, s, seed=9, dtype=torch.float64, device=device)
    x = torch.zeros(5, 32, dtype=torch.float64, device=device).scatter_(1, index, values)
    p, q = sketch(A, index, values)
    torch.testing.assert_close(p, A.matvec(x))
    torch.testing.assert_close(q, A.matvec(x.square()))
