"""``sgc study``: the studies' own command line, where there are studies."""

import importlib
from typing import Annotated

import typer

from sgc.registry import MissingDependencyError

EXAMPLE = "Example: sgc study run kappa --preset smoke"
SETTINGS = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,  # the studies' own
}


def study(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="list|run|figure [NAME]...", show_default=False),
    ] = None,
) -> None:
    """Measure what the papers claim, one study per question: list, run, figure.

    The same as python -m studies; see sgc study run --help.
    """
    try:
        # They stand above this package and import it: they are looked up when they are asked for.
        module = importlib.import_module("studies.cli")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the studies cannot be run: {error}", name=error.name
        ) from error
    module.main([*(arguments or ["--help"])], program="sgc study")
