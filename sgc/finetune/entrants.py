"""How large each way of training may be under a budget."""

from functools import lru_cache

from torch import nn

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import Method, resolve_method
from sgc.finetune.methods.base import Cost
from sgc.finetune.targets import Parameters, target_parameters
from sgc.finetune.task import load_task
from sgc.sizes import fill
from sgc.specs import Spec

__all__ = ["largest"]


def largest(spec: str, config: FinetuneConfig, budget: int) -> Method:
    """A method at the largest size that holds at most ``budget`` bytes beside the model.

    Args:
        spec: the method; one without a size is taken as it is.
        config: of the task, located; of it only model, data and targets count.
        budget: bytes for the targets: state, what parameters share, and weights that are added.

    Raises:
        BudgetError: no size fits.
        SpecError, sgc.UnknownPluginError: see :func:`sgc.finetune.resolve_method`.
    """
    given = Spec.parse(spec)

    def cost(spec: Spec, *, shared: bool = True, beyond: int | None = None) -> Cost:
        recipe = resolve_method(spec).recipe()
        return recipe.cost(*_model(config), shared=shared, beyond=beyond)

    found, _ = fill(given, resolve_method(given).recipe().size, cost, budget)
    return resolve_method(found)


@lru_cache(maxsize=1)
def _model_of(config: FinetuneConfig) -> tuple[nn.Module, Parameters]:
    task = load_task(config)
    model = task.model(config)
    return model, target_parameters(model, config.targets)


def _model(config: FinetuneConfig) -> tuple[nn.Module, Parameters]:
    """The model whose shapes are planned for; it is never trained."""
    return _model_of(config.replace(method="", lr=1.0, seed=0))
