"""One run from config to result line: not again if it is there, and on from where it stopped."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from sgc.finetune.batches import share_at_limit
from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.data import majority_share
from sgc.finetune.defaults import short_label
from sgc.finetune.evaluate import score
from sgc.finetune.model import save_model
from sgc.finetune.optimizer import tuned_states
from sgc.finetune.prepare import prepare
from sgc.finetune.progress import progress_bar, tell_compiling
from sgc.finetune.summary import is_whole
from sgc.finetune.task import locate
from sgc.finetune.train import Diverged, Interrupted, train
from sgc.optimizer import CompressedAdamW
from sgc.report import peak_scratch
from sgc.results import Result, ResultStore, environment

__all__ = ["KIND", "RunBusyError", "prepare", "run", "store_in"]

KIND = "finetune"
_MANY = 0.1  # of the texts: more than that are not cut without a word


class RunBusyError(RuntimeError):
    """Another process is at this very run."""


def store_in(folder: Path) -> ResultStore:
    """The result store of an output folder."""
    return ResultStore(folder / "results.jsonl")


def run(
    config: FinetuneConfig,
    *,
    folder: Path,
    console: Console,
    title: str | None = None,
    save_to: Path | None = None,
    alone: bool = True,
) -> Result:
    """Fine-tune once, or return the result that ``folder`` already has for this config.

    Args:
        config: what to run; its files are looked up and its device settled first.
        folder: holds ``results.jsonl`` and, while the run goes on, its checkpoint.
        console: for messages and the progress bar.
        title: what the progress bar says; the method by default.
        save_to: also write the fine-tuned model here, a folder that is new or empty (a finished
            run is then trained again).
        alone: whether the run has its device for itself. The result says so: if not, its times are
            not those of the method.

    Raises:
        RunBusyError: another process has this run in hand.
        Interrupted: stopped by a signal; call again to go on.
        ResultStoreError: ``folder`` cannot be written (before any work).
        ModelError, DataError, TargetError, SpecError, ConfigError: see where they are defined.
    """
    store = store_in(folder)
    store.prepare()
    if save_to is not None:
        _prepare_save(save_to)
    config = locate(config)
    title = title or f"{short_label(config.method, lr=config.lr)}, seed {config.seed}"
    place = folder / "checkpoints" / f"{config.run_id}.pt"
    with _only_one(place.with_suffix(".lock")):
        known = _known(store, config)
        if known is not None and save_to is None:
            made, now = known.environment.get("git"), environment()["git"]
            other = f" (made with revision {made}, this is {now})" if made != now else ""
            _say(
                console,
                f"{title}: already in {store.path} as {config.run_id}, not run again{other}",
            )
        else:
            done = _carry_out(
                config, place, console=console, title=title, save_to=save_to, alone=alone
            )
            if known is None:
                store.append(done)
            known = known or done
            place.unlink(missing_ok=True)
        # Who takes the lock after this finds the result: the file need not stay.
        place.with_suffix(".lock").unlink(missing_ok=True)
    return known


def _known(store: ResultStore, config: FinetuneConfig) -> Result | None:
    """The stored result of this config; a line that is not whole, or was edited, does not count."""
    found = store.find(config.run_id)
    if found is None or not is_whole(found):
        return None
    try:
        same = FinetuneConfig.from_dict(found.config).run_id == config.run_id
    except (TypeError, ValueError):
        return None
    return found if same else None


def _carry_out(
    config: FinetuneConfig,
    place: Path,
    *,
    console: Console,
    title: str,
    save_to: Path | None,
    alone: bool,
) -> Result:
    with console.status("reading model and data"):
        ready = prepare(config)
    task, model, recipe = ready.task, ready.model, ready.recipe
    metrics: dict[str, object] = {
        "status": "finished",
        "alone": alone,
        "test_accuracy": None,
        "test_loss": None,
        "test_examples": len(task.test),
        "test_majority": majority_share(task.test.labels),
        "train_examples": len(task.train),
        "target_matrices": len(ready.targets),
        "head_parameters": sum(parameter.numel() for parameter in ready.head.values()),
    }
    held = task.test
    if task.validation is not None:
        held = task.validation
        metrics["validation_accuracy"] = None
        metrics["validation_loss"] = None
        metrics["validation_examples"] = len(held)
        metrics["validation_majority"] = majority_share(held.labels)
    if place.exists():
        _say(console, f"{title}: going on from the checkpoint {place}")
    if config.compile:
        tell_compiling(console)
    cut = share_at_limit(task.train, config.max_length)
    metrics["share_at_max_length"] = cut
    if cut > _MANY:
        _say(
            console,
            f"{title}: {cut:.0%} of the training texts reach --max-length {config.max_length}; "
            "what is beyond it is cut",
        )
    try:
        with progress_bar(console, title=title, steps=config.steps) as on_step:
            training = train(
                model,
                ready.optimizer,
                task.train,
                config,
                path=place,
                after_step=partial(recipe.after_step, ready.optimizer, steps=config.steps),
                also=recipe.changed(ready.targets),
                on_step=on_step,
            )
    except Interrupted as stop:
        _say(console, f"{title}: {stop}; the same command goes on from there")
        raise
    except Diverged as failure:
        metrics.update(status="diverged", diverged_at_step=failure.step)
        _say(console, f"{title}: {failure}; recorded as diverged")
    else:
        with console.status(f"{title}: testing"):
            found = score(model, held, device=config.device, precision=config.precision)
        metrics[f"{config.evaluate}_accuracy"] = found.accuracy
        # Finite weights may still overflow in the model; JSON has no infinity.
        metrics[f"{config.evaluate}_loss"] = found.loss if math.isfinite(found.loss) else None
        metrics["train_loss"] = fmean(training.losses[-50:])
        metrics["ms_per_step"] = 1000 * training.seconds_per_step
        if save_to is not None:
            recipe.merge(model)
            save_model(model, task.tokenizer, save_to)
            _say(console, f"model and tokenizer saved in {save_to}")
    states = tuned_states(ready.optimizer, ready.tuned, ready.targets)
    metrics["scratch_bytes"] = _scratch(ready.optimizer, config.device)
    metrics.update(
        states=states.moments,
        states_full=states.full_moments,
        states_percent=100 * states.moments / states.full_moments,
        state_bytes=states.state_bytes,
        shared_bytes=states.shared_bytes,
        extra_weight_bytes=sum(p.nbytes for p in ready.tuned.values() if recipe.adds_weights),
    )
    return Result(
        run_id=config.run_id,
        kind=KIND,
        config=config.to_dict(),
        seed=config.seed,
        metrics=metrics,
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _prepare_save(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"no model can be saved in {folder}: {error.strerror}") from error
    if taken:
        raise ConfigError(f"{folder} is not empty: give a new folder to save the model in")


def _scratch(optimizer: CompressedAdamW, device: str) -> int:
    """Peak of a step's temporaries, measured by one more step when nothing depends on it."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    return peak_scratch(optimizer.step, device)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunBusyError(
            f"another process is at this run in {path.parent.parent} (lock {path}): wait for it, "
            "or give another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()
