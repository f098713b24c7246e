"""The inequalities of chunking: what is proved holds, and what is not fails where it must."""

import itertools
import math

import numpy as np
import pytest
import torch

from sgc.registry import create
from studies.measures.chunk_bounds import bounds, selections
from studies.plugins import chunkers
from tests.studies.sorting import HOLDS, draw, oracle


def squares_of(G, chunker, s):
    """Both sides of all inequalities for integer gradients: exact in float64."""
    top, chunked = selections(G, chunker, s)
    square = G.square()
    return bounds(
        chunks=chunker.chunks,
        sparsity=s,
        numel=G.shape[-1],
        error=(square * (top ^ chunked)).sum(-1),
        top=(square * top).sum(-1),
        chunked=(square * chunked).sum(-1),
        lost=(square * ~chunked).sum(-1),
        whole=square.sum(-1),
    )


@pytest.mark.parametrize("name", chunkers())
@pytest.mark.parametrize(("d", "c", "s"), [(24, 4, 8), (23, 4, 8), (10, 4, 4), (12, 3, 12)])
def test_the_selections_are_those_of_plain_sorting(name, d, c, s):
    chunker = create("chunker", name, chunks=c, seed=5)
    G = torch.randint(-3, 4, (40, d), generator=draw(d)).double()  # many ties
    top, chunked = selections(G, chunker, s)
    for row in range(len(G)):
        found = tuple(set(mask[row].nonzero().flatten().tolist()) for mask in (top, chunked))
        assert found == oracle(G[row].tolist(), chunker, s)


def random_problems(count, seed=0):
    """Small integer gradients of any d, c, s: ties, padding and chunks that s fills."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        c = int(random.integers(1, 9))
        length = int(random.integers(1, 13))
        d = int(random.integers(max(c, c * (length - 1) + 1), c * length + 1))
        length = -(-d // c)
        s = c * int(random.integers(1, length + 1))
        if s <= d:
            hot = 10.0 ** random.integers(0, 3, (64, d))
            G = random.integers(-4, 5, (64, d)) * (hot if random.random() < 0.5 else 1)
            if random.random() < 0.5:  # large entries gather in runs
                G = np.take_along_axis(G, np.abs(G).argsort(-1), -1)
            yield torch.from_numpy(G.astype(np.float64)), c, s, d


def test_no_small_case_breaks_what_is_proved_and_ties_and_padding_are_among_them():
    printed = contraction = cases = 0
    for G, c, s, d in random_problems(280):
        for name in chunkers():
            sides = squares_of(G, create("chunker", name, chunks=c, seed=d), s)
            for which in HOLDS:
                left, right = sides[which]
                assert bool((left <= right + 1e-9).all()), (which, name, c, s, d)
            if d % c == 0:
                assert bool((sides["contraction"][0] <= sides["contraction"][1] + 1e-9).all())
                if c <= 2 or 2 * s >= d:  # where the printed bound is true
                    assert bool((sides["printed"][0] <= sides["printed"][1] + 1e-9).all())
            printed += int((sides["printed"][0] > sides["printed"][1] + 1e-9).sum())
            contraction += int((sides["contraction"][0] > sides["contraction"][1] + 1e-9).sum())
            cases += len(G)
    assert cases > 30_000
    assert printed > 500
    assert contraction > 0  # of padded chunks only, see above


@pytest.mark.parametrize("c", [3, 4, 7])
@pytest.mark.parametrize("length", [3, 4, 8])
def test_the_printed_bound_fails_wherever_there_are_three_chunks_and_s_is_below_half(c, length):
    """As many whole chunks of 1 as s fills, the rest of the top s as good as nothing."""
    d = c * length
    below_half = [s for s in range(c, d, c) if 2 * s < d]
    assert below_half
    for s in below_half:
        G = torch.zeros(1, d, dtype=torch.float64)
        G[0, :s] = 1
        if s > length:
            G[0, s // length * length : s] = 1e-9
        sides = squares_of(G, create("chunker", "contiguous", chunks=c), s)
        assert bool((sides["printed"][0] > 1.01 * sides["printed"][1]).all()), (d, c, s)
        error, right = sides["repaired"]  # its constant is ρ − 1 here, and attained
        assert error.item() == pytest.approx(right.item())
        for which in HOLDS:
            assert bool((sides[which][0] <= sides[which][1] * (1 + 1e-12)).all())


@pytest.mark.parametrize(("c", "s", "factor"), [(4, 8, 2 * (1 - 1 / 4)), (8, 16, 2 * (1 - 1 / 4))])
def test_the_sharp_bound_is_attained(c, s, factor):
    """d = 64: s fits into a chunk and 1/c decides; or it fills two chunks and s/d does."""
    G = torch.full((1, 64), 1 - 1e-9, dtype=torch.float64)
    G[0, :s] = 1
    sides = squares_of(G, create("chunker", "contiguous", chunks=c), s)
    error, right = sides["sharp"]
    assert right.item() == pytest.approx(factor * s)
    assert error.item() == pytest.approx(right.item(), rel=1e-6)
    assert bool(error <= right)


def test_the_sharp_bound_is_not_attained_where_s_fills_no_whole_chunks():
    """d = 6, c = 2, s = 4: 3 < s and 3 ∤ s. Four entries miss one at most: 1/2, not 2/3."""
    places = itertools.combinations(range(6), 4)
    G = torch.full((15, 6), 1 - 1e-9, dtype=torch.float64)
    for row, own in zip(G, places, strict=True):
        row[list(own)] = 1
    error, right = squares_of(G, create("chunker", "contiguous", chunks=2), 4)["sharp"]
    assert right / 4 == pytest.approx(2 / 3)
    assert (error / 4).max().item() == pytest.approx(1 / 2, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_entries_that_are_not_finite_are_refused(bad):
    G = torch.ones(3, 8, dtype=torch.float64)
    G[1, 2] = bad
    with pytest.raises(ValueError, match="1 of 3 gradients have NaN or infinite entries"):
        selections(G, create("chunker", "contiguous", chunks=2), 2)


def test_the_corrected_bound_needs_one_rule_for_ties():
    """Four equal entries, s = 2, c = 2: selections that differ in both have twice the bound."""
    G = torch.ones(1, 4, dtype=torch.float64)
    sides = squares_of(G, create("chunker", "contiguous", chunks=2), 2)
    assert sides["corrected"][0].item() <= sides["corrected"][1].item() == 2
    apart = torch.tensor([[0, 1, 0, 1]]) == 1  # also a top 1 of each chunk, against {0, 2}
    both = torch.tensor([[1, 0, 1, 0]]) == 1
    assert (G.square() * (apart ^ both)).sum().item() == 4


def test_the_contraction_needs_the_padded_length():
    """d = 10 in 4 chunks of 3, one hot: 2/3 is lost, more than 1 − 4/10, and not 1 − 4/12."""
    G = torch.zeros(1, 10, dtype=torch.float64)
    G[0, :3] = 1
    sides = squares_of(G, create("chunker", "contiguous", chunks=4), 4)
    assert sides["contraction"][0].item() > sides["contraction"][1].item()
    assert sides["padded"][0].item() == pytest.approx(sides["padded"][1].item())
