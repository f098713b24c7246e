"""The targets train in full, with torch's AdamW."""

from torch import nn

from sgc.finetune.methods.base import Recipe
from sgc.finetune.targets import Parameters


class AdamW(Recipe):
    """Two moments for every entry of the targets: what all others are held against."""

    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        return targets
