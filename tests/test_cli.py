"""The command line as a whole: quick help, commands as the list says, and options explained."""

import inspect

import pytest
from typer.testing import CliRunner

import sgc
from sgc.cli import COMMANDS, app, load
from sgc.cli.meanings import arguments, meaning
from sgc.options import takes_options_of
from sgc.registry import MissingDependencyError, option_names, resolve
from tests.test_registry import run_python

PLUGINS = [(kind, name) for kind in sgc.KINDS for name in sgc.available(kind)]


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["list", *arguments])


def test_help_imports_nothing_heavy():
    out = run_python(
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from sgc.cli import app\n"
        "done = CliRunner().invoke(app, ['--help'])\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'scipy', 'matplotlib', 'transformers'}\n"
        "print(done.exit_code, 'finetune' in done.output, sorted(heavy & set(sys.modules)))"
    )
    assert out.strip() == "0 True []"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_what_the_list_says(name):
    command = load(name)
    assert inspect.cleandoc(command.help).partition("\n")[0] == COMMANDS[name][1]
    assert getattr(command, "commands", None) or command.epilog.startswith("Example: sgc")
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "--help" in done.output


def test_an_unknown_command_is_answered_with_the_nearest():
    done = CliRunner().invoke(app, ["fintune"])
    assert done.exit_code == 2
    assert "'finetune'" in done.output


def test_the_public_names_are_all_there():
    assert set(sgc.__all__) <= set(dir(sgc))
    assert all(getattr(sgc, name) is not None for name in sgc.__all__)
    with pytest.raises(AttributeError, match="'sgc' has no attribute 'plam'"):
        sgc.plam  # noqa: B018


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_option_of_every_part_is_explained(kind, name):
    try:
        part = resolve(kind, name)
    except MissingDependencyError:
        pytest.skip("cannot be imported here")
    said = {option: meaning(part, option) for option in option_names(kind, name)}
    assert not [o for o, text in said.items() if not text or text.startswith("see ")]
    assert not [o for o, text in said.items() if "``" in text or ":class:" in text]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_options_of_a_part_are_listed(kind, name, listed):
    done = listed(kind, name)
    try:
        resolve(kind, name)
    except MissingDependencyError:
        assert done.exit_code == 2
        return
    assert done.exit_code == 0, done.output
    for option in option_names(kind, name):
        assert any(line.split()[:1] == [option] for line in done.output.splitlines()), option


def test_an_option_has_its_type_default_and_meaning(listed):
    rows = {
        line.split()[0]: line
        for line in listed("compressor", "mesgc").output.splitlines()
        if line.strip()
    }
    assert rows["sparsity"].split()[:3] == ["sparsity", "int", "256"]
    assert "entries kept of the whole parameter" in rows["sparsity"]
    assert "str | Solver" in rows["recovery"]
    assert "sgc list recovery" in rows["recovery"]


def test_wrong_names_are_answered_with_the_nearest(listed):
    for arguments_, nearest in [(("compressor", "mesg"), "mesgc"), (("sorce", "svd"), "source")]:
        done = listed(*arguments_)
        assert done.exit_code == 2
        assert f"did you mean '{nearest}'" in done.output


def test_those_who_ask_in_the_wrong_place_are_sent_on(listed):
    answers = {
        "mesgc": "mesgc is a compressor: sgc list compressor mesgc",
        "apollo": "apollo is a residual and a compressor: sgc list residual apollo, sgc list comp",
        "studies": "sgc study list",
        "study": "sgc study list",
    }
    for word, answer in answers.items():
        done = listed(word)
        assert done.exit_code == 2
        assert answer in done.output
    assert "sgc list compressor mesgc" in listed("mesgc", "sparsity").output


def test_a_part_without_options_or_with_any(listed):
    assert "no options" in listed("compressor", "sgd").output

    @sgc.register("decode", "test-anything")
    class Anything:
        """Takes what comes."""

        def __init__(self, **options): ...

    try:
        assert "any option" in listed("decode", "test-anything").output
    finally:
        sgc.unregister("decode", "test-anything")


class Base:
    """Below.

    Args:
        size, depth: how large,
            in all.
        seed: see :class:`tests.test_cli.Elsewhere`.
    """


class Elsewhere:
    """Linked.

    Args:
        seed: ``of`` the draw: any number.
    """


class Inner:
    """Passed on.

    Args:
        alpha: α.

    Raises:
        alpha: no entry of Args.
    """

    def __init__(self, *, alpha=1.0): ...


class Part(Base):
    """Above.

    Args:
        depth: see there.
    """

    @takes_options_of(Inner)
    def __init__(self, *, size=1, depth=1, seed=0, **options): ...


def test_meanings_are_found_where_the_docstring_sends_one():
    assert arguments(Inner) == {"alpha": "α."}
    assert meaning(Part, "size") == meaning(Part, "depth") == "how large, in all."
    assert meaning(Part, "seed") == "of the draw: any number."
    assert meaning(Part, "alpha") == "α."
    assert meaning(Part, "nothing") == ""
