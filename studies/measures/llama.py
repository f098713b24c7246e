"""A causal language model of Llama's architecture with random weights, made where it runs.

Speed and memory depend on shapes and dtypes, not on what the weights were trained to, so no
download is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from projections.seeding import stream
from sgc.finetune.randomness import seeded
from sgc.registry import MissingDependencyError

__all__ = ["LLAMA2_7B", "TINY", "DType", "Llama", "adapters", "build", "query_and_value", "tokens"]

TARGETS = ("q_proj", "v_proj")
DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Llama:
    """Sizes of a model: width, layers, attention heads, inner width of the MLP, vocabulary."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int


LLAMA2_7B = Llama(hidden=4096, layers=32, heads=32, intermediate=11008, vocabulary=32000)
TINY = Llama(hidden=64, layers=2, heads=4, intermediate=128, vocabulary=128)


def build(
    sizes: Llama, *, dtype: DType, device: torch.device, seed: int, gradient_checkpointing: bool
) -> Any:
    """The model in training mode, every weight frozen; initialised on ``device`` from ``seed``.

    Raises:
        MissingDependencyError: transformers is not installed.
    """
    try:
        from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the Llama architecture needs transformers; install it: pip install transformers"
        ) from error
    config = LlamaConfig(
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        vocab_size=sizes.vocabulary,
        use_cache=False,
    )
    with seeded(seed, "llama", device=device), device:
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    if gradient_checkpointing:
        # transformers renamed it after 5.17 and warns about the old name.
        new = getattr(model, "activation_checkpointing_enable", None)
        (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
    return model.train().requires_grad_(False)


def tokens(
    sizes: Llama, *, batch: int, length: int, device: torch.device, seed: int
) -> Int[Tensor, "batch length"]:
    """Uniformly random token ids."""
    ids = stream(seed, "llama", "tokens").integers(sizes.vocabulary, size=(batch, length))
    return torch.from_numpy(ids).to(device)


@contextmanager
def query_and_value(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Inside, the query and value matrices of every layer train; afterwards all is frozen again."""
    matrices = [p for name, p in model.named_parameters() if name.split(".")[-2] in TARGETS]
    try:
        for p in matrices:
            p.requires_grad_(True)
        yield matrices
    finally:
        for p in matrices:
            p.requires_grad_(False)
            p.grad = None


@contextmanager
def adapters(
    model: nn.Module, *, rank: int, device: torch.device, seed: int
) -> Iterator[list[nn.Parameter]]:
    """Inside, LoRA adapters of the model's own dtype train beside query and value; then they go.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        from peft import LoraConfig, LoraModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError("LoRA needs peft; install it: pip install peft") from error
    with seeded(seed, "lora", device=device):
        # get_peft_model would turn bf16 adapters into float32 ones, which are slower.
        lora = LoraModel(model, LoraConfig(r=rank, target_modules=list(TARGETS)), "default")
    try:
        yield [p for p in lora.parameters() if p.requires_grad]
    finally:
        lora.unload()
