"""What a step takes when nothing else runs: for races whose runs shared their device."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

from sgc.finetune.batches import Order
from sgc.finetune.config import FinetuneConfig
from sgc.finetune.job import store_in
from sgc.finetune.prepare import prepare
from sgc.finetune.progress import progress_bar
from sgc.finetune.runner import gpu_count, worker_pool
from sgc.finetune.train import backward
from sgc.results import Result

__all__ = ["KIND", "step_times", "time_steps", "timing_id"]

KIND = "finetune-timing"
_WARM, _TIMED = 4, 12


def time_steps(configs: Sequence[FinetuneConfig], *, folder: Path, console: Console) -> None:
    """Time some steps of each config, alone on its device, into the result store of ``folder``."""
    store = store_in(folder)
    known = step_times(store.load())
    todo = [config for config in configs if timing_id(config) not in known]
    if not todo:
        return
    with progress_bar(console, title="timing", steps=len(todo)) as on_step:
        for number, result in enumerate(_all_timed(todo), start=1):
            store.append(result)
            on_step(number, float("nan"))


def _all_timed(configs: Sequence[FinetuneConfig]) -> Iterator[Result]:
    """One after the other; with several GPUs as many at a time."""
    on_gpu = any(config.device.startswith("cuda") for config in configs)
    if not on_gpu or gpu_count() < 2 or len(configs) < 2:
        yield from map(_timed, configs)
        return
    with worker_pool(min(gpu_count(), len(configs))) as pool:
        yield from pool.map(_timed, configs)


def step_times(results: Sequence[Result]) -> dict[str, float]:
    """Milliseconds of a step by :func:`timing_id`, from a store, which may hold other tasks too."""
    return {r.run_id: r.metrics["ms_per_step"] for r in results if r.kind == KIND}


def timing_id(config: FinetuneConfig) -> str:
    """Of the result that :func:`time_steps` writes for a config."""
    return hashlib.sha256(f"{KIND} {config.run_id}".encode()).hexdigest()[:12]


def _timed(config: FinetuneConfig) -> Result:
    run = prepare(config)
    order = Order(run.task.train, batch_size=config.batch_size, seed=config.seed)
    device = torch.device(config.device)
    run.model.train()
    durations = []
    for step in range(_WARM + _TIMED):
        _wait(device)
        began = time.perf_counter()
        backward(run.model, run.task.train, order.rows(step), config, step=step)
        run.optimizer.step()
        run.optimizer.zero_grad()
        _wait(device)
        durations.append(time.perf_counter() - began)
    return Result(
        run_id=timing_id(config),
        kind=KIND,
        config=config.to_dict(),
        seed=config.seed,
        metrics={"ms_per_step": 1000 * median(durations[_WARM:]), "steps": _TIMED},
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
