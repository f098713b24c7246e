"""The optimizer of a run: the method on what it trains, plain AdamW on the head."""

from dataclasses import replace
from typing import Any

import sgc
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import Method
from sgc.finetune.methods import Recipe
from sgc.finetune.targets import Parameters
from sgc.report import StateReport
from sgc.specs import SpecError

__all__ = ["check_shapes", "make_optimizer", "tuned_states"]


def make_optimizer(
    recipe: Recipe, tuned: Parameters, head: Parameters, config: FinetuneConfig
) -> sgc.CompressedAdamW:
    """One parameter group for the head and, if there is something, one for the rest before it.

    Args:
        recipe: how the targets are tuned.
        tuned: what trains in their place, of a prepared model.
        head: the head's parameters.
        config: learning rates and weight decay.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(head.values()), "lr": config.head_lr, "compressor": None}
    ]
    if tuned:
        groups.insert(
            0, {"params": list(tuned.values()), "lr": config.lr, "compressor": recipe.compressor}
        )
    return sgc.CompressedAdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def check_shapes(method: Method, targets: Parameters) -> None:
    """See that the method can take every target.

    Raises:
        SpecError: it cannot; names the first such matrix and the reason.
    """
    recipe = method.recipe()
    for name, parameter in targets.items():
        reason = recipe.refuses(tuple(parameter.shape))
        if reason:
            raise SpecError(f"{method.spec} cannot take {name}: {reason}")


def tuned_states(
    optimizer: sgc.CompressedAdamW, tuned: Parameters, targets: Parameters
) -> StateReport:
    """Count what is alive for what trains, beside what AdamW would hold for the targets."""
    full = 2 * sum(parameter.numel() for parameter in targets.values())
    found = sgc.state_report(optimizer, params=list(tuned.values()))
    return replace(found, full_moments=full)
