"""``sgc compare``: several methods on one task."""

from typing import Annotated

import typer
from rich.console import Console

from sgc.cli import options
from sgc.cli.errors import clean_errors
from sgc.finetune import FinetuneConfig, resolve_method
from sgc.finetune import compare as comparison

EXAMPLE = "Example: sgc compare adamw galore:rank=1 mesgc:residual=0.1,lr=1e-3 --seeds 5"


def compare(
    *,
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD]...",
            help="NAME or NAME:OPTION=VALUE,… as for 'sgc finetune --compressor'; lr is an option.",
            show_default="frozen adamw sign-sgd galore:rank=1 mesgc mesgc:residual=0.1 cesgc",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each method: --seed, --seed + 1, …")
    ] = 3,
    model: options.Model = "minilm",
    data: options.Data = "rotten-tomatoes",
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    group_column: options.GroupColumn = None,
    targets: options.Targets = "query,value",
    pooling: options.Pooling = "auto",
    steps: options.Steps = 560,
    batch_size: options.BatchSize = 16,
    max_length: options.MaxLength = 48,
    group_by_length: options.GroupByLength = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    out: options.Out = options.OUT,
    beside: options.Beside = None,
) -> None:
    """Fine-tune with several methods and seeds, and print one table with mean ± s.e.

    Data order, head and dropout are the same for every method of a seed. Runs that --out already
    has are not repeated; an interrupted comparison goes on when the same command is given again.
    """
    console = Console()
    with clean_errors():
        chosen = [resolve_method(spec) for spec in methods or comparison.DEFAULT_METHODS]
        config = FinetuneConfig(
            method=chosen[0].spec,
            lr=chosen[0].lr,
            model=model,
            data=data,
            text_column=text_column,
            label_column=label_column,
            group_column=group_column,
            targets=targets,
            pooling=pooling,  # type: ignore[arg-type] # checked by the config
            steps=steps,
            batch_size=batch_size,
            max_length=max_length,
            group_by_length=group_by_length,
            seed=seed,
            device=device,
        )
        results = comparison.compare(config, chosen, seeds=seeds, folder=out, console=console)
        comparison.show(results, folder=out, console=console, beside=beside)
