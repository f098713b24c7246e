"""What a stage checks of the compressor that it wraps."""

import torch

from sgc.blocks import State
from sgc.compressors.base import Compressor


def refuse_clash(stage: Compressor, own: State, inner: Compressor) -> None:
    """A stage and its inner compressor must not keep two things under one name.

    Args:
        stage: the outer one.
        own: what it keeps itself of one parameter, of any shape.
        inner: what it wraps.

    Raises:
        ValueError: they would; names them.
    """
    theirs = inner.init_state((64, 64), torch.device("meta"), torch.float32)
    if both := sorted(own.keys() & theirs.keys()):
        raise ValueError(
            f"inner={type(inner).__name__} inside {type(stage).__name__}: the two would share one "
            f"state ({', '.join(both)}); choose another inner compressor"
        )


def refuse_own_residual(stage: Compressor, inner: Compressor) -> None:
    """A stage that completes its update itself makes no use of what the inner one would do.

    Raises:
        ValueError: the inner compressor has a residual that the stage has not.
    """
    if inner.residual_rule.active and inner.residual != stage.residual:
        name, rule = type(inner).__name__, type(inner.residual_rule).__name__
        raise ValueError(
            f"inner={name} inside {type(stage).__name__}: its own residual ({rule}) would not be "
            f"applied there; give residual to {type(stage).__name__}, and an inner compressor "
            "that has moments"
        )
