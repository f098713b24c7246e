"""What each method is given where its spec says nothing, on the default task.

The default task is MiniLM-L6 on the Rotten Tomatoes snippets: query and value matrices of 384×384,
batches of 16. The learning rates are round numbers that did well for each method in trials on it,
not the outcome of a recorded sweep. The sketch sizes give MESGC,
CESGC and GaLore of rank 1 the same 768 numbers of optimizer state per matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sgc
from sgc.registry import did_you_mean, option_names
from sgc.specs import Spec, SpecError, Value

__all__ = ["ADAMW", "FROZEN", "Method", "resolve_method", "short_label"]

FROZEN = "frozen"  # the targets do not train at all: not a compressor
ADAMW = "adamw"  # what the registry calls the compressor "none"

_SKETCH: dict[str, Value] = {"chunks": 16, "sparsity": 48, "kappa": 8, "chunker": "permuted"}
_OPTIONS: dict[str, dict[str, Value]] = {
    "sgc": {"sparsity": 48, "kappa": 8},
    "mesgc": _SKETCH,
    "cesgc": {"rank": 4, **_SKETCH},
    "galore": {"rank": 1},
}
_LR = {ADAMW: 3e-4, "sgc": 1e-2, "mesgc": 1e-2, "cesgc": 1e-2, "galore": 1e-2, "sign-sgd": 3e-4}
_LR_WITH_RESIDUAL = 3e-3
_LR_OTHERS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the targets are trained.

    Args:
        name: ``frozen``, ``adamw`` or a registered compressor.
        lr: peak learning rate of the targets.
        options: the compressor's options, defaults filled in.
    """

    name: str
    lr: float
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The full spec, without the learning rate."""
        return Spec(name=self.name, options=self.options).format()

    def compressor(self, *, seed: int = 0) -> Any:
        """A new compressor, or None for plain AdamW and for ``frozen``.

        Args:
            seed: handed on if the compressor draws random numbers and the spec names no seed.

        Raises:
            SpecError: the compressor refuses these options; says which and why.
        """
        if self.name in (FROZEN, ADAMW):
            return None
        options = dict(self.options)
        if "seed" in (option_names("compressor", self.name) or ()):
            options.setdefault("seed", seed)
        try:
            return sgc.create("compressor", self.name, **options)
        except (ValueError, TypeError, LookupError, ImportError) as error:
            raise SpecError(f"{self.name}: {error}") from error


def resolve_method(spec: str | Spec, *, lr: float | None = None) -> Method:
    """Fill in a method spec's defaults and see that its compressor can be made.

    Args:
        spec: for example ``"galore:rank=1,lr=1e-2"``.
        lr: used unless the spec has its own; None takes the method's default.

    Raises:
        SpecError: unreadable, refused by the compressor, or a learning rate that is not positive.
        sgc.UnknownPluginError: no method of that name.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    name = ADAMW if spec.name == "none" else spec.name
    given = spec.without("lr").options
    if name in (FROZEN, ADAMW) and given:
        raise SpecError(f"{name} has no options but lr, got {', '.join(given)}")
    if name not in (FROZEN, ADAMW):
        _check_known(name)
    options = {**_OPTIONS.get(name, {}), **given}
    rate = spec.options.get("lr", lr)
    rate = _default_lr(name, options) if rate is None else rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise SpecError(f"{name}: lr must be a number above 0, got {rate!r}")
    method = Method(name=name, lr=float(rate), options=options)
    method.compressor()
    return method


def short_label(spec: str, *, lr: float) -> str:
    """The spec with everything left out that is the method's default: for tables and plots.

    Example:
        >>> short_label("galore:rank=1", lr=0.01), short_label("galore:rank=4", lr=0.02)
        ('galore', 'galore:rank=4,lr=0.02')
    """
    full = Spec.parse(spec)
    defaults = _OPTIONS.get(full.name, {})
    kept = {k: v for k, v in full.options.items() if k not in defaults or defaults[k] != v}
    if full.name != FROZEN and lr != _default_lr(full.name, full.options):
        kept["lr"] = lr
    return Spec(name=full.name, options=kept).format()


def _default_lr(name: str, options: Mapping[str, Value]) -> float:
    residual = options.get("residual", 0)
    if isinstance(residual, int | float) and residual > 0:
        return _LR_WITH_RESIDUAL
    return _LR.get(name, _LR_OTHERS)


def _check_known(name: str) -> None:
    known = sgc.available("compressor")
    if name not in known:
        methods = [FROZEN, ADAMW, *(n for n in known if n != "none")]
        raise sgc.UnknownPluginError(
            f"unknown method {name!r}{did_you_mean(name, methods)}; there are: {', '.join(methods)}"
        )
