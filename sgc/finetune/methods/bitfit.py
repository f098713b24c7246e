"""BitFit: the bias vectors train, the matrices do not."""

from torch import nn

from sgc.finetune.methods.base import Recipe
from sgc.finetune.targets import Parameters, TargetError, head_parameters


class BitFit(Recipe):
    """BitFit (Ben Zaken et al. 2022): every bias vector of the body, those of norms included.

    All of the body's, not only the targets' own: there are few numbers in them.
    """

    def prepare(self, model: nn.Module, targets: Parameters) -> Parameters:
        head = head_parameters(model)
        biases = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.endswith("bias") and parameter.ndim == 1 and name not in head
        }
        if not biases:
            raise TargetError(
                "bitfit trains the bias vectors of the model's body, and this model has none "
                "(Llama and its kin leave them out): choose another method"
            )
        return biases
