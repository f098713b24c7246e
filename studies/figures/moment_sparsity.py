"""Rows of the study "moment-sparsity" as picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgc.results import Result
from studies.figures.moment_sparsity_tables import (
    Cell,
    cells,
    gradient_beta,
    kappas,
    moment_beta,
    rms,
    select,
    values,
)
from studies.figures.palette import COLOURS, MARKERS
from studies.measures.moment_watch import LARGE

__all__ = ["figure"]


def figure(rows: Sequence[Result]) -> Figure:
    """Sparsity by step, hit rates by κ, V's failures by κ, and where N diverges."""
    picture = Figure(figsize=(12, 9.4), dpi=130, layout="constrained")
    (sparsity, hits), (failures, decoded) = picture.subplots(2, 2)
    _sparsity(sparsity, rows)
    _hits(hits, rows)
    _failures(failures, rows)
    _decoded(decoded, rows)
    for axes in (sparsity, hits, failures, decoded):
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(12)
        axes.xaxis.label.set_fontsize(11.5)
        axes.yaxis.label.set_fontsize(11.5)
    config, seeds = rows[0].config, len({row.seed for row in rows})
    picture.suptitle(
        f"{config['model']}, {config['data']}, batch {config['batch_size']}, AdamW: moments of the "
        f"sparsified gradient; mean of {len(rows[0].metrics['matrices'])} matrices and "
        f"{seeds} seed{'s' * (seeds > 1)} (bars: standard error)",
        fontsize=12,
    )
    return picture


def _sparsity(axes: Axes, rows: Sequence[Result]) -> None:
    first = rows[0]
    cell = next((c for c in cells(first) if c[1] == 3), cells(first)[0])
    name = {"chunks": cell[0], "s": cell[1]}
    steps = sorted(first.config["measure"])
    seen: set[tuple[str, float]] = set()
    for i, (beta1, beta2) in enumerate(first.config["betas"]):
        for which, beta, style in (("m", beta1, "-"), ("v", beta2, "--")):
            if (which, beta) in seen:
                continue
            seen.add((which, beta))
            pair = {"beta1": beta1, "beta2": beta2}
            points = [values(rows, "moments", f"{which}_90", step=t, **name, **pair) for t in steps]
            axes.errorbar(
                steps,
                [mean for mean, _ in points],
                [error for _, error in points],
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                mfc="none" if which == "v" else None,
                ls=style,
                capsize=2,
                label=f"{which.upper()}, β{'₁' if which == 'm' else '₂'} = {beta:g}",
            )
    axes.axhline(cell[1], color="0.4", lw=1, ls=":", label="s_c, kept of a gradient")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    ticks = [t for t in (1, 2, 3, 5, 10, 20, 50, 100) if t <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [str(t) for t in ticks])
    axes.set_xlabel("step")
    axes.set_ylabel("entries of a chunk that hold 90 % of its energy")
    axes.set_title(f"Effective sparsity (c = {cell[0]}, s_c = {cell[1]})")
    axes.legend(frameon=False, fontsize=9.5, ncols=2)


def _by_kappa(
    axes: Axes,
    rows: Sequence[Result],
    cell: Cell,
    key: str,
    beta: dict[str, float],
    **style: Any,
) -> None:
    name = {"chunks": cell[0], "s": cell[1], **beta}
    last = max(rows[0].config["measure"])
    step = {} if beta["beta1"] == 0 else {"step": last}  # gradients of all steps alike
    these = kappas(rows, cell)
    points = [values(rows, "recovery", key, kappa=kappa, **name, **step) for kappa in these]
    axes.errorbar(these, [m for m, _ in points], [e for _, e in points], capsize=2, **style)


