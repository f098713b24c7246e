"""What the correlation kernels are given, without a GPU: parts, their order, the error bound."""

import pytest
import torch

from projections.seeding import stream
from recovery.kernels.parts import SCALE, in_fragment_order, margin, padded, split


def unit(*shape, law="normal"):
    draw = stream(0, "operands", law, *shape).standard_normal(shape)
    if law == "wide":  # entries of very different size
        draw *= 10.0 ** stream(1, "operands", *shape).uniform(-6, 0, shape)
    x = torch.from_numpy(draw)
    return x / x.norm(dim=-1, keepdim=True)


def test_three_parts_make_the_product_of_float32():
    atoms, signals = unit(40, 13), unit(7, 13)
    a = split(atoms.float(), 3, width=40, multiple=128)
    assert a.shape == (128, 40)
    assert a.dtype == torch.float16
    high, again, low = (a[:40, i : i + 13].double() for i in (0, 13, 26))
    assert torch.equal(high, again)
    assert ((high + low) / SCALE - atoms).abs().max() <= 2.0**-22
    assert (a[40:] == 0).all()
    assert (a[:, 39:] == 0).all()
    # The rows of signals are (hi, lo, hi): the product of the parts is that of the numbers.
    s = signals.float() * SCALE
    hi = s.half()
    rows = torch.cat([hi, (s - hi.float()).half(), hi], dim=1).double()
    product = rows @ a[:40, :39].double().T / SCALE**2
    assert (product - signals @ atoms.T).abs().max() <= 2.0**-21


@pytest.mark.parametrize("k", [17, 217, 1024])
@pytest.mark.parametrize("law", ["normal", "wide", "worst"])
def test_the_true_winner_is_within_the_margin(k, law):
    """Twice the error of one 11-bit correlation, whatever the rows; not much more than needed."""
    if law == "worst":  # every entry half a unit in the last place above fp16's grid
        atoms = torch.full((1, k), 1 + 2.0**-11 - 2.0**-20, dtype=torch.float64)
        # The norm that puts the entries just there: a power of two times the grid.
        atoms = signals = atoms / SCALE
        error = ((atoms * SCALE).half().double() ** 2 - (atoms * SCALE) ** 2).sum().abs()
        assert error / (atoms * SCALE).square().sum() > 0.9 * 2.0**-10
        bound = margin(k) / 2 / SCALE**2 * (atoms * SCALE).square().sum()
    else:
        atoms, signals = unit(300, k, law=law), unit(50, k, law=law)
        rounded = (signals * SCALE).half().double() @ (atoms * SCALE).half().double().T
        error = (rounded - SCALE**2 * signals @ atoms.T).abs().max()
        bound = margin(k) / 2
    assert error <= bound
    # (1 + u)² − 1, k sums at 2⁻²², and 18 bits kept; twice, in units of the norms.
    expected = 2 * ((1 + 2.0**-11) ** 2 - 1 + k * 2.0**-22 + 2.0**-18)
    assert margin(k) / SCALE**2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [8, 24, 48])
def test_fragment_order_is_what_a_lane_reads(width):
    """Word e of lane (g, t), block b, tile: atoms 32 tile + 8 e + g, numbers 8 b + 2 t and + 1."""
    parts = torch.arange(256 * width).view(256, width).to(torch.float16)
    parts = (torch.arange(256)[:, None] * 8 + torch.arange(width)[None] % 8).to(torch.float16)
    ordered = in_fragment_order(parts).reshape(8, width // 8, 32, 4, 2)
    for tile, block, lane, e in [(0, 0, 0, 0), (3, width // 8 - 1, 17, 2), (7, 0, 31, 3)]:
        g, t = divmod(lane, 4)
        atom, number = 32 * tile + 8 * e + g, 8 * block + 2 * t
        assert torch.equal(ordered[tile, block, lane, e], parts[atom, number : number + 2])


def test_padding():
    assert [padded(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
