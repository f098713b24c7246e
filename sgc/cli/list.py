"""``sgc list``: every part that has a name."""

import inspect
import re
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgc.cli.errors import clean_errors
from sgc.registry import KINDS, MissingDependencyError, available, option_names, resolve

EXAMPLE = "Example: sgc list recovery"


def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default="all"),
    ] = None,
) -> None:
    """List the parts that can be chosen by name, with their options."""
    with clean_errors():
        names = {each: available(each) for each in (KINDS if kind is None else (kind,))}
    console = Console()
    for each, found in names.items():
        table = Table(each, "what it is; its options", box=box.SIMPLE_HEAD, expand=True)
        table.columns[0].min_width = max(map(len, found), default=0)
        table.columns[1].ratio = 1
        for name in found:
            table.add_row(Text(name, style="bold"), _describe(each, name))
        console.print(table)


def _describe(kind: str, name: str) -> Text:
    try:
        part, options = resolve(kind, name), _options(kind, name)
    except MissingDependencyError as error:
        return Text(f"not usable here: {error}", style="yellow")
    summary = (inspect.getdoc(part) or "").partition("\n")[0]
    listed = "any" if options is None else ", ".join(options) or "none"
    return Text.assemble(_plain(summary), ("\noptions: " + listed, "dim"))


def _options(kind: str, name: str) -> list[str] | None:
    """``option=default`` of a part, ``option`` alone where it must be given."""
    names = option_names(kind, name)
    if names is None:
        return None
    parameters = inspect.signature(resolve(kind, name)).parameters
    defaults = {option: parameters[option].default for option in names}
    return [
        option if default is inspect.Parameter.empty else f"{option}={default}"
        for option, default in defaults.items()
    ]


def _plain(text: str) -> str:
    """Docstring markup removed: ``code`` and :class:`~module.Name` become code and Name."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return text.replace("``", "")
