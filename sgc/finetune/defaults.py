"""What each method is given where its spec says nothing, on the default task.

The default task is MiniLM-L6 on the Rotten Tomatoes snippets: query and value matrices of 384×384,
batches of 16. The learning rates are round numbers to start from: those of the README's table did
well in trials on that task, the others follow from what their update's entries are worth (near 1
for Adam, sign and normalised steps, those of G for SGD). None is the outcome of a recorded sweep,
and a race should choose by a grid. The sketch sizes give MESGC, CESGC and GaLore of rank 1 the same
768 numbers of optimizer state per matrix.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sgc.finetune import methods
from sgc.finetune.methods import Recipe
from sgc.specs import Spec, SpecError, Value

__all__ = ["Method", "resolve_method", "short_label"]

_SKETCH: dict[str, Value] = {"chunks": 16, "sparsity": 48, "kappa": 8, "chunker": "permuted"}
_OPTIONS: dict[str, dict[str, Value]] = {
    "sgc": {"sparsity": 48, "kappa": 8},
    "mesgc": _SKETCH,
    "cesgc": {"rank": 4, **_SKETCH},
    "galore": {"rank": 1},
}
_LR = {
    **{"adamw": 3e-4, "adam-mini": 3e-4, "bitfit": 3e-3, "lora": 3e-3, "relora": 3e-3},
    **{"sgc": 1e-2, "mesgc": 1e-2, "cesgc": 1e-2, "galore": 1e-2, "subspace": 3e-3},
    **{"apollo": 1e-3, "fira": 1e-3, "flora": 1e-3, "frugal": 1e-3, "gwt": 1e-3, "ldadam": 1e-3},
    **{"adarankgrad": 3e-3, "online-subspace-descent": 3e-3, "adjoint": 1e-2},
    **{"adafactor": 1e-3, "explicit-sparse": 3e-3, "sift": 3e-3},
    **{"sign-sgd": 3e-4, "normalised-sgd": 3e-4},
    **{"sgd": 0.1, "sgd-momentum": 0.1, "proximal-sgd": 0.1},
}
_LR_WITH_RESIDUAL = 3e-3  # a tenth of the normalised gradient, or so
_LR_WITH_RULE = 1e-3  # a residual rule by name: as large as the update itself
_LR_OTHERS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the targets are trained.

    Args:
        name: one of :func:`sgc.finetune.methods.available`.
        lr: peak learning rate of what trains in the targets' place.
        options: the method's options, defaults filled in.
    """

    name: str
    lr: float
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The full spec, without the learning rate."""
        return Spec(name=self.name, options=self.options).format()

    @property
    def tunable(self) -> bool:
        """Whether the learning rate means anything: not where only the head trains."""
        return methods.trains(self.name)

    def recipe(self, *, seed: int = 0) -> Recipe:
        """How to tune one model this way: see :class:`sgc.finetune.methods.base.Recipe`.

        Args:
            seed: for the method and its parts where they draw random numbers and the spec names
                no seed.

        Raises:
            SpecError: the method refuses these options; says which and why.
        """
        return methods.make(self.name, self.options, seed=seed)

    def compressor(self, *, seed: int = 0) -> Any:
        """A new compressor, or None for the methods that are none.

        Raises:
            SpecError: see :meth:`recipe`.
        """
        return self.recipe(seed=seed).compressor


def resolve_method(spec: str | Spec, *, lr: float | None = None) -> Method:
    """Fill in a method spec's defaults and see that it can be made.

    Args:
        spec: for example ``"galore:rank=1,lr=1e-2"``.
        lr: used unless the spec has its own; None takes the method's default.

    Raises:
        SpecError: unreadable, refused by the method, or a learning rate that is not positive.
        sgc.UnknownPluginError: no method of that name.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    name = "adamw" if spec.name == "none" else spec.name
    given = spec.without("lr").options
    options = {**_OPTIONS.get(name, {}), **given}
    rate = spec.options.get("lr", lr)
    rate = _default_lr(name, options) if rate is None else rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise SpecError(f"{name}: lr must be a number above 0, got {rate!r}")
    method = Method(name=name, lr=float(rate), options=options)
    method.recipe()
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
    if methods.trains(full.name) and lr != _default_lr(full.name, full.options):
        kept["lr"] = lr
    return Spec(name=full.name, options=kept).format()


def _default_lr(name: str, options: Mapping[str, Value]) -> float:
    residual = options.get("residual", 0)
    if isinstance(residual, str):
        return _LR_WITH_RULE
    if residual > 0:
        return _LR_WITH_RESIDUAL
    return _LR.get(name, _LR_OTHERS)
