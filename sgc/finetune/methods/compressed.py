"""The targets train in full, their moments live where a registered compressor puts them."""

from collections.abc import Mapping

from torch import nn

import sgc
from sgc.compressors.base import Shape
from sgc.finetune.methods.base import Recipe
from sgc.finetune.targets import Parameters
from sgc.specs import Value


class Compressed(Recipe):
    """A compressor by its registered name.

    Args:
        name: as ``sgc list`` has it.
        options: of the compressor, those of its parts with a dot.
    """

    def __init__(self, name: str, options: Mapping[str, Value]) -> None:
        self.compressor = sgc.create("compressor", name, **options)

    def refuses(self, shape: Shape) -> str | None:
        assert self.compressor is not None
        return self.compressor.refuses(shape)

    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        return targets

    def size(self, size: int) -> Mapping[str, Value] | None:
        assert self.compressor is not None
        return self.compressor.size(size)
