"""States of parameters: before the first step, and as they come back from a checkpoint."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sgc import adam
from sgc.blocks import State
from sgc.compressors.base import Compressor, agrees, configuration
from sgc.registry import available
from sgc.residuals.base import residual_of

#: Counters: read on the host at every step, so they never live on an accelerator.
_CPU_STATE = frozenset({"step", "basis_step"})


def fresh_states(
    n: int, compressor: Compressor, p: Tensor, device: torch.device
) -> Iterator[State]:
    """States of n parameters like p before their first step; the moments in one block of memory."""
    shape, dtype = tuple(p.shape), adam.moment_dtype(p.dtype)
    moments = (n, *compressor.moment_shape(shape))
    together = compressor.rule.init_state(moments, device, dtype)
    together["step"] = torch.zeros(n, dtype=torch.float32)
    for i in range(n):
        yield {
            **{key: block[i] for key, block in together.items()},
            **compressor.init_state(shape, device, dtype),
            **compressor.residual_rule.init_state(shape, device, dtype),
        }


def copied(saved: State, p: Tensor, compressor: Compressor) -> State:
    """A saved state's tensors, on the device and of the dtypes that the state of p has.

    Integers and counters stay as they are, and so does what a fresh state lacks.
    """
    if compressor.native or compressor.refuses(tuple(p.shape)) is not None:
        fresh = {"exp_avg": p, "exp_avg_sq": p}
    else:
        (fresh,) = fresh_states(1, compressor, p, torch.device("meta"))
    copies = {}
    for key, value in saved.items():
        if isinstance(value, Tensor):
            counts = key in _CPU_STATE
            casts = value.is_floating_point() and key in fresh and not counts
            device = torch.device("cpu") if counts else p.device
            dtype = fresh[key].dtype if casts else value.dtype
            copies[key] = value.detach().to(device, dtype, copy=True)
    return copies


def describes(saved: str, compressor: Compressor) -> bool:
    """Whether a saved description is that of this compressor, however its residual was spelt."""
    return agrees(_spelt_out(saved), _spelt_out(compressor.describe()))


def _spelt_out(description: str) -> str:
    """A compressor's description in which residual rules that are named stand with their options.

    A name that does not exist here stays.
    """

    def with_rule(part: dict[str, Any]) -> dict[str, Any]:
        if isinstance(name := part.get("residual"), str) and name in available("residual"):
            rule = residual_of(name)
            number = rule.as_number
            part["residual"] = configuration(rule) if number is None else number
        return part

    return json.dumps(json.loads(description, object_hook=with_rule))
