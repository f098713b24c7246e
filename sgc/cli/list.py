"""``sgc list``: every part that has a name, and the options of one."""

import inspect
import re
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sgc.cli.errors import clean_errors
from sgc.cli.meanings import meaning, plain
from sgc.registry import (
    KINDS,
    MissingDependencyError,
    UnknownPluginError,
    available,
    option_names,
    parameters_of,
    parts_of,
    resolve,
)

EXAMPLE = "Example: sgc list recovery; sgc list compressor mesgc"


def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default="all"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="Explain the options of this one.", show_default=False),
    ] = None,
) -> None:
    """List the parts that can be chosen by name, with their options."""
    console = Console()
    with clean_errors():
        if kind is not None and kind not in KINDS:
            _say_what_it_is(kind)
        if kind is not None and name is not None:
            _explain(kind, name, console)
            return
        names = {each: available(each) for each in (KINDS if kind is None else (kind,))}
    for each, found in names.items():
        table = Table(each, "what it is; its options", box=box.SIMPLE_HEAD, expand=True)
        table.columns[0].min_width = max(map(len, found), default=0)
        table.columns[1].ratio = 1
        for one in found:
            table.add_row(Text(one, style="bold"), _describe(each, one))
        console.print(table)
    console.print("what an option means: sgc list KIND NAME", style="dim", highlight=False)


def _say_what_it_is(word: str) -> None:
    """Send those on who ask for something that is listed elsewhere.

    Raises:
        UnknownPluginError: it is a part's name, or the studies'.
    """
    if word in ("study", "studies"):
        raise UnknownPluginError("the studies have a list of their own: sgc study list")
    kinds = [kind for kind in KINDS if word in available(kind)]
    if kinds:
        said = " and ".join(f"a {kind}" for kind in kinds)
        calls = ", ".join(f"sgc list {kind} {word}" for kind in kinds)
        raise UnknownPluginError(f"{word} is {said}: {calls}")


def _describe(kind: str, name: str) -> Text:
    try:
        part, options = resolve(kind, name), _options(kind, name)
    except MissingDependencyError as error:
        return Text(f"not usable here: {error}", style="yellow")
    listed = "any" if options is None else ", ".join(options) or "none"
    return Text.assemble(_summary(part), ("\noptions: " + listed, "dim"))


def _options(kind: str, name: str) -> list[str] | None:
    """``option=default`` of a part, ``option`` alone where it must be given."""
    names = option_names(kind, name)
    if names is None:
        return None
    parameters = parameters_of(kind, name)
    defaults = {option: parameters[option].default for option in names}
    return [
        option if default is inspect.Parameter.empty else f"{option}={default}"
        for option, default in defaults.items()
    ]


def _explain(kind: str, name: str, console: Console) -> None:
    """What a part is, and a row for each of its options: type, default, meaning."""
    part = resolve(kind, name)
    console.print(Text.assemble((f"{kind} {name}: ", "bold"), _summary(part)), soft_wrap=True)
    names = option_names(kind, name)
    if not names:
        console.print("It takes any option." if names is None else "It has no options.")
        return
    parameters, parts = parameters_of(kind, name), parts_of(kind, name)
    table = Table("option", "type", "default", "meaning", box=box.SIMPLE_HEAD, expand=True)
    table.columns[0].no_wrap = True
    table.columns[3].ratio = 1
    for option in names:
        given = parameters[option].default
        said = Text(meaning(part, option))
        if option in parts:
            said.append(f"{' ' * bool(said)}Names: sgc list {parts[option][0]}.", style="dim")
        default = "must be given" if given is inspect.Parameter.empty else str(given)
        kinds = Text(_type(parameters[option].annotation))
        table.add_row(Text(option, style="bold"), kinds, Text(default), said)
    console.print(table)


def _type(annotation: Any) -> str:
    """``float | str | Residual``, without the modules."""
    if annotation is inspect.Parameter.empty:
        return ""
    return re.sub(r"(?:\w+\.)+(?=\w)", "", inspect.formatannotation(annotation))


def _summary(part: Any) -> str:
    return plain((inspect.getdoc(part) or "").partition("\n")[0])
