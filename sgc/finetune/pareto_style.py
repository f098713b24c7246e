"""What a method looks like in the pictures of races, and names at the ends of lines."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from sgc.finetune.lineup import METHODS

__all__ = ["LINE", "Name", "Style", "name_ends", "names_height", "styles"]

LINE = 0.155  # inches: a line of the names
_WIDTH = 22  # characters of a line
_LINES = 3  # of a long spec

# Okabe and Ito's colours without yellow and black, and two dark ones. Two methods of one colour
# have different markers.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#333333"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<")


@dataclass(frozen=True)
class Style:
    """Colour and marker of a method; its variants have open markers and broken lines."""

    colour: str
    marker: str
    variant: int = 0

    @property
    def line(self) -> str:
        """Line style."""
        return ("-", "--", ":")[min(self.variant, 2)]

    @property
    def points(self) -> dict[str, Any]:
        """Settings of matplotlib for the marker: full, open, or half full."""
        return {
            **{"marker": self.marker, "markersize": 5, "markerfacecoloralt": "white"},
            "markerfacecolor": "white" if self.variant == 1 else self.colour,
            "fillstyle": "bottom" if self.variant > 1 else "full",
        }


def styles(labels: Iterable[str], *, in_family_panels: bool) -> dict[str, Style]:
    """Label → style, one for all panels.

    Args:
        labels: those that are drawn.
        in_family_panels: those of the line-up have the same style in every picture, and no two of a
            family the same colour; else no two have while there are colours.
    """
    labels = list(dict.fromkeys(labels))
    ordered = [*METHODS, *(label for label in labels if label not in METHODS)]
    groups: dict[str, list[str]] = {}
    for label in ordered if in_family_panels else labels:
        groups.setdefault(_base(label), []).append(label)
    found = {}
    for i, group in enumerate(groups.values()):
        colours, markers = len(_COLOURS), len(_MARKERS)
        colour, marker = _COLOURS[i % colours], _MARKERS[(i + i // (colours * markers)) % markers]
        found.update({label: Style(colour, marker, n) for n, label in enumerate(group)})
    return found


def _base(label: str) -> str:
    """``galore`` of ``galore + ρ`` and of ``galore, adafactor``; a spec stays whole."""
    return re.split(r" \+ |, ", label, maxsplit=1)[0]


@dataclass(frozen=True)
class Name:
    """A name, the end of its line in data coordinates, and its style; None of a reference."""

    text: str
    x: float
    y: float
    style: Style | None

    @property
    def lines(self) -> list[str]:
        """The name, broken where a spec may be; a long one ends in …"""
        breakable = re.sub(r"([:,])(?=\S)", r"\1 ", self.text)
        found = textwrap.wrap(breakable, _WIDTH, max_lines=_LINES, placeholder="…")
        return [re.sub(r"([:,]) (?=\S+=)", r"\1", line) for line in found]


def names_height(names: Sequence[Name]) -> float:
    """Inches that they need above one another."""
    return LINE * sum(len(name.lines) for name in names)


def name_ends(axes: Axes, names: Sequence[Name], *, size: tuple[float, float]) -> None:
    """Write the names to the right of the axes, near the ends of their lines, and lead there.

    Args:
        axes: with the final limits; names without overlap, each as near to its line as can be.
        names: in any order.
        size: width and height of the axes, in inches.
    """
    if not names:
        return
    width, height = size
    bottom, top = axes.get_ylim()
    names = sorted(names, key=lambda name: name.y)
    needed = np.array([LINE * len(name.lines) for name in names])
    centres = needed.cumsum() - needed / 2
    wanted = (np.array([name.y for name in names]) - bottom) / (top - bottom) * height
    # Least squares under "in this order, without overlap" is isotonic in what is left of the sizes.
    free = np.clip(isotonic_regression(wanted - centres).x, 0, max(0.0, height - needed.sum()))
    for name, place in zip(names, (free + centres) / height, strict=True):
        style = name.style or Style("black", "_")
        axes.annotate(
            "",
            xy=(name.x, name.y),
            xytext=(1 + 0.12 / width, place),
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": style.colour,
                "linewidth": 0.7,
                "alpha": 0.7,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        axes.plot(
            1 + 0.15 / width,
            place,
            transform=axes.transAxes,
            clip_on=False,
            color=style.colour,
            **style.points,
        )
        axes.text(
            1 + 0.24 / width,
            place,
            "\n".join(name.lines),
            transform=axes.transAxes,
            fontsize=9,
            verticalalignment="center",
            linespacing=1.1,
        )
