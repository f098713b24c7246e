"""Which parameters the method trains (the targets), and which are the head's.

A pattern is ``query``, ``key`` or ``value`` (the attention matrices of BERT, Llama and their kin)
or a regular expression that is searched for in the parameter's name; commas separate patterns.
"""

import re
from collections.abc import Iterable

from torch import nn

__all__ = ["Parameters", "TargetError", "head_parameters", "target_parameters"]

Parameters = dict[str, nn.Parameter]

_WORDS = {
    "query": r"(^|\.)(query|q_proj|q_lin|q|wq)\.",
    "key": r"(^|\.)(key|k_proj|k_lin|k|wk)\.",
    "value": r"(^|\.)(value|v_proj|v_lin|v|wv)\.",
}


class TargetError(ValueError):
    """The patterns match no matrix, or cannot be read."""


def target_parameters(model: nn.Module, patterns: str) -> Parameters:
    """The 2-D parameters outside of the head whose names match one of ``patterns``.

    Raises:
        TargetError: nothing matches, or a pattern is not a regular expression; lists the matrices.
    """
    head = head_parameters(model)
    matrices = {n: p for n, p in model.named_parameters() if p.ndim == 2 and n not in head}
    expressions = [_compile(part.strip()) for part in patterns.split(",") if part.strip()]
    chosen = {n: p for n, p in matrices.items() if any(e.search(n) for e in expressions)}
    if not chosen:
        raise TargetError(
            f"no matrix of the model matches --targets {patterns!r}; its matrices "
            f"(numbers left out) are: {', '.join(_kinds(matrices))}"
        )
    return chosen


def head_parameters(model: nn.Module) -> Parameters:
    """What is not part of the pre-trained body: the classifier, and BERT's pooler below it.

    The pooler counts as head because in an encoder that was never fine-tuned it is untrained: with
    it frozen, a linear classifier on MiniLM stays at chance. A language model has no head: its
    output layer was trained with the rest.
    """
    prefix = getattr(model, "base_model_prefix", "") + "."
    output = getattr(model, "get_output_embeddings", lambda: None)()
    trained = {id(parameter) for parameter in output.parameters()} if output is not None else set()
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if (not name.startswith(prefix) or ".pooler." in name) and id(parameter) not in trained
    }


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_WORDS.get(pattern, pattern))
    except re.error as error:
        raise TargetError(
            f"--targets {pattern!r} is none of {', '.join(_WORDS)}, and no regular expression: "
            f"{error}"
        ) from error


def _kinds(names: Iterable[str]) -> list[str]:
    """Names with their layer numbers replaced by N, each once."""
    return sorted({re.sub(r"\.\d+\.", ".N.", name) for name in names})
