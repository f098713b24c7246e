"""``sgc finetune``: the main job."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sgc.cli import options
from sgc.cli.errors import clean_errors
from sgc.finetune import FinetuneConfig, resolve_method, run
from sgc.finetune.compare import runs_like, show
from sgc.finetune.defaults import short_label
from sgc.finetune.methods import METHODS
from sgc.specs import Spec

EXAMPLE = (
    "Example: sgc finetune --compressor mesgc:sparsity=48,residual=0.1 --recovery omp "
    "--data reviews.csv --text-column review --label-column stars"
)
PARTS = "Compressor"


@options.takes_task
def finetune(
    *,
    compressor: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help=f"NAME or NAME:OPTION=VALUE,… with {', '.join(METHODS)} or a compressor of "
            "'sgc list'. Options of its parts have a dot: galore:inner=mesgc,inner.sparsity=48.",
            rich_help_panel=PARTS,
        ),
    ] = "mesgc:residual=0.1",
    recovery: Annotated[
        str | None,
        typer.Option(help="Short for recovery=… in SPEC.", rich_help_panel=PARTS),
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(help="Short for projection=… in SPEC.", rich_help_panel=PARTS),
    ] = None,
    chunker: Annotated[
        str | None,
        typer.Option(help="Short for chunker=… in SPEC.", rich_help_panel=PARTS),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(help="Short for decode=… in SPEC.", rich_help_panel=PARTS),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate of what the method trains.",
            show_default="the method's own",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    task: dict[str, Any],
    out: options.Out = options.OUT,
    beside: options.Beside = None,
    save_model: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Also save the fine-tuned model and tokenizer here."),
    ] = None,
) -> None:
    """Fine-tune a pre-trained transformer on labelled texts with one method.

    The targets (query and value matrices by default) train with the compressor, or what the method
    puts in their place does (adapters, biases, nothing); the head trains with plain AdamW, and
    nothing else does. Ends with a table and a plot of all runs on the same task
    in --out. An interrupted run goes on when the same command is given again; a finished one is
    not repeated.
    """
    console = Console()
    with clean_errors():
        parts = {
            "recovery": recovery,
            "projection": projection,
            "chunker": chunker,
            "decode": decode,
        }
        spec = Spec.parse(compressor).updated(**{k: v for k, v in parts.items() if v is not None})
        method = resolve_method(spec, lr=lr)
        config = FinetuneConfig(
            method=method.spec,
            lr=method.lr,
            **task,
        )
        result = run(config, folder=out, console=console, save_to=save_model)
        label = short_label(method.spec, lr=method.lr)
        runs = runs_like(result, folder=out)
        show(runs, folder=out, console=console, highlight=label, beside=beside)
