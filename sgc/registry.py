"""Parts by name: one table of built-ins, entry points for everybody else.

Names resolve lazily. Listing imports nothing; creating imports the one module that is needed.
"""

import difflib
import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from sgc.builtin import BUILTIN

KINDS = tuple(BUILTIN)

#: Options that choose a part under another name than its kind's.
_KIND_OF_OPTION = {"inner": "compressor"}

#: What to install for a module that a built-in may miss.
_INSTALL = {"cupy": "cupy-cuda13x (or cupy-cuda12x; it needs an NVIDIA GPU)"}

_registered: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}
_F = TypeVar("_F", bound=Callable[..., Any])


class UnknownPluginError(LookupError):
    """No plug-in of that name; the message lists what exists and the nearest name."""


class DuplicatePluginError(ValueError):
    """The name is taken."""


class UnknownOptionError(TypeError):
    """The plug-in has no such option; the message lists the valid ones."""


class MissingDependencyError(ImportError):
    """The plug-in exists, but a package or device that it needs does not; says what to install."""


def available(kind: str) -> list[str]:
    """Names of a kind, sorted: built-in, registered and from entry points. Imports none of them.

    Raises:
        UnknownPluginError: no such kind.

    Example:
        >>> available("chunker")
        ['contiguous', 'permuted', 'strided']
    """
    _check_kind(kind)
    return sorted({*BUILTIN[kind], *_registered[kind], *_entry_points(kind)})


@overload
def register(kind: str, name: str) -> Callable[[_F], _F]: ...
@overload
def register(kind: str, name: str, factory: _F) -> _F: ...
def register(kind: str, name: str, factory: Any = None) -> Any:
    """Add a plug-in: as a decorator on a class or function, or with the factory as third argument.

    Raises:
        DuplicatePluginError: the name exists already.
        UnknownPluginError: no such kind.

    Example:
        >>> @register("chunker", "doctest-reversed")
        ... class Reversed: ...
        >>> "doctest-reversed" in available("chunker")
        True
        >>> unregister("chunker", "doctest-reversed")
    """
    _check_kind(kind)
    if name in available(kind):
        raise DuplicatePluginError(
            f"there is a {kind} called {name!r} already; choose another name"
        )

    def add(target: Any) -> Any:
        _registered[kind][name] = target
        return target

    return add if factory is None else add(factory)


def unregister(kind: str, name: str) -> None:
    """Remove a plug-in that :func:`register` added (for tests and notebooks)."""
    _check_kind(kind)
    if name not in _registered[kind]:
        raise UnknownPluginError(f"no {kind} called {name!r} was added by register()")
    del _registered[kind][name]


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The class or function behind a name, imported now.

    Raises:
        UnknownPluginError: no such kind or name.
        MissingDependencyError: its module needs a package that is not installed.
    """
    _check_kind(kind)
    if name in _registered[kind]:
        return _registered[kind][name]
    try:
        if name in BUILTIN[kind]:
            module, _, attribute = BUILTIN[kind][name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name in _entry_points(kind):
            return _entry_points(kind)[name].load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        hint = _INSTALL.get(package, package)
        raise MissingDependencyError(
            f"the {kind} {name!r} needs the package {package!r}, which is not installed; "
            f"install it: pip install {hint}",
            name=error.name,
        ) from error
    names = available(kind)
    raise UnknownPluginError(
        f"unknown {kind} {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}"
    )


def create(kind: str, name: str, /, *args: Any, **options: Any) -> Any:
    """Make a part by name: ``create("projection", "srht", k, d, seed=1)``.

    Options of a part's own parts have a dot: ``residual="sign"`` chooses one by name, and
    ``**{"residual.scale": 0.3}`` is an option of it.

    Raises:
        UnknownPluginError: no such kind or name.
        UnknownOptionError: an option that the part does not have.
        MissingDependencyError: the part needs a package or a device that is not there.

    Example:
        >>> create("chunker", "contiguous", chunks=2).chunks
        2
    """
    factory = resolve(kind, name)
    options = _with_parts(kind, name, options)
    valid = option_names(kind, name)
    unknown = sorted(set(options) - set(valid)) if valid is not None else []
    if valid is not None and unknown:
        raise UnknownOptionError(
            f"the {kind} {name!r} has no option {unknown[0]!r}{did_you_mean(unknown[0], valid)}; "
            f"its options are: {', '.join(valid) or 'none'}"
        )
    try:
        return factory(*args, **options)
    except ImportError as error:
        raise MissingDependencyError(f"the {kind} {name!r} cannot be made here: {error}") from error


def _with_parts(kind: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options in which the parts that have options of their own are made."""
    plain = {key: value for key, value in options.items() if "." not in key}
    of_parts: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        part, dot, option = key.partition(".")
        if dot:
            of_parts.setdefault(part, {})[option] = value
    parts = parts_of(kind, name) if of_parts else {}
    for part, given in of_parts.items():
        wanted = f"{part}.{next(iter(given))}"
        if part not in parts:
            raise UnknownOptionError(
                f"the {kind} {name!r} has no part {part!r}, so {wanted} is no option of it; "
                f"parts are named by: {', '.join(parts) or 'none'}"
            )
        part_kind, default = parts[part]
        if part_kind == "projection":
            raise UnknownOptionError(
                f"{wanted}: a projection is chosen by its name alone; its sizes and seed are those "
                f"of the {kind} (seed=…)"
            )
        chosen = plain.get(part, default)
        if not isinstance(chosen, str):
            raise UnknownOptionError(
                f"{wanted} is an option of a part, but {part}={chosen!r} names none: give "
                f"{part}=NAME, one of {', '.join(available(part_kind))}"
            )
        plain[part] = create(part_kind, chosen, **given)
    return plain


def parts_of(kind: str, name: str) -> dict[str, tuple[str, Any]]:
    """Options of a part that choose a part: option → the kind chosen from, and the default.

    Example:
        >>> parts_of("compressor", "galore")["inner"]
        ('compressor', 'none')
    """
    parameters = parameters_of(kind, name)
    return {
        option: (_KIND_OF_OPTION.get(option, option), parameters[option].default)
        for option in option_names(kind, name) or []
        if _KIND_OF_OPTION.get(option, option) in KINDS
    }


def option_names(kind: str, name: str) -> list[str] | None:
    """Keyword options of a part, in order; None when it takes any keyword."""
    parameters = parameters_of(kind, name).values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def parameters_of(kind: str, name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a part's constructor, with their types and defaults."""
    return _parameters(resolve(kind, name))


@functools.lru_cache(maxsize=512)
def _parameters(factory: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(factory).parameters


def did_you_mean(name: str, names: list[str]) -> str:
    """``" (did you mean 'x'?)"`` when something is near, else nothing."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownPluginError(
            f"unknown kind {kind!r}{did_you_mean(kind, list(KINDS))}; there are: {', '.join(KINDS)}"
        )


@functools.cache
def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=f"sgc.{kind}"):
        taken = found.get(point.name)
        if point.name in BUILTIN[kind] or (taken is not None and taken.value != point.value):
            raise DuplicatePluginError(
                f"the installed package behind {point.value!r} brings a {kind} called "
                f"{point.name!r}, but that name is taken; uninstall one of the two"
            )
        found[point.name] = point
    return found
