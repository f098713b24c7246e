"""``python -m studies capture``: keep the largest entries of gradients of a real fine-tuning."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from sgc.cli.errors import clean_errors
from sgc.files import check_writable, replacing
from sgc.finetune.config import ConfigError
from sgc.results import environment
from studies.measures.fine_tuning import FineTuning

__all__ = ["EXAMPLE", "capture", "chosen_layers", "largest_entries"]

EXAMPLE = "Example: python -m studies capture --step 1 --step 100"
OUT = Path("runs/studies/gradients.npz")  # not the committed file, which others' rows are of
_STEPS = (1, 20, 60, 120)


def capture(
    *,
    out: Annotated[
        Path,
        typer.Option(dir_okay=False, help="The file; sgc study run --gradients FILE reads it."),
    ] = OUT,
    step: Annotated[
        list[int] | None,
        typer.Option(
            "--step",
            min=1,
            metavar="N",
            help="Keep the gradients of this step; may be repeated. The last one ends the run.",
            show_default=", ".join(map(str, _STEPS)),
        ),
    ] = None,
    entries: Annotated[int, typer.Option(min=1, help="Largest entries kept of a matrix.")] = 4096,
    model: Annotated[str, typer.Option(help="As of sgc finetune.")] = "minilm",
    data: Annotated[str, typer.Option(help="As of sgc finetune.")] = "rotten-tomatoes",
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of data order, head and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
) -> None:
    """Fine-tune with AdamW and keep gradients of query and value matrices for the studies.

    Of the first, the middle and the last layer; the learning rate falls to zero with the last of
    the steps. A file that is there is replaced when the run is over. Studies read the committed one
    unless they are told otherwise.
    """
    console = Console(stderr=True)
    with clean_errors():
        check_writable(out)
        steps = sorted(set(step or _STEPS))
        run = FineTuning(
            "adamw",
            model=model,
            data=data,
            steps=steps[-1],
            batch_size=batch_size,
            seed=seed,
            device=device,
        )
        with Progress(
            TextColumn("capture"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            task = bar.add_task("", total=steps[-1])
            kept = _keep(run, steps, entries, lambda: bar.advance(task))
        metadata = {
            "config": run.config.to_dict(),
            "entries": entries,
            "environment": environment(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with replacing(out) as file:
            np.savez_compressed(file, metadata=np.array(json.dumps(metadata)), **_stacked(kept))
        print(f"{len(kept)} gradients: {out} (for studies: --gradients {out})")


def largest_entries(G: Tensor, entries: int) -> dict[str, Any]:
    """The largest of a gradient in magnitude, the largest first, and ``ΣG²`` of them all.

    Equal magnitudes come in the order of their places.

    Raises:
        ConfigError: the gradient has fewer entries, or entries that are not finite.
    """
    flat = G.detach().flatten().to("cpu", torch.float32)
    if entries > flat.numel():
        raise ConfigError(
            f"--entries {entries} of a matrix of {flat.numel()} numbers: at most {flat.numel()}"
        )
    if not bool(torch.isfinite(flat).all()):
        raise ConfigError("a gradient has entries that are not finite: nothing to capture")
    index = flat.abs().argsort(descending=True, stable=True)[:entries]
    return {
        "shape": np.array(G.shape, dtype=np.int32),
        "index": index.to(torch.int32).numpy(),
        "values": flat[index].numpy(),
        "energy": float(flat.double().square().sum()),
    }


def chosen_layers(names: Iterable[str]) -> list[str]:
    """Those names that belong to the first, the middle or the last layer.

    A layer is the first number between dots; names without one are kept.

    Example:
        >>> chosen_layers([f"layer.{i}.q" for i in range(6)])
        ['layer.0.q', 'layer.3.q', 'layer.5.q']
    """
    layers = {name: int(m[1]) if (m := re.search(r"\.(\d+)\.", name)) else -1 for name in names}
    there = sorted(set(layers.values()) - {-1})
    wanted = {-1, *(there[i] for i in (0, len(there) // 2, -1) if there)}
    return [name for name, layer in layers.items() if layer in wanted]


def _keep(
    run: FineTuning, steps: Sequence[int], entries: int, on_step: Callable[[], object]
) -> list[dict[str, Any]]:
    targets = run.ready.targets
    matrices = {name: targets[name] for name in chosen_layers(targets)}
    kept: list[dict[str, Any]] = []

    def after(step: int) -> None:
        """The step's gradients are still there."""
        if step in steps:
            for name, p in matrices.items():
                if p.grad is None:
                    raise ConfigError(f"{name} has no gradient: the method does not train it")
                kept.append({"name": name, "step": step, **largest_entries(p.grad, entries)})
        on_step()

    run.run(after)
    return kept


def _stacked(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: np.stack([np.asarray(one[key]) for one in kept]) for key in kept[0]}
