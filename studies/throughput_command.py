"""``python -m studies throughput``."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sgc.cli.errors import clean_errors
from sgc.files import replacing
from sgc.finetune.config import ConfigError
from sgc.registry import did_you_mean
from sgc.results import Result, ResultStore, environment
from studies import throughput as study
from studies.passes import PASSES
from studies.rows import finished, row

_DEVICES = ["auto", "cpu", "cuda"]
_WIDTH = 140  # of a table in a pipe or file, where no terminal has one
_METHODS = dict.fromkeys(c.method for configs in study.PRESETS.values() for c in configs)
_REPEATS = ", ".join(f"{name} {configs[0].repeats}" for name, configs in study.PRESETS.items())


def throughput(
    *,
    preset: Annotated[
        str,
        typer.Option(
            help="smoke: a tiny model, seconds on a CPU. default: LLaMA2-7B with this package's "
            "choices, needs a GPU. paper: the same with contiguous chunks, the literal decode and "
            "α = 2, as printed."
        ),
    ] = "default",
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"Only this method; may be repeated. {', '.join(_METHODS)} (no mesgc-residual in "
            "the preset paper).",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help=f"Timed iterations of each method, an even number: {PASSES} passes share them.",
            show_default=_REPEATS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="JSON lines, one a method.",
            show_default="results/throughput-DEVICE.jsonl",
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="The picture.", show_default="docs/throughput.png"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda.")] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Repeat what --out already has from this revision.")
    ] = False,
) -> None:
    """Time a training iteration of LLaMA2-7B with each method (the paper's Table 4).

    Methods that --out has with equal settings, revision and GPU are not measured again; table and
    figure show them, too. Code with changes that are not committed is always measured.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    with clean_errors():
        configs = _configs(preset, method or [], repeats=repeats, device=device)
        here = environment()
        smoke = preset == "smoke"
        name = "throughput" if preset == "default" else f"throughput-{preset}"
        gpu = here["gpu"] if configs[0].device.startswith("cuda") else None
        slug = re.sub(r"\W+", "-", (gpu or "cpu").lower())
        out = out or Path("runs" if smoke else "results", f"{name}-{slug}.jsonl")
        figure = figure or (out.with_suffix(".png") if smoke else Path("docs", f"{name}.png"))
        store = ResultStore(out)
        store.prepare()
        asked = [c for c in configs if not method or c.method in method]
        todo = [c for c in asked if fresh or not finished(store, study.KIND, c, here=here)]
        for config in (c for c in asked if c not in todo):
            console.print(
                f"{config.method}: already in {out}, not measured again (or: --fresh)",
                soft_wrap=True,
            )
        new = _measure(todo, store, console, here=here)
        found = [new.get(c) or finished(store, study.KIND, c, here=here) for c in configs]
        rows = [result for result in found if result]  # in the preset's order
        if not rows:
            raise typer.Exit(1)
        console.print(_table(rows))
        for line in [] if smoke else study.verdicts(rows):  # the target is for the 7B model
            console.print(line, highlight=False, soft_wrap=True)
        _save(rows, figure)
        console.print(f"figure: {figure}\nresults: {out}", highlight=False, soft_wrap=True)


def _configs(
    preset: str, methods: Sequence[str], *, repeats: int | None, device: str
) -> list[study.Config]:
    """All of the preset; methods are only checked."""
    for what, name, known in (
        ("preset", preset, list(study.PRESETS)),
        *(("method", name, [c.method for c in study.PRESETS.get(preset, ())]) for name in methods),
    ):
        if name not in known:
            raise ConfigError(
                f"unknown {what} {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}"
            )
    common: dict[str, Any] = {"device": _device(device, preset)}
    if repeats is not None:
        common["repeats"] = repeats
    return [replace(config, **common) for config in study.PRESETS[preset]]


def _device(asked: str, preset: str) -> str:
    """What ``auto`` means here; any other only checked."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        if not gpus and preset != "smoke":
            raise ConfigError(
                f"the preset {preset!r} trains a model of 7 billion weights and there is no GPU "
                "here: take --preset smoke, or insist with --device cpu"
            )
        return "cuda" if gpus else "cpu"
    if asked == "cpu":
        return asked
    index = re.fullmatch(r"cuda(?::(\d+))?", asked)
    if not index:
        raise ConfigError(
            f"unknown device {asked!r}{did_you_mean(asked, _DEVICES)}; there are: "
            f"{', '.join(_DEVICES)}, and cuda:N for one of several GPUs"
        )
    if not gpus:
        instead = "--device cpu" if preset == "smoke" else "--preset smoke --device cpu"
        raise ConfigError(f"--device {asked}: torch finds no GPU here: take {instead}")
    if int(index[1] or 0) >= gpus:
        here = ", ".join(f"cuda:{i}" for i in range(gpus))
        raise ConfigError(f"--device {asked}: no such GPU; there are: {here}")
    return asked


def _measure(
    configs: Sequence[study.Config], store: ResultStore, console: Console, *, here: dict[str, Any]
) -> dict[study.Config, Result]:
    """Their rows, which are in the store, too."""
    new: dict[study.Config, Result] = {}
    if not configs:
        return new
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("making the model", total=PASSES * len(configs) + 1)
        measured = study.run(
            configs,
            progress=lambda config: bar.update(task, advance=1, description=config.method),
            left_out=lambda config, why: console.print(
                f"{config.method} is left out: {why}", soft_wrap=True
            ),
        )
        for config, metrics in measured:
            new[config] = row(study.KIND, config, metrics, here=here)
            store.append(new[config])
    return new


def _table(rows: Sequence[Result]) -> Table:
    """Ours beside the paper's."""
    ratios = study.ratios(rows)
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.caption_justify = "left"
    table.caption = (
        "ms: median of an iteration (low–high), of its optimizer step, and of an iteration with "
        "its share of a subspace refresh. × full: ratio with that share. MB: what the optimizer "
        "keeps."
    )
    table.add_column("\nmethod", no_wrap=True)
    table.add_column("iteration\nms", justify="right")  # a narrow terminal puts the spread below
    ours, theirs = ("step\nms", "with\nrefresh", "\n× full"), ("paper\ns", "paper\n× full")
    for name in (*ours, *theirs, "\nMB", "peak\nGiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in rows:
        name, m = result.config["method"], result.metrics
        middle, low, high = (1e3 * m["iteration_s"][key] for key in ("median", "low", "high"))
        paper = study.PAPER.get(name)
        table.add_row(
            name,
            f"{middle:.1f} ({low:.1f}–{high:.1f})",
            f"{1e3 * m['optimizer_s']['median']:.1f}",
            f"{1e3 * m['amortised_s']:.1f}" if m["refresh_s"] is not None else "–",
            f"{ratios[name]:.3f}" if ratios else "–",
            f"{paper:.2f}" if paper else "–",
            f"{paper / study.PAPER['full']:.2f}" if paper else "–",
            f"{1e-6 * m['state_bytes']:,.2f}",
            f"{2**-30 * m['peak_bytes']:.1f}" if m["peak_bytes"] else "–",
        )
    return table


def _save(rows: Sequence[Result], path: Path) -> None:
    with replacing(path) as file:
        study.figure(rows).savefig(file, format="png")
