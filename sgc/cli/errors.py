"""Mistakes of the user end in one clear sentence; mistakes of ours keep their traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from sgc.budget import BudgetError
from sgc.finetune.checkpoint import CheckpointError
from sgc.finetune.config import ConfigError
from sgc.finetune.job import RunBusyError
from sgc.finetune.model import ModelError
from sgc.finetune.readers import DataError
from sgc.finetune.targets import TargetError
from sgc.finetune.train import Interrupted
from sgc.registry import MissingDependencyError, UnknownOptionError, UnknownPluginError
from sgc.results import ResultStoreError
from sgc.specs import SpecError

__all__ = ["clean_errors"]

_USAGE = 2
_FAILURE = 1
_INTERRUPTED = 130  # what a shell reports for Ctrl-C


@contextmanager
def clean_errors() -> Iterator[None]:
    """Print the expected errors without a traceback and leave: code 2 for what was asked wrongly,
    1 for what failed on the way, 130 after Ctrl-C or SIGTERM.
    """
    try:
        yield
    except (
        *(UnknownPluginError, UnknownOptionError, MissingDependencyError, SpecError),
        *(ConfigError, DataError, ModelError, TargetError, BudgetError),
    ) as error:
        raise _leave(error, _USAGE) from error
    except (ResultStoreError, RunBusyError, CheckpointError) as error:
        raise _leave(error, _FAILURE) from error
    except OSError as error:  # a full disk, a file where a folder should be
        raise _leave(error, _FAILURE) from error
    except Interrupted as stop:
        raise typer.Exit(_INTERRUPTED) from stop
    except KeyboardInterrupt as stop:
        _leave(RuntimeError("interrupted; the same command goes on from what is saved"), 0)
        raise typer.Exit(_INTERRUPTED) from stop


def _leave(error: Exception, code: int) -> typer.Exit:
    Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
    return typer.Exit(code)
