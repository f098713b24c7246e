"""Options that several commands share."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sgc.finetune.config import FinetuneConfig

DATA = "Data"
TRAINING = "Training"

Model = Annotated[
    str,
    typer.Option(
        envvar="SGC_MODEL",
        help="'minilm', 'smollm2' (embedded), or a Hugging Face model directory.",
        rich_help_panel=DATA,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="'rotten-tomatoes', 'boolq', 'piqa', 'siqa', 'openbookqa', 'commonsenseqa' "
        "(embedded), or a .csv, .tsv, .jsonl, .json file (or .gz, .bz2).",
        rich_help_panel=DATA,
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the texts, or two for text pairs, as in question,passage: the second one "
        "is cut to --max-length. If it holds lists, they are answers to choose from.",
        show_default="the data set's own, or text",
        rich_help_panel=DATA,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the classes.",
        show_default="the data set's own, or label",
        rich_help_panel=DATA,
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        help="Rows with the same value here stay on one side of the training/test split.",
        show_default="the data set's own, or split by text, of a pair by the second one",
        rich_help_panel=DATA,
    ),
]
ExamplesOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Train on so many examples at most; the same ones for every method and seed.",
        show_default="all",
        rich_help_panel=DATA,
    ),
]
TestExamples = Annotated[
    int,
    typer.Option(
        min=0,
        help="Measure accuracy on so many examples at most.",
        show_default="all",
        rich_help_panel=DATA,
    ),
]
Targets = Annotated[
    str,
    typer.Option(
        help="Matrices to train: query, key, value, or regular expressions of parameter names.",
        rich_help_panel=TRAINING,
    ),
]
Pooling = Annotated[
    str,
    typer.Option(
        help="What the head sees: 'model' (the classifier of transformers), 'mean' of the tokens, "
        "'likelihood' of answers to choose from, under a language model; 'auto' takes what the "
        "model was made for.",
        rich_help_panel=TRAINING,
    ),
]
Steps = Annotated[int, typer.Option(min=1, help="Optimizer steps.", rich_help_panel=TRAINING)]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples a step.", rich_help_panel=TRAINING)]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Examples that go through the model at a time; gradients of a batch are summed.",
        show_default="the whole batch",
        rich_help_panel=TRAINING,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="'full', or 'autocast': matrix products in bfloat16, weights as they are.",
        rich_help_panel=TRAINING,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Fuse the model's layers with torch.compile: faster steps on a GPU, a slow first one.",
        rich_help_panel=TRAINING,
    ),
]
DType = Annotated[
    str, typer.Option(help="Of the weights: float32 or bfloat16.", rich_help_panel=TRAINING)
]
MaxLength = Annotated[
    int, typer.Option(min=4, help="Tokens a text is cut to.", rich_help_panel=TRAINING)
]
GroupByLength = Annotated[
    bool,
    typer.Option(
        "--group-by-length",
        help="Texts of like length share a batch: faster on a CPU, slightly less accurate.",
        rich_help_panel=TRAINING,
    ),
]
Beside = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Show the runs of this results file in the table and the plot, too (in grey).",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, help="Of the data order, the head, dropout and A.", rich_help_panel=TRAINING
    ),
]
Device = Annotated[
    str,
    typer.Option(help="auto (a GPU if there is one), cpu, cuda, …", rich_help_panel=TRAINING),
]
Out = Annotated[
    Path,
    typer.Option(file_okay=False, help="Folder of results, plot and checkpoints."),
]

OUT = Path("runs/finetune")

#: Options of a fine-tuning task, by the field of :class:`FinetuneConfig` that each of them fills.
TASK: dict[str, Any] = {
    "model": Model,
    "data": Data,
    "text_column": TextColumn,
    "label_column": LabelColumn,
    "group_column": GroupColumn,
    "examples": ExamplesOption,
    "test_examples": TestExamples,
    "targets": Targets,
    "pooling": Pooling,
    "steps": Steps,
    "batch_size": BatchSize,
    "micro_batch": MicroBatch,
    "max_length": MaxLength,
    "group_by_length": GroupByLength,
    "seed": Seed,
    "device": Device,
    "dtype": DType,
    "precision": Precision,
    "compile": Compile,
}


def takes_task(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :data:`TASK` in the place of its keyword ``task``.

    It gets them as a dict of the config's fields. Defaults are the config's own, but the device is
    looked for.
    """
    defaults = {each.name: each.default for each in dataclasses.fields(FinetuneConfig)}
    defaults["device"] = "auto"
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != "task":
            shown.append(parameter)
            continue
        shown += [
            parameter.replace(name=name, default=defaults[name], annotation=option)
            for name, option in TASK.items()
        ]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        task = {name: given.pop(name) for name in TASK}
        command(**given, task=task)

    setattr(called, "__signature__", inspect.Signature(shown))  # noqa: B010
    return called
