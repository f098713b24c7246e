"""The command line, assembled from one module per command."""

import typer

from sgc.cli import bench, compare, finetune, races, study, validate
from sgc.cli import list as list_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="sgc",
    help="Sparse gradient compression: fine-tune with optimizer states of a few hundred numbers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

app.command("list", epilog=list_command.EXAMPLE)(list_command.list_parts)
app.command("finetune", epilog=finetune.EXAMPLE)(finetune.finetune)
app.command("compare", epilog=compare.EXAMPLE)(compare.compare)
app.command("races", epilog=races.EXAMPLE)(races.races)
app.command("validate", epilog=validate.EXAMPLE)(validate.validate)
app.add_typer(bench.app, name="bench")
app.command(
    "study",
    epilog=study.EXAMPLE,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,  # the studies' own
)(study.study)
# Further commands: one module each, one line here.


def main() -> None:
    """Entry point of the installed command."""
    app(prog_name="sgc")
