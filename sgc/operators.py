"""The measuring matrices of a compressor, and what may be kept of measurements."""

import warnings

import torch

from projections import Projection
from sgc.counting import counted_projection, sample_projection
from sgc.registry import available, create, resolve
from sgc.rules.base import Rule

Key = tuple[int, torch.device, torch.dtype]


class Operators:
    """One A ∈ R^{k×d} for each length d, device and dtype: made once, shared by all parameters.

    It follows from the configuration alone, so it is never part of a state dict.

    Args:
        projection: its registered name.
        measurements: k.
        seed: of A.

    Raises:
        TypeError: the projection is no name.
        UnknownPluginError: it is not registered.
    """

    def __init__(self, projection: str, measurements: int, *, seed: int) -> None:
        if not isinstance(projection, str):
            raise TypeError(
                f"projection must be a registered name, got {projection!r}; the names are: "
                f"{', '.join(available('projection'))}"
            )
        self.projection, self.measurements, self.seed = projection, measurements, seed
        #: Whether A exists for k = d only.
        kind = resolve("projection", projection)
        self.square: bool = getattr(kind, "square", False)
        #: Whether Aᵀ undoes A.
        self.orthogonal: bool = getattr(kind, "orthogonal", False)
        # Of a part from elsewhere that does not say so, nothing is known.
        self._dense = not getattr(kind, "structured", True)
        self._made: dict[Key, Projection] = {}
        self._looked_at: set[int] = set()

    def __call__(self, length: int, device: torch.device, dtype: torch.dtype) -> Projection:
        """The A of vectors of this length; on the meta device a stand-in that has its bytes."""
        key = (length, device, dtype)
        what = (self.projection, self.measurements, length)
        if key not in self._made and device.type == "meta":
            self._made[key] = counted_projection(*what, seed=self.seed, dtype=dtype)
        elif key not in self._made:
            self._made[key] = create(
                "projection", *what, seed=self.seed, device=device, dtype=dtype
            )
        return self._made[key]

    def sample(self, length: int, dtype: torch.dtype) -> Projection:
        """A few columns of such an A, on the CPU: what :mod:`sgc.counting` looks at."""
        what = (self.projection, self.measurements, length)
        return sample_projection(*what, seed=self.seed, dtype=dtype)

    def floor(self, length: int, dtype: torch.dtype) -> int:
        """Bytes that A takes at least, known without making it."""
        return self.measurements * length * dtype.itemsize if self._dense else 0

    def refuses(self, length: int, *, exactly: str, fewer: str) -> str | None:
        """Why there is no A for vectors of this length, with a remedy; None if there is.

        Args:
            length: d.
            exactly: the option and its value that make k = d.
            fewer: what lowers k.
        """
        if self.square and self.measurements != length:
            return (
                f"and projection={self.projection!r} exists only for as many measurements: "
                f"set {exactly}, or take another projection"
            )
        if self.measurements > length:
            return (
                f"but {self.measurements} measurements of each are asked for: {fewer}, or use "
                "plain AdamW here (compressor=None)"
            )
        return None

    def warn_of_few_columns(self, length: int) -> None:
        """Say once that sparse vectors of this length cannot be told apart by what A measures.

        Warns:
            UserWarning: A of ±1 has so few rows that some columns must be equal, up to a sign.
        """
        if length in self._looked_at:
            return
        self._looked_at.add(length)
        signs = getattr(resolve("projection", self.projection), "signs", False)
        if signs and 2 ** (self.measurements - 1) < length:
            warnings.warn(
                f"the {self.measurements} rows of a {self.projection!r} A give at most "
                f"{2 ** (self.measurements - 1):,} columns that differ by more than a sign, for "
                f"vectors of {length:,} entries: no solver can tell the others apart. Take "
                "projection=gaussian, or a larger sparsity, kappa or number of chunks",
                stacklevel=3,
            )

    def made(self) -> dict[str, Projection]:
        """Every A made so far, by its size, dtype and device."""
        return {
            f"{self.measurements}×{length} {dtype} on {device}".replace("torch.", ""): A
            for (length, device, dtype), A in self._made.items()
        }

    def shared_tensors(self) -> dict[str, int]:
        """Bytes of every A."""
        return {
            f"A {self.projection} {where}": getattr(A, "nbytes", 0)
            for where, A in self.made().items()
        }


def elementwise(rule: Rule) -> Rule:
    """The rule, if it may run on measurements.

    Raises:
        ValueError: it looks at more than one number at a time.
    """
    if not rule.elementwise:
        raise ValueError(
            f"rule={type(rule).__name__} looks at more than one number at a time, and the "
            "measurements of a sketch have no rows: use adam or momentum here"
        )
    return rule