def _hits(axes: Axes, rows: Sequence[Result]) -> None:
    first, gradient = rows[0], gradient_beta(rows[0])
    for i, cell in enumerate(cells(first)):
        look = {"color": COLOURS[i], "marker": MARKERS[i]}
        if gradient:
            _by_kappa(axes, rows, cell, "hit_m", gradient, ls="--", mfc="none", **look)
        label = f"c = {cell[0]}, s_c = {cell[1]}"
        _by_kappa(axes, rows, cell, "hit_m", moment_beta(first), label=label, **look)
    axes.plot([], [], color="0.3", ls="--", label="the gradient itself")
    beta = moment_beta(first)
    text = f"M after {max(first.config['measure'])} steps, β₁ = {beta['beta1']:g}"
    axes.plot([], [], color="0.3", label=text)
    _kappa_axis(axes, rows)
    axes.set_ylabel("share of the s_c largest entries that OMP finds")
    axes.set_title("What holds a gradient does not hold a moment")
    axes.legend(frameon=False, fontsize=9.5, loc="lower right")


def _failures(axes: Axes, rows: Sequence[Result]) -> None:
    first = rows[0]
    for i, cell in enumerate(cells(first)):
        look = {"color": COLOURS[i], "marker": MARKERS[i]}
        _by_kappa(axes, rows, cell, "no_v", moment_beta(first), **look)
        _by_kappa(axes, rows, cell, "negative_v", moment_beta(first), ls=":", mfc="none", **look)
    axes.plot([], [], color="0.3", label="atoms of M that V's lacks")
    axes.plot([], [], color="0.3", ls=":", label="values of V below 0")
    last = max(first.config["measure"])
    differ = [
        1 - values(rows, "moments", "overlap", step=last, chunks=c, s=s, **moment_beta(first))[0]
        for c, s in cells(first)
    ]
    text = "M's s_c largest that are not V's"
    axes.axhspan(min(differ), max(differ), color="0.85", zorder=0, label=text)
    _kappa_axis(axes, rows)
    axes.set_ylabel("share of what OMP recovers")
    axes.set_title(f"M and V are recovered on different supports (after {last} steps)")
    axes.legend(
        title="colours as at the upper right", frameon=False, fontsize=9.5, loc="upper right"
    )


def _kappa_axis(axes: Axes, rows: Sequence[Result]) -> None:
    every = sorted({kappa for cell in cells(rows[0]) for kappa in kappas(rows, cell)})
    axes.set_xscale("log")
    axes.set_xticks(every, [f"{kappa:g}" for kappa in every])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel("κ = k_c/s_c, measurements for each entry kept")


def _decoded(axes: Axes, rows: Sequence[Result]) -> None:
    first = rows[0]
    cell = next((c for c in cells(first) if c[1] == 3), cells(first)[0])
    name = {"chunks": cell[0], "s": cell[1]}
    decodes = list(dict.fromkeys(r["decode"] for r in select(first, "decodes", **name)))
    scales = sorted(first.config["scales"])
    for i, decode in enumerate(decodes):
        for j, eps in enumerate(sorted(first.config["epsilons"])):
            points = [
                values(rows, "decodes", "max", decode=decode, scale=g, eps=eps, **name)
                for g in scales
            ]
            below = [min(error, 0.9 * mean) for mean, error in points]  # 0 is not on the axis
            axes.errorbar(
                scales,
                [mean for mean, _ in points],
                [below, [error for _, error in points]],
                capsize=2,
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[j % len(MARKERS)],
                ls=("-", "--", ":", "-.")[j % 4],
                ms=5,
                label=f"{decode}, ε = {eps:g}",
            )
    own = rms(rows)
    axes.axhline(LARGE, color="0.4", lw=0.9)
    axes.axvline(own, color="0.4", lw=0.9, ls="--")
    axes.text(
        *(own * 1.25, 0.03),
        f"this run\n({own:.1g})",
        transform=axes.get_xaxis_transform(),
        fontsize=10,
    )
    axes.text(scales[0], LARGE * 1.2, "|N| = 10", va="bottom", fontsize=10)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("root mean square of a gradient's entries")
    axes.set_ylabel("largest |N| of a step (Adam: about 1)")
    kappa = first.config["decode_kappa"]
    axes.set_title(f"Where a decode diverges (c = {cell[0]}, s_c = {cell[1]}, κ = {kappa})")
    axes.legend(frameon=False, fontsize=9.5)
