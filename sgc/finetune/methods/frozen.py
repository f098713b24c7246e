"""Nothing but the head trains."""

from typing import ClassVar

from torch import nn

from sgc.finetune.methods.base import Recipe
from sgc.finetune.targets import Parameters


class Frozen(Recipe):
    """The body stays as it is: the floor of every comparison."""

    trains: ClassVar[bool] = False

    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        return {}
