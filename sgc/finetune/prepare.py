"""All that a run needs before its first step."""

from dataclasses import dataclass

from torch import nn

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import resolve_method
from sgc.finetune.methods import Recipe
from sgc.finetune.model import compile_blocks, train_only
from sgc.finetune.optimizer import check_shapes, make_optimizer
from sgc.finetune.targets import Parameters, head_parameters, target_parameters
from sgc.finetune.task import Task, load_task
from sgc.optimizer import CompressedAdamW

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that may begin.

    Args:
        task: the data, as tokens.
        model: with what the method adds to it; the rest is frozen.
        recipe: how the targets are trained.
        targets: the matrices that the method is about.
        tuned: what trains in their place.
        head: what trains besides.
        optimizer: of ``tuned`` and ``head``.
    """

    task: Task
    model: nn.Module
    recipe: Recipe
    targets: Parameters
    tuned: Parameters
    head: Parameters
    optimizer: CompressedAdamW


def prepare(config: FinetuneConfig) -> Prepared:
    """Read data and model, and make the optimizer.

    Args:
        config: with its device settled.

    Raises:
        ModelError, DataError, TargetError, SpecError: see where they are defined.
    """
    method = resolve_method(config.method, lr=config.lr)
    task = load_task(config)
    model = task.model(config)
    targets, head = target_parameters(model, config.targets), head_parameters(model)
    check_shapes(method, targets)
    recipe = method.recipe(seed=config.seed)
    tuned = recipe.prepare(model, targets)
    train_only(model, tuned, head)
    if config.compile:
        compile_blocks(model)
    return Prepared(
        task=task,
        model=model,
        recipe=recipe,
        targets=targets,
        tuned=tuned,
        head=head,
        optimizer=make_optimizer(recipe, tuned, head, config),
    )
