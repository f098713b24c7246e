"""Stages: compressors in front of another compressor, which works on what they make of G."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sgc.blocks import State
from sgc.compressors.base import Compressor, Shape, configuration
from sgc.options import part
from sgc.residuals.base import Residual
from sgc.rules.base import Rule


def _said(rule: Residual) -> str:
    hidden = ("class", "active")
    options = [f"{k}={v}" for k, v in configuration(rule).items() if k not in hidden]
    return f"{type(rule).__name__}({', '.join(options)})" if rule.active else "none"


class Stage(Compressor):
    """What all stages hand on to their inner compressor.

    A stage calls :meth:`wrap` in its constructor, says by :meth:`inner_shape` what the inner
    compressor gets to see, and writes ``compress`` and ``decompress`` around the inner one's.
    """

    inner: Compressor

    def wrap(self, inner: str | Compressor, *, own: State, completes: bool) -> None:
        """Take the inner compressor, by name or as an object, which stays as it is.

        Args:
            inner: the compressor.
            own: what this stage keeps itself of one parameter, of any shape.
            completes: whether this stage's own residual says what becomes of what the two of them
                leave uncovered. The inner one's would then not be asked.

        Raises:
            ValueError: the two would keep two things under one name, or the inner compressor has
                a residual that would not be asked; names them.
        """
        self.inner = copy.copy(part("compressor", inner))
        names = f"inner={type(self.inner).__name__} inside {type(self).__name__}"
        rule = self.inner.residual_rule
        own_rule = self.residual_rule
        if completes and rule.active and configuration(rule) != configuration(own_rule):
            raise ValueError(
                f"{names}: its own residual {_said(rule)} would not be applied there, but that of "
                f"{type(self).__name__}, {_said(own_rule)}; give residual to "
                f"{type(self).__name__}, and an inner compressor that has moments"
            )
        theirs = self.inner.init_state((64, 64), torch.device("meta"), torch.float32)
        if both := sorted(own.keys() & theirs.keys()):
            raise ValueError(
                f"{names}: the two would share one state ({', '.join(both)}); choose another inner "
                "compressor"
            )
        if completes:
            self.inner.be_inner()

    def be_inner(self) -> None:
        super().be_inner()
        self.inner = copy.copy(self.inner)  # whose object stays as it is
        self.inner.be_inner()

    def inner_shape(self, shape: Shape) -> Shape:
        """Shape of what the inner compressor gets for a parameter of this shape."""
        return shape

    @property
    def rule(self) -> Rule:  # type: ignore[override]
        """The inner compressor's."""
        return self.inner.rule

    def refuses(self, shape: Shape) -> str | None:
        return self.inner.refuses(self.inner_shape(shape))

    def moment_shape(self, shape: Shape) -> Shape:
        return self.inner.moment_shape(self.inner_shape(shape))

    def shared_floor(self, shape: Shape, dtype: torch.dtype) -> int:
        return self.inner.shared_floor(self.inner_shape(shape), dtype)

    def init_state(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> State:
        return self.inner.init_state(self.inner_shape(shape), device, dtype)

    def step_scale(self, weights: Sequence[Tensor]) -> Float[Tensor, " n"] | None:
        return self.inner.step_scale(weights)

    def prepare(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.inner.prepare(self.inner_shape(shape), device, dtype)

    def shared_tensors(self) -> dict[str, int]:
        return self.inner.shared_tensors()
