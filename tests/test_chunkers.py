"""Laws of every registered chunker."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sgc
from sgc.chunkers.base import Chunker
from sgc.hashing import lowbias32
from tests.conftest import makeable

every_chunker = pytest.mark.parametrize("name", makeable("chunker"))


@every_chunker
@settings(max_examples=60, deadline=None)
@given(data=st.data(), batch=st.integers(0, 2))
def test_merge_undoes_split(name, data, batch):
    chunks = data.draw(st.integers(1, 20))
    numel = data.draw(st.integers(chunks, 300))
    chunker = sgc.create("chunker", name, chunks=chunks, seed=data.draw(st.integers(0, 3)))
    x = torch.arange(1, batch * numel + 1.0).reshape(batch, numel)
    parts = chunker.split(x)
    length = -(-numel // chunks)
    assert parts.shape == (batch, chunks, length)
    assert torch.equal(chunker.merge(parts, numel=numel), x)
    assert int((parts == 0).sum()) == batch * (chunks * length - numel)  # the padding, no more


@every_chunker
@settings(max_examples=40, deadline=None)
@given(chunks=st.integers(1, 12), length=st.integers(1, 30), missing=st.integers(0, 11))
def test_source_is_the_map_behind_split(name, chunks, length, missing):
    """A sparse update finds its places by ``source``; it must agree with split."""
    numel = max(chunks * length - min(missing, chunks - 1), chunks)
    chunker = sgc.create("chunker", name, chunks=chunks, seed=1)
    length = chunker.length(numel)
    slots = torch.arange(chunks * length)
    places = chunker.source(slots, length=length)
    assert torch.equal(places.sort().values, slots)  # a bijection
    padded = torch.arange(1.0, numel + 1)
    padded = torch.nn.functional.pad(padded, (0, chunks * length - numel))
    split = chunker.split(torch.arange(1.0, numel + 1))
    assert torch.equal(padded[places].view(chunks, length), split)


@every_chunker
@pytest.mark.parametrize(("chunks", "length"), [(1, 5), (7, 30), (16, 9)])
def test_a_declared_layout_is_the_map(name, chunks, length, device):
    """Kernels follow ``layout`` and ``turns`` instead of ``source``."""
    chunker = sgc.create("chunker", name, chunks=chunks, seed=2)
    if chunker.layout is None:
        pytest.skip(f"{name} declares no layout")
    slots = torch.arange(chunks * length, device=device)
    q, j = slots // length, slots % length
    if chunker.layout == "dealt":
        multiply, add = chunker.dealt
        turn = lowbias32(j * multiply + add) % chunks if multiply else torch.zeros_like(j)
        expected = j * chunks + (q - turn) % chunks
    else:
        assert chunker.layout == "consecutive"
        expected = slots
    assert torch.equal(chunker.source(slots, length=length), expected)


@every_chunker
def test_same_seed_same_chunks_on_every_device(name, device):
    x = torch.arange(100.0)
    here = sgc.create("chunker", name, chunks=7, seed=3).split(x)
    there = sgc.create("chunker", name, chunks=7, seed=3).split(x.to(device))
    assert torch.equal(here, there.cpu())


@every_chunker
def test_refuses_what_cannot_be(name):
    with pytest.raises(ValueError, match="chunks must be at least 1, got 0"):
        sgc.create("chunker", name, chunks=0)
    chunker = sgc.create("chunker", name, chunks=8)
    with pytest.raises(ValueError, match="8 chunks of a vector of 7"):
        chunker.split(torch.zeros(7))
    with pytest.raises(ValueError, match=r"\(8, 3\), got \(8, 4\)"):
        chunker.merge(torch.zeros(8, 4), numel=20)


def hot_share(name, hot):
    """Largest share of the hot entries that one of 16 chunks gets; 1/16 is even."""
    chunks = sgc.create("chunker", name, chunks=16, seed=0).split(hot.flatten().float())
    return float(chunks.sum(1).max() / hot.sum())


def test_what_each_chunker_spreads():
    row, column = torch.zeros(64, 64), torch.zeros(64, 64)
    row[5], column[:, 5] = 1, 1
    assert hot_share("contiguous", row) == 1
    assert hot_share("strided", row) == 1 / 16
    assert hot_share("strided", column) == 1
    assert hot_share("permuted", row) == 1 / 16
    assert hot_share("permuted", column) < 0.25


def test_permutations_differ_with_the_seed():
    x = torch.arange(1000.0)
    a, b = (sgc.create("chunker", "permuted", chunks=10, seed=s).split(x) for s in (0, 1))
    assert (a == b).float().mean() < 0.2


@settings(max_examples=30, deadline=None)
@given(chunks=st.integers(1, 9), numel=st.integers(9, 80), batch=st.integers(0, 2))
def test_a_chunker_needs_nothing_but_its_map(chunks, numel, batch):
    """The base class derives split and merge from ``source``."""

    class Backwards(Chunker):
        def source(self, slots, *, length):
            return self.chunks * length - 1 - slots

    chunker = Backwards(chunks=chunks)
    x = torch.arange(1, batch * numel + 1.0).reshape(batch, numel)
    assert torch.equal(chunker.merge(chunker.split(x), numel=numel), x)
    padding = chunks * chunker.length(numel) - numel
    assert (chunker.split(x).flatten(1)[:, :padding] == 0).all()
