"""An update of every coordinate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sgc import adam
from sgc.blocks import together
from sgc.rounding import Rounding
from sgc.updates.base import Update
from sgc.updates.elementwise import multiply, store


@dataclasses.dataclass(frozen=True)
class Dense(Update):
    """N in full: it covers the whole gradient, so there is no residual.

    Under stochastic rounding one weight at a time is held in float32.

    Attributes:
        values: the n updates, each in the parameter's shape; a sequence may compute them one by
            one, so that not all need exist at once.
    """

    values: "Float[Tensor, 'n *shape'] | Sequence[Float[Tensor, '*shape']]"

    def to_dense(self, shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
        whole = self.values if isinstance(self.values, Tensor) else torch.stack([*self.values])
        return whole.reshape(len(whole), *shape)

    def covered_part(self, gradients: Sequence[Tensor]) -> Float[Tensor, "n *shape"]:
        return together(gradients)

    def only(self, i: int) -> "Dense":
        return Dense(self.values[i][None])

    def scaled(self, factor: Float[Tensor, " n"]) -> "Dense":
        values = self.values

        def make(i: int) -> Tensor:
            one: Tensor = values[i]
            return one * factor[i].to(one.dtype)

        return Dense(Lazy(len(values), make))

    def apply_to(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        *,
        lr: float | Tensor,
        decay: float | Tensor,
        residual: Float[Tensor, " n"] | None,
        rounding: Rounding,
    ) -> None:
        if rounding.stochastic(weights[0].dtype):
            for i, weight in enumerate(weights):
                x = weight.to(torch.float32) * decay
                store(weight, x.sub_(self.values[i].to(x.dtype) * lr), rounding, i)
            return
        multiply(weights, decay, rounding)
        for i, weight in enumerate(weights):
            if isinstance(lr, Tensor):
                weight.sub_(self.values[i].to(adam.moment_dtype(weight.dtype)) * lr)
            else:
                weight.add_(self.values[i], alpha=-lr)


class Lazy(Sequence[Tensor]):
    """n tensors, each made when it is asked for: they need not all exist at once."""

    def __init__(self, n: int, make: Callable[[int], Tensor]) -> None:
        self._n, self._make = n, make

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        return self._make(range(self._n)[i])
