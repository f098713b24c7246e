"""A picture of seconds: stacked horizontal bars with their spread."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from studies.figures.palette import GREEN, ORANGE, SKY

__all__ = ["stacked_bars"]

_STYLES = ((SKY, ""), (ORANGE, "//"), (GREEN, "xx"))  # hatches repeat what colours say


def stacked_bars(
    axes: Axes,
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    spreads: Sequence[Mapping[str, float]],
) -> None:
    """Draw a bar for each name, the first on top.

    Args:
        axes: where to draw.
        names: labels of the bars.
        parts: segments from left to right, up to three: label → a width for each name.
        spreads: ``median``, ``low``, ``high`` for each name: the error bar.
    """
    places = range(len(names))
    left = [0.0] * len(names)
    for (label, widths), (colour, hatch) in zip(parts.items(), _STYLES, strict=False):
        axes.barh(places, widths, 0.6, left, label=label, color=colour, hatch=hatch)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    middle = [spread["median"] for spread in spreads]
    below = [spread["median"] - spread["low"] for spread in spreads]
    above = [spread["high"] - spread["median"] for spread in spreads]
    axes.errorbar(middle, places, xerr=[below, above], fmt="none", ecolor="black", capsize=3)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
