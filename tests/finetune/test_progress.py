"""What is said while a run goes on."""

import io

from rich.console import Console

from sgc.finetune.progress import tell_compiling


def test_compiling_is_said_once_on_a_console() -> None:
    first, second = (Console(file=io.StringIO(), width=200) for _ in "12")
    for console in (first, first, second):
        tell_compiling(console)
    for console in (first, second):
        assert console.file.getvalue().count("compiling the model's layers") == 1
