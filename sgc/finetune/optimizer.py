"""The optimizer of a run: the method on the targets, plain AdamW on the head."""

from typing import Any

import sgc
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import FROZEN, Method
from sgc.finetune.targets import Parameters
from sgc.report import StateReport
from sgc.specs import SpecError

__all__ = ["check_shapes", "make_optimizer", "target_states"]


def make_optimizer(
    method: Method, targets: Parameters, head: Parameters, config: FinetuneConfig
) -> sgc.CompressedAdamW:
    """One parameter group for the head and, unless frozen, one for the targets before it.

    Raises:
        SpecError: the compressor's options do not fit the targets' shapes.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(head.values()), "lr": config.head_lr, "compressor": None}
    ]
    if method.name != FROZEN:
        check_shapes(method, targets)
        compressor = method.compressor(seed=config.seed)
        groups.insert(
            0, {"params": list(targets.values()), "lr": config.lr, "compressor": compressor}
        )
    return sgc.CompressedAdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def check_shapes(method: Method, targets: Parameters) -> None:
    """See that the method can take every target.

    Raises:
        SpecError: it cannot; names the first such matrix and the reason.
    """
    compressor = method.compressor()
    for name, parameter in targets.items() if compressor is not None else ():
        reason = compressor.refuses(tuple(parameter.shape))
        if reason:
            raise SpecError(f"{method.spec} cannot take {name}: {reason}")


def target_states(
    optimizer: sgc.CompressedAdamW, method: Method, targets: Parameters
) -> StateReport:
    """Count what is alive for the targets; nothing for a frozen encoder."""
    if method.name == FROZEN:
        full = 2 * sum(parameter.numel() for parameter in targets.values())
        return StateReport((), moments=0, full_moments=full, state_bytes=0, shared_bytes=0)
    return sgc.state_report(optimizer, params=list(targets.values()))
