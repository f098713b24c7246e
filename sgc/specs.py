"""Method specs: a plug-in name and its options as one short string, for command lines and tables.

``"mesgc:sparsity=48,chunks=16,residual=0.1"`` is the name ``mesgc`` with three options. A
part of it that is itself chosen by name has options with a dot:
``"galore:rank=4,inner=mesgc,inner.sparsity=48,inner.chunks=16"`` is a sketch in a subspace.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Spec", "SpecError", "Value"]

Value = int | float | bool | str

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False}


class SpecError(ValueError):
    """A method spec that cannot be read, or that names options which do not fit."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A name with options.

    Args:
        name: what the registry knows the plug-in by.
        options: option name → int, float, bool or str.

    Raises:
        SpecError: a name or value that could not be read back from :meth:`format`.

    Example:
        >>> spec = Spec.parse("mesgc:sparsity=48,residual=0.1")
        >>> dict(spec.options)
        {'sparsity': 48, 'residual': 0.1}
        >>> spec.updated(residual=0.2).format()
        'mesgc:sparsity=48,residual=0.2'
    """

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(
                f"a method name is letters, digits, '-', '_' and '.', got {self.name!r}"
            )
        for key, value in self.options.items():
            if not _KEY.fullmatch(key):
                raise SpecError(f"{self.name}: an option is NAME=VALUE, got the name {key!r}")
            again = _read(_write(value))
            unsafe = isinstance(value, str) and not _NAME.fullmatch(value)
            if unsafe or type(again) is not type(value) or again != value:
                raise SpecError(
                    f"{self.name}: {key}={value!r} cannot be written in a spec; values are "
                    "finite numbers, true, false, or words without ',', '=', ':' or spaces"
                )
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read ``NAME`` or ``NAME:OPTION=VALUE,…``; dashes in option names become underscores.

        Raises:
            SpecError: the text is not of that form, or an option stands twice.
        """
        name, _, tail = text.strip().partition(":")
        options: dict[str, Value] = {}
        for part in tail.split(",") if tail.strip() else []:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            key = key.replace("-", "_")
            if not equals or not value:
                raise SpecError(
                    f"cannot read {part.strip()!r} in {text!r}: write NAME:OPTION=VALUE,…, "
                    "for example mesgc:sparsity=48,residual=0.1"
                )
            if key in options:
                raise SpecError(f"option {key!r} stands twice in {text!r}")
            options[key] = _read(value)
        return cls(name=name.strip(), options=options)

    def format(self) -> str:
        """The text that :meth:`parse` reads back to an equal spec."""
        tail = ",".join(f"{key}={_write(value)}" for key, value in self.options.items())
        return f"{self.name}:{tail}" if tail else self.name

    def updated(self, **options: Value) -> "Spec":
        """A copy with ``options`` added or replaced."""
        return Spec(name=self.name, options={**self.options, **options})

    def without(self, *names: str) -> "Spec":
        """A copy that lacks the options ``names``."""
        kept = {key: value for key, value in self.options.items() if key not in names}
        return Spec(name=self.name, options=kept)


def _read(text: str) -> Value:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _write(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
