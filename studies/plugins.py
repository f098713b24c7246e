"""The registered parts that a study asks about: a new one is in every study by itself.

Worker processes start without what ``sgc.register`` added: a :class:`Handover` brings it to them.
"""

import hashlib
import importlib.metadata
import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recovery import Solver
from sgc.builtin import BUILTIN
from sgc.finetune.config import ConfigError
from sgc.registry import MissingDependencyError, available, create, register, resolve

__all__ = [
    "Handover",
    "NotForWorkersError",
    "adopt",
    "chunkers",
    "digests",
    "ensembles",
    "handover",
    "load",
    "main_script",
    "outdated",
    "read_by",
    "solvers",
]

_ERRORS = (pickle.PicklingError, AttributeError, TypeError)  # of what cannot be pickled
_files: dict[Path, str] = {}  # loaded here, in their order → digest
_of_files: dict[tuple[str, str], Path] = {}  # kind and name of what they registered → file


class NotForWorkersError(RuntimeError):
    """Some parts exist in this process alone."""


@dataclass(frozen=True)
class Handover:
    """What a worker needs to know the same parts.

    Args:
        files: plug-in files, to be imported.
        parts: pickled triples of kind, name and factory, which the worker's imports find.
    """

    files: tuple[Path, ...]
    parts: bytes


def solvers(device: str = "cpu") -> list[str]:
    """Recovery algorithms that can be made here and take tensors of a device.

    ``auto`` is none: it hands on to another one.
    """
    names = tuple(name for name in available("recovery") if name != "auto")
    return list(_that_take(names, device.partition(":")[0]))


def ensembles() -> list[str]:
    """Projections that compress; ``identity`` does not."""
    return [name for name in available("projection") if name != "identity"]


def chunkers() -> list[str]:
    """Ways to cut a gradient."""
    return available("chunker")


def load(path: Path) -> None:
    """Import a plug-in file, once a process: it calls ``sgc.register``.

    Raises:
        ConfigError: no such file, or it cannot be imported.
    """
    path = path.resolve()
    if path in _files:
        return
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--plugin {path}: no such file, or none of Python (.py)")
    said = path.read_bytes()
    digest = hashlib.sha256(said).hexdigest()[:12]
    name = f"sgc_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--plugin {path}: Python knows no way to import it")
    before = _registered()
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        exec(compile(said, path, "exec"), vars(module))  # what the digest is of: no old bytecode
    except Exception as error:  # it may raise anything
        del sys.modules[name]
        raise ConfigError(
            f"--plugin {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    _files[path] = digest
    new = _registered() - before - _of_files.keys()  # it may have loaded another file
    _of_files.update(dict.fromkeys(new, path))


def digests() -> dict[str, str]:
    """Plug-in files loaded here, by name: 12 hexadecimal digits of what they say.

    Files of one name in several folders share an entry.
    """
    found: dict[str, str] = {}
    for path, digest in sorted(_files.items()):
        found[path.name] = f"{found[path.name]}+{digest}" if path.name in found else digest
    return found


def read_by(config: Mapping[str, Any]) -> dict[str, str]:
    """Those of :func:`digests` whose parts a trial's config names, as a value or within a spec.

    Parts that such a part uses without the config's naming them are not known here.
    """
    texts, now = list(_texts(config)) if _of_files else [], digests()
    return {
        path.name: now[path.name]
        for (_, part), path in _of_files.items()
        if any(re.search(rf"(?<![\w.-]){re.escape(part)}(?![\w.-])", text) for text in texts)
    }


def outdated(config: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Plug-in files that a row's config names parts of, and that were others when it was made.

    Args:
        config, environment: of the row.
    """
    then = environment.get("plugins") or {}
    return sorted(name for name, now in read_by(config).items() if then.get(name) != now)


def handover() -> Handover:
    """What was added here since the start, for :func:`adopt`.

    Raises:
        NotForWorkersError: a part that another process cannot import, such as a notebook's class.
    """
    parts, stay = [], []
    for kind, name in sorted(_registered() - _of_files.keys()):
        factory = resolve(kind, name)
        try:
            dumped = pickle.dumps(factory)
        except _ERRORS:
            stay.append(f"the {kind} {name!r}")
            continue
        if b"__main__" in dumped and main_script() is None:
            stay.append(f"the {kind} {name!r}")
        parts.append((kind, name, factory))
    if stay:
        raise NotForWorkersError(
            f"{', '.join(stay)} is known to this process alone: put it into a file and take "
            "--plugin FILE.py (or studies.plugins.load), or import it from a module"
        )
    return Handover(tuple(_files), pickle.dumps(parts))


@lru_cache
def adopt(given: Handover) -> None:
    """Know the parts of the process that asked.

    Raises:
        ConfigError: a plug-in file cannot be imported.
        AttributeError, ImportError: a part cannot be found here.
    """
    for path in given.files:
        load(path)
    for kind, name, factory in pickle.loads(given.parts):
        if name not in available(kind):  # importing its module may have done it
            register(kind, name, factory)


def main_script() -> Path | None:
    """What workers import again; None for ``python -m PACKAGE``, a notebook or a prompt."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if file is None or (spec is not None and spec.name.rpartition(".")[2] == "__main__"):
        return None
    return Path(file) if Path(file).is_file() else None


def _registered() -> set[tuple[str, str]]:
    """Kind and name of what :func:`sgc.register` added in this process."""
    return {
        (kind, name)
        for kind, builtin in BUILTIN.items()
        for name in set(available(kind))
        - set(builtin)
        - {point.name for point in importlib.metadata.entry_points(group=f"sgc.{kind}")}
    }


def _texts(value: Any) -> Iterator[str]:
    """The strings among a config's values, nested ones too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


@lru_cache
def _that_take(names: tuple[str, ...], device: str) -> tuple[str, ...]:
    return tuple(name for name in names if _takes(name, device))


def _takes(name: str, device: str) -> bool:
    try:
        solver: Solver = create("recovery", name)
    except MissingDependencyError:
        return False
    except Exception:  # a plug-in may raise anything: its trials will say what
        return True
    devices: frozenset[str] = getattr(solver, "devices", frozenset())
    return not devices or device in devices
