"""The ranks of a training's gradients and of its optimizer's subspaces, on the way."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgc.finetune.batches import collate
from sgc.finetune.randomness import derived_seed
from sgc.finetune.train import batch_loss
from sgc.report import effective_ranks
from studies.measures.fine_tuning import FineTuning
from studies.measures.moment_watch import gradient
from studies.measures.spectra import needed_ranks

__all__ = ["THRESHOLDS", "Watch"]

#: η, by the names that rows and methods have.
THRESHOLDS = {"0.1": 0.1, "0.3": 0.3}


class Watch:
    """What a trial of the study measures while it trains, in ``found``; see its ``trial``.

    Args:
        run: what trains.
        every, probe, probe_every: see :class:`studies.effective_rank.Config`.
    """

    def __init__(self, run: FineTuning, *, every: int, probe: int, probe_every: int) -> None:
        self.run, self.every, self.probe_every = run, every, probe_every
        draw = torch.Generator().manual_seed(derived_seed(run.config.seed, "probe"))
        self.rows = torch.randperm(len(run.train), generator=draw)[:probe].tolist()
        self.found: dict[str, Any] = {
            **{"steps": [], "live": {}, "basis_step": {}, "in_use": [], "held": 0},
            "needed": {name: {} for name in THRESHOLDS},
            "probe": {"steps": [], "needed": {name: {} for name in THRESHOLDS}},
        }

    def look(self, step: int) -> None:
        """After an optimizer step, before its gradients are dropped."""
        first, last = step == 1, step == self.run.config.steps
        if not (first or last or step % self.every == 0):
            return
        ready, found = self.run.ready, self.found
        found["steps"].append(step)
        self._note(found["needed"], {name: gradient(p) for name, p in ready.targets.items()})
        ranks = effective_ranks(ready.optimizer)
        for (name, p), one in zip(ready.targets.items() if ranks else (), ranks, strict=True):
            found["live"].setdefault(name, []).append(one.rank)
            sought = int(ready.optimizer.state[p]["basis_step"])
            found["basis_step"].setdefault(name, []).append(sought)
        found["in_use"].append(sum(one.in_use for one in ranks))
        found["held"] = sum(one.held for one in ranks)
        if first or last or step % self.probe_every == 0:
            found["probe"]["steps"].append(step)
            self._note(found["probe"]["needed"], self._probe())

    def _probe(self) -> dict[str, Tensor]:
        """The mean gradient of the fixed examples, without dropout."""
        model, targets, config = self.run.ready.model, self.run.ready.targets, self.run.config
        device = torch.device(config.device)
        total = {name: torch.zeros_like(p) for name, p in targets.items()}
        model.eval()
        for start in range(0, len(self.rows), config.batch_size):
            rows = self.rows[start : start + config.batch_size]
            loss = batch_loss(model, collate(self.run.train, rows).to(device)) * len(rows)
            for name, G in zip(
                targets, torch.autograd.grad(loss, [*targets.values()]), strict=True
            ):
                total[name] += G
        model.train()
        return total

    def _note(
        self, into: Mapping[str, dict[str, list[int]]], matrices: Mapping[str, Tensor]
    ) -> None:
        """Append the ranks that they need."""
        for name, G in matrices.items():
            ranks = needed_ranks(G, thresholds=[*THRESHOLDS.values()])
            for lists, rank in zip(into.values(), ranks, strict=True):
                lists.setdefault(name, []).append(rank)
