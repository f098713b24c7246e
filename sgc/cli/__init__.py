"""The command line, assembled from one module per command, which is imported when it is called."""

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "app", "load", "main"]

#: Each command: the function or ``typer.Typer`` that it is, and the first line of its help.
COMMANDS = {
    "list": (
        "sgc.cli.list:list_parts",
        "List the parts that can be chosen by name, with their options.",
    ),
    "finetune": (
        "sgc.cli.finetune:finetune",
        "Fine-tune a pre-trained transformer on labelled texts with one method.",
    ),
    "compare": (
        "sgc.cli.compare:compare",
        "Fine-tune with several methods and seeds, and print one table with mean ± s.e.",
    ),
    "races": (
        "sgc.cli.races:races",
        "Show races at equal bytes again: a table for each budget, and a picture.",
    ),
    "validate": (
        "sgc.cli.validate:validate",
        "Hold every solver against scikit-learn's orthogonal_mp in float64, and against hard "
        "inputs.",
    ),
    "bench": ("sgc.cli.bench:app", "Measure speed against rivals and floors, in one run."),
    "study": (
        "sgc.cli.study:study",
        "Measure what the papers claim, one study per question: list, run, figure.",
    ),
}
# Further commands: one module each, one entry here.

_STYLE: dict[str, Any] = {
    "rich_markup_mode": "markdown",
    "add_completion": False,
    "pretty_exceptions_show_locals": False,
}


def load(name: str) -> Any:
    """The command itself, with its options: its module, and with it torch, is imported now.

    The module's ``EXAMPLE`` ends its help, ``SETTINGS`` are further ones of ``typer``.
    """
    where, _, attribute = COMMANDS[name][0].partition(":")
    module = importlib.import_module(where)
    found = getattr(module, attribute)
    if not isinstance(found, typer.Typer):
        settings = getattr(module, "SETTINGS", {})
        command, found = found, typer.Typer(**_STYLE)
        found.command(name, epilog=module.EXAMPLE, **settings)(command)
    return typer.main.get_command(found)


class _Lazy(TyperGroup):
    """Commands of which a name and a line are known until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


app = typer.Typer(
    name="sgc",
    cls=_Lazy,
    help="Sparse gradient compression: fine-tune with optimizer states of a few hundred numbers.",
    no_args_is_help=True,
    **_STYLE,
)
for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)


def main() -> None:
    """Entry point of the installed command."""
    app(prog_name="sgc")
