"""The training loop: any step can be the last before a checkpoint, and the numbers never notice."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sgc.finetune import checkpoint
from sgc.finetune.batches import Batch, Order, Tokens, collate, passes
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.forward import logits
from sgc.finetune.randomness import seeded

__all__ = ["Diverged", "Interrupted", "Training", "backward", "linear_schedule", "train"]

CHECKPOINT_SECONDS = 20.0
_STEPS_BETWEEN_LOOKS = 10  # on a GPU: reading the loss waits for it


class Interrupted(Exception):  # noqa: N818 - not an error: the run stopped as it was asked to
    """Ctrl-C or SIGTERM; the checkpoint is written."""


class Diverged(ArithmeticError):  # noqa: N818
    """The loss is no longer finite.

    Args:
        step: the first step, counted from 1, whose loss (or, after the last one, whose weights)
            was NaN or infinite.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss or the weights are not finite from step {step} on")
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a whole run leaves: the loss of each step, and the median seconds of a step."""

    losses: list[float]
    seconds_per_step: float


def linear_schedule(step: int, *, steps: int, warmup: float) -> float:
    """Factor of the learning rate at ``step`` (from 0): up within the warm-up, then down to 0.

    Example:
        >>> [linear_schedule(t, steps=4, warmup=0.5) for t in range(5)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rising = round(warmup * steps)
    return min((step + 1) / max(1, rising), (steps - step) / (steps - rising))


def train(
    model: nn.Module,
    optimizer: Optimizer,
    tokens: Tokens,
    config: FinetuneConfig,
    *,
    path: Path,
    after_step: Callable[[int], None] = lambda step: None,
    also: Mapping[str, nn.Parameter] = MappingProxyType({}),
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Training:
    """Train for ``config.steps``, from the checkpoint in ``path`` if there is one.

    Args:
        model: its parameters that require a gradient are saved; ``optimizer`` holds the same.
        optimizer: fresh, with its peak learning rates.
        tokens: the training examples.
        path: the checkpoint; it stays after the last step, for the caller to delete.
        after_step: called after each optimizer step with the number of steps done; what it does
            may depend on that number, on what is saved and on the optimizer's state alone.
        also: parameters that ``after_step`` changes, to be saved beside those that train.
        on_step: called with the number of steps done and the latest loss.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM; call again to go on.
        Diverged: the loss became NaN or infinite.
    """
    device = torch.device(config.device)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad} | dict(also)
    scheduler = LambdaLR(
        optimizer, partial(linear_schedule, steps=config.steps, warmup=config.warmup)
    )
    order = Order(
        tokens,
        batch_size=config.batch_size,
        seed=config.seed,
        group_by_length=config.group_by_length,
    )
    losses, durations = _restore(path, trained, optimizer, scheduler)
    look_every = 1 if device.type == "cpu" else _STEPS_BETWEEN_LOOKS
    pending: list[Tensor] = []
    on_step(len(losses), losses[-1] if losses else math.nan)
    model.train()
    saved = looked = time.monotonic()
    with checkpoint.stop_signals() as stop:
        for step in range(len(losses), config.steps):
            loss = backward(model, tokens, order.rows(step), config, step=step)
            optimizer.step()
            after_step(step + 1)
            scheduler.step()
            optimizer.zero_grad()
            pending.append(loss)
            if len(pending) < look_every and step + 1 < config.steps and not stop.name:
                continue
            new = torch.stack(pending).tolist()
            now = time.monotonic()
            durations += [(now - looked) / len(new)] * len(new)
            pending.clear()
            losses += new
            _refuse_divergence(losses, count=len(new))
            on_step(step + 1, losses[-1])
            last = step + 1 == config.steps  # what comes after training may be interrupted, too
            if last:
                _refuse_broken_weights(trained, step=step + 1)
            if stop.name or last or now - saved > CHECKPOINT_SECONDS:
                checkpoint.save(path, _snapshot(trained, optimizer, scheduler, losses, durations))
                saved = time.monotonic()
            if stop.name and not last:
                raise Interrupted(f"stopped by {stop.name} after step {step + 1}")
            looked = time.monotonic()
    return Training(losses=losses, seconds_per_step=sorted(durations)[len(durations) // 2])


def backward(
    model: nn.Module, tokens: Tokens, rows: Sequence[int], config: FinetuneConfig, *, step: int
) -> Tensor:
    """Add the gradient of the mean loss over ``rows``; returns that loss, detached.

    Args:
        step: dropout is drawn from it and the config's seed.
    """
    device = torch.device(config.device)
    losses = []
    with seeded(config.seed, "dropout", step, device=device):
        for part in passes(tokens, rows, size=config.micro_batch):
            batch = collate(tokens, part).to(device)
            loss = batch_loss(model, batch, config.precision) * (len(part) / len(rows))
            if loss.requires_grad:  # a frozen language model has nothing to train
                loss.backward()
            losses.append(loss.detach())
    return torch.stack(losses).sum()


def batch_loss(model: nn.Module, batch: Batch, precision: str = "full") -> Tensor:
    """Mean cross-entropy of a batch, in float32."""
    found = logits(model, batch, precision=precision)
    return nn.functional.cross_entropy(found.float(), batch.labels)


def _restore(
    path: Path, trained: dict[str, nn.Parameter], optimizer: Optimizer, scheduler: LambdaLR
) -> tuple[list[float], list[float]]:
    found = checkpoint.load(path)
    if found is None:
        return [], []
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(found.weights[name])
    optimizer.load_state_dict(found.optimizer)
    scheduler.load_state_dict(found.scheduler)
    return found.losses, found.step_seconds


def _snapshot(
    trained: dict[str, nn.Parameter],
    optimizer: Optimizer,
    scheduler: LambdaLR,
    losses: list[float],
    durations: list[float],
) -> checkpoint.Snapshot:
    # A partial is callable but no function: torch would save its attributes; none are needed.
    schedule = {**scheduler.state_dict(), "lr_lambdas": [None]}
    return checkpoint.Snapshot(
        step=len(losses),
        weights={name: p.detach() for name, p in trained.items()},
        optimizer=optimizer.state_dict(),
        scheduler=schedule,
        losses=losses,
        step_seconds=durations,
    )


def _refuse_broken_weights(trained: dict[str, nn.Parameter], *, step: int) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in trained.values()):
        raise Diverged(step)


def _refuse_divergence(losses: list[float], *, count: int) -> None:
    for step, loss in enumerate(losses[-count:], start=len(losses) - count + 1):
        if not math.isfinite(loss):
            raise Diverged(step)
