"""The contract of a recipe: what trains in the targets' place, under what, at which cost."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from sgc.budget import predict
from sgc.compressors.base import Compressor, Shape
from sgc.compressors.none import NoCompression
from sgc.finetune.targets import Parameters
from sgc.specs import Value

__all__ = ["Cost", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Bytes that a method takes for the targets, between two steps.

    Args:
        state_bytes: moments, subspaces, step counters.
        shared_bytes: what parameters share: A and what the solver keeps for it.
        extra_weight_bytes: trained weights that the method adds to the model.
    """

    state_bytes: int
    shared_bytes: int
    extra_weight_bytes: int

    @property
    def bytes(self) -> int:
        """All together: the honest size to compare methods at."""
        return self.state_bytes + self.shared_bytes + self.extra_weight_bytes


class Recipe(abc.ABC):
    """One way to tune a model's target matrices; serves one model, whose head trains besides.

    The options of a method are the keyword arguments of its class; one called ``seed`` gets the
    run's seed where the spec names none. Bad options raise ``ValueError`` or ``TypeError``.
    """

    #: Whether anything but the head trains; if not, the learning rate means nothing.
    trains: ClassVar[bool] = True
    #: Whether what trains is added to the model.
    adds_weights: ClassVar[bool] = False
    #: Of what trains; None for plain AdamW.
    compressor: Compressor | None = None

    def refuses(self, shape: Shape) -> str | None:
        """Why a target of this shape cannot be tuned, with the numbers; None if it can."""
        return None

    @abc.abstractmethod
    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        """Make the model ready; returns what trains in place of ``targets``, by name.

        Raises:
            TargetError: the model has nothing that this method could train.
        """

    def planned(self, model: nn.Module, targets: Parameters) -> list[Tensor]:
        """Tensors as large as those that :meth:`prepare` would return; the model stays as it is.

        Methods that change the model there must override this.
        """
        return list(self.prepare(model, targets).values())

    def cost(
        self,
        model: nn.Module,
        targets: Parameters,
        *,
        shared: bool = True,
        beyond: int | None = None,
    ) -> Cost:
        """What a run will hold for the targets, known before it: nothing of theirs is allocated.

        Without ``shared`` what parameters share is not looked at, and 0: that is cheap to know. For
        ``beyond`` see :func:`sgc.predict`.

        Raises:
            TargetError: as :meth:`prepare`.
            ValueError: a target that the method cannot take.
        """
        for target in targets.values():
            if reason := self.refuses(tuple(target.shape)):
                raise ValueError(reason)
        tensors = self.planned(model, targets)
        held = predict(self.compressor or NoCompression(), tensors, shared=shared, beyond=beyond)
        return Cost(
            state_bytes=held.state_bytes,
            shared_bytes=held.shared_bytes,
            extra_weight_bytes=sum(t.nbytes for t in tensors) if self.adds_weights else 0,
        )

    def size(self, size: int) -> Mapping[str, Value] | None:
        """Options that make the method larger, as :meth:`sgc.compressors.base.Compressor.size`."""
        return None

    def after_step(self, optimizer: Optimizer, step: int, *, steps: int) -> None:  # noqa: B027
        """Called when ``step`` of ``steps`` optimizer steps are done.

        What happens may depend on the weights, the optimizer's state and these numbers alone:
        nothing else is in a checkpoint.
        """

    def changed(self, targets: Parameters) -> Parameters:
        """What :meth:`after_step` changes beside the trained parameters: for the checkpoint."""
        return {}

    def merge(self, model: Any) -> None:  # noqa: B027
        """Make the model a plain one of its class again, with what was trained in its weights."""
