"""``python -m studies``: a command for each question."""

import importlib
import os
import re
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
from sgc.finetune.config import ConfigError
from sgc.registry import did_you_mean
from sgc.results import Result, ResultStore, environment
from studies import throughput as study
from studies.passes import PASSES
from studies.rows import finished, row

STUDIES = ("throughput",)  # a module each

app = typer.Typer(
    help="Re-measure what the paper claims, one study per question.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.command("list")
def list_studies() -> None:
    """Every study and its question."""
    for name in STUDIES:
        about = (importlib.import_module(f"studies.{name}").__doc__ or "").partition("\n")[0]
        print(f"{name:<12} {about.partition(': ')[2]}")


@app.command(epilog="Example: python -m studies throughput --method full --method cesgc")
def throughput(
    *,
    preset: Annotated[
        str, typer.Option(help=f"{', '.join(study.PRESETS)}: smoke needs no GPU.")
    ] = "default",
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Only this method; may be repeated."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Timed iterations of each method.", show_default="20")
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
    figure show them, too.
    """
    console = Console()
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
        _measure(todo, store, console, here=here)
        found = [finished(store, study.KIND, config, here=here) for config in configs]
        rows = [result for result in found if result]
        if not rows:
            raise typer.Exit(1)
        console.print(_table(rows))
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
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and preset != "smoke":
            raise ConfigError(
                f"the preset {preset!r} trains a model of 7 billion weights and there is no GPU "
                "here: take --preset smoke, or insist with --device cpu"
            )
    common: dict[str, Any] = {"device": device, **({} if repeats is None else {"repeats": repeats})}
    return [replace(config, **common) for config in study.PRESETS[preset]]


def _measure(
    configs: Sequence[study.Config], store: ResultStore, console: Console, *, here: dict[str, Any]
) -> None:
    if not configs:
        return
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
            store.append(row(study.KIND, config, metrics, here=here))


def _table(rows: Sequence[Result]) -> Table:
    """Ours beside the paper's."""
    full = {r.config["method"]: r.metrics["iteration_s"]["median"] for r in rows}.get("full")
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.caption_justify = "left"
    table.caption = (
        "ms: median of an iteration (low–high), of its optimizer step, and of an iteration with "
        "its share of a subspace refresh. × full: ratio of medians. MB: what the optimizer keeps."
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
            f"{1e-3 * middle / full:.3f}" if full else "–",
            f"{paper:.2f}" if paper else "–",
            f"{paper / study.PAPER['full']:.2f}" if paper else "–",
            f"{1e-6 * m['state_bytes']:,.2f}",
            f"{2**-30 * m['peak_bytes']:.1f}" if m["peak_bytes"] else "–",
        )
    return table


def _save(rows: Sequence[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    study.figure(rows).savefig(partial, format="png")
    os.replace(partial, path)


if __name__ == "__main__":
    app(prog_name="python -m studies")
