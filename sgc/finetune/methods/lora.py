"""LoRA: a low-rank matrix beside each frozen target."""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sgc.compressors.base import Shape
from sgc.finetune.methods.base import Recipe
from sgc.finetune.randomness import seeded
from sgc.finetune.targets import Parameters, TargetError
from sgc.options import number, whole
from sgc.specs import Value

ADAPTER = "default"


class LoRA(Recipe):
    """LoRA (Hu et al. 2022), by peft: ``W + (alpha/rank)·B A`` with W frozen, plain AdamW on A, B.

    A starts random, B at zero. They have the weights' dtype, and so have their moments.

    Args:
        rank: r; A is r×n and B m×r for an m×n target.
        alpha: 2·rank if it is not given, so that the scale is 2 at every rank.
        dropout: of what A sees.
        seed: of A's start.
    """

    adds_weights: ClassVar[bool] = True

    def __init__(
        self, *, rank: int = 1, alpha: float | None = None, dropout: float = 0.0, seed: int = 0
    ) -> None:
        if importlib.util.find_spec("peft") is None:
            raise ImportError(
                "it needs the package peft, which is not installed: pip install 'peft>=0.21', or "
                "this project with its extra demo (pip install '.[demo]' in its folder)"
            )
        self.rank = whole("rank", rank, least=1)
        self.alpha = 2.0 * self.rank if alpha is None else number("alpha", alpha, least=0)
        self.dropout, self.seed = number("dropout", dropout, least=0), whole("seed", seed, least=0)
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1, got {dropout}")
        self._lora: Any = None

    def refuses(self, shape: Shape) -> str | None:
        if self.rank > min(shape):
            return f"rank={self.rank} is more than the shorter side of {'×'.join(map(str, shape))}"
        return None

    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        peft = importlib.import_module("peft")
        modules = [name.removesuffix(".weight") for name in targets]
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="|".join(map(re.escape, modules)),
        )
        before = {id(p) for p in model.parameters()}
        device = next(iter(targets.values())).device
        try:
            # get_peft_model would turn bfloat16 adapters into float32 ones.
            with seeded(self.seed, "lora", device=device):
                self._lora = peft.LoraModel(model, config, ADAPTER)
        except ValueError as error:
            raise TargetError(f"LoRA cannot be put beside the targets: {error}") from error
        return {name: p for name, p in model.named_parameters() if id(p) not in before}

    def planned(self, model: nn.Module, targets: Parameters) -> list[Tensor]:
        return [
            torch.empty(shape, dtype=p.dtype, device="meta")
            for p in targets.values()
            for shape in ((self.rank, p.shape[1]), (p.shape[0], self.rank))
        ]

    def size(self, size: int) -> Mapping[str, Value]:
        return {"rank": size}

    def layers(self) -> list[Any]:
        """The layers with adapters, of a prepared model."""
        return [m for m in self._lora.modules() if hasattr(m, "reset_lora_parameters")]

    def merge(self, model: Any) -> None:
        self._lora.merge_and_unload()
        if hasattr(model, "peft_config"):
            del model.peft_config
        self._lora = None
