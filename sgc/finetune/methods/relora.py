"""ReLoRA: LoRA, merged and started again, so that the sum of its updates has a higher rank."""

import torch
from torch.optim import Optimizer

from sgc.finetune.methods.lora import ADAPTER, LoRA
from sgc.finetune.randomness import seeded
from sgc.finetune.targets import Parameters
from sgc.options import whole


class ReLoRA(LoRA):
    """ReLoRA (Lialin et al. 2023): every so often ``W ← W + (alpha/rank)·B A``, and A, B anew.

    The adapters' moments are dropped at a restart, where the paper keeps 1 % of them; the learning
    rate goes on, where the paper lets it rise again. A run does not end with a restart.

    Args:
        merge_every: steps between two restarts.
        rank, alpha, dropout: see :class:`~sgc.finetune.methods.lora.LoRA`.
        seed: of A's starts.
    """

    def __init__(
        self,
        *,
        merge_every: int = 100,
        rank: int = 1,
        alpha: float | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout, seed=seed)
        self.merge_every = whole("merge_every", merge_every, least=1)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer, step: int, *, steps: int) -> None:
        if step % self.merge_every or step == steps:
            return
        for layer in self.layers():
            weight = layer.get_base_layer().weight
            weight += layer.get_delta_weight(ADAPTER)
        with seeded(self.seed, "relora", step, device=weight.device):
            for layer in self.layers():
                layer.reset_lora_parameters(ADAPTER, init_lora_weights=True)
        for name, p in self._lora.named_parameters():
            if ".lora_" in name:
                optimizer.state.pop(p, None)

    def changed(self, targets: Parameters) -> Parameters:
        return targets
