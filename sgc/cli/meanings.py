"""What an option of a part means, as the ``Args`` of its docstring say."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from sgc.options import shown_from

_LINK = re.compile(r":\w+:`~?([\w.]+)`")


def meaning(part: Any, option: str) -> str:
    """One paragraph on an option; empty where nothing is said.

    An option that is passed on, or of which the docstring says "see" another part, is looked up
    there: in the parts linked, the classes that this one comes from, and those whose options it
    shows as its own (:func:`sgc.options.takes_options_of`).
    """
    own = arguments(part).get(option, "")
    if own and not own.startswith("see "):
        return plain(own)
    for other in (*_linked(own), *_above(part)):
        found = meaning(other, option)
        if found and not found.startswith("see "):
            return found
    return plain(own)


def arguments(part: Any) -> dict[str, str]:
    """The entries of a docstring's ``Args``; one that names several arguments counts for each.

    Example:
        >>> def f(a, b): '''Add.
        ...
        ...     Args:
        ...         a, b: numbers,
        ...             of any size.
        ...     '''
        >>> arguments(f)["b"]
        'numbers, of any size.'
    """
    lines = iter(inspect.cleandoc(vars(part).get("__doc__") or part.__doc__ or "").splitlines())
    entries: dict[str, str] = {}
    names: list[str] = []
    if "Args:" not in lines:  # goes on behind it
        return entries
    for line in lines:
        if line and not line.startswith(" "):
            break
        head, colon, text = line.strip().partition(": ")
        indented = len(line) - len(line.lstrip())
        if colon and indented == 4 and re.fullmatch(r"[\w, ]+", head):
            names = head.split(", ")
            entries.update(dict.fromkeys(names, text))
        elif line.strip():
            entries.update({name: f"{entries[name]} {line.strip()}" for name in names})
    return entries


def plain(text: str) -> str:
    """Docstring markup removed: ``code`` and :class:`~module.Name` become code and Name."""
    return _LINK.sub(lambda found: found[1].rpartition(".")[2], text).replace("``", "")


def _linked(text: str) -> Iterator[Any]:
    """The classes that a text links to."""
    for path in _LINK.findall(text):
        module, _, name = path.rpartition(".")
        try:
            yield getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError):  # a module, or a name without one
            continue


def _above(part: Any) -> Iterator[Any]:
    bases = inspect.getmro(part)[1:-1] if inspect.isclass(part) else ()
    for each in (part, *bases):
        if each is not part:
            yield each
        if (inner := shown_from(each)) is not None:
            yield inner
