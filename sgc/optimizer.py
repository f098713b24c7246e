"""CompressedAdamW: ``W ← W − η·g(ρ(f(G)))`` as a torch optimizer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from sgc.blocks import State, block
from sgc.compressors.base import Compressor, Step
from sgc.groups import (
    UNSUPPORTED,
    Alike,
    check_options,
    check_parameters,
    compressor_of,
    partition,
    refuse_flags,
    refuse_misspelt,
)
from sgc.loading import copied, describes, fresh_states
from sgc.rounding import NEAREST, stochastic


class CompressedAdamW(Optimizer):
    """AdamW whose moments live where a compressor puts them.

    A compressor owns f (gradient → p, q) and g (moments → update); this class owns ρ: the moments

        ``M ← β₁ M + (1 − β₁) p``,  ``V ← β₂ V + (1 − β₂) q``

    their bias correction, the learning rate and decoupled weight decay
    (``W ← (1 − η λ) W`` before the update, as in :class:`torch.optim.AdamW`). Parameters without a
    compressor are handed to torch's AdamW, bit for bit.

    A step works on all parameters of a group that have shape, dtype, device and step count in
    common as one: their moments lie in one block of memory, which lives as long as any of them.

    Moments are float32 (float64 for float64 parameters), also under bf16 weights. Parameters with
    fewer than two dimensions that the compressor cannot take (biases, norms) get plain AdamW with
    one warning; larger ones that it cannot take are refused when they are added.

    Args:
        params: as for any torch optimizer; groups may override every option.
        lr: η, a number or a one-element tensor.
        betas: β₁, β₂.
        eps: ε.
        weight_decay: λ; 0 in the paper.
        compressor: a registered name (with its default options), a
            :class:`~sgc.compressors.base.Compressor`, or None for plain AdamW.
        maximize: step uphill; the negated gradients of alike parameters are a temporary copy.
        rounding: of bfloat16 weights, ``nearest`` or ``stochastic``
            (:class:`sgc.rounding.Rounding`); other dtypes have nothing to round, except float16,
            which is refused. Parameters that get plain AdamW are rounded to the nearest.
        seed: of the stochastic rounding.

    Raises:
        ValueError: options out of range, a parameter that its compressor cannot take, or a flag of
            torch's AdamW that is not supported.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(16, 16))
        >>> import sgc
        >>> mesgc = sgc.create("compressor", "mesgc", sparsity=8, chunks=4, kappa=8)
        >>> optimizer = CompressedAdamW([w], lr=1e-2, compressor=mesgc)
        >>> w.square().sum().backward()
        >>> optimizer.step()
        >>> optimizer.state[w]["exp_avg"].shape
        torch.Size([4, 16])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        compressor: str | Compressor | None = "mesgc",
        maximize: bool = False,
        rounding: str = "nearest",
        seed: int = 0,
        **unsupported: Any,
    ) -> None:
        refuse_flags(unsupported)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "compressor": compressor_of(compressor),
            "maximize": maximize,
            "rounding": rounding,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters in mid-run; options of the group override the defaults.

        Raises:
            ValueError: as in the constructor.
        """
        refuse_flags({k: v for k, v in param_group.items() if k in UNSUPPORTED})
        refuse_misspelt(param_group, known=["params", *self.defaults])
        group = {**param_group}
        if "compressor" in group:
            group["compressor"] = compressor_of(group["compressor"])
        check_options({**self.defaults, **group})
        super().add_param_group(group)
        try:
            check_parameters(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss; run with gradients enabled.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = 0
        for number, group in enumerate(self.param_groups):
            self._check_compressor(number, group)
            plain, compressed = partition(group, first)
            first += len(group["params"])
            if plain is not None:
                self._step_plain(plain, group)
            for alike in compressed:
                self._step_alike(alike, group)
        return loss

    def _check_compressor(self, number: int, group: dict[str, Any]) -> None:
        """Moments are those of the compressor that made them: no other one may go on with them.

        Raises:
            ValueError: a group has another one than at the step before.
        """
        # Not an attribute of the constructor: a copy or a pickle has none, and begins anew.
        known: dict[Tensor, Compressor] = self.__dict__.setdefault("_stepped", {})
        compressor: Any = group["compressor"]
        if not group["params"]:
            return
        before = known.setdefault(group["params"][0], compressor)
        if before is compressor:
            return
        same = isinstance(compressor, Compressor) and compressor.describe() == before.describe()
        if not same:
            new = compressor.describe() if isinstance(compressor, Compressor) else repr(compressor)
            raise ValueError(
                f"the compressor of group {number} was changed in mid-run, from "
                f"{before.describe()} to {new}, and its state is the old one's: put the old one "
                "back, or go on with a new optimizer"
            )
        known[group["params"][0]] = compressor

    def _step_plain(self, plain: Alike, group: dict[str, Any]) -> None:
        states = [self._plain_state(p) for p in plain.parameters]
        beta1, beta2 = group["betas"]
        adamw(
            plain.parameters,
            plain.gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            has_complex=any(p.is_complex() for p in plain.parameters),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    def _step_alike(self, alike: Alike, group: dict[str, Any]) -> None:
        """Parameters that share their step count go together."""
        states = self._states(alike.parameters, group["compressor"])
        counters, write_back = block(states, "step")
        counters += 1
        write_back()
        steps = counters.tolist()
        distinct = dict.fromkeys(steps)
        if len(distinct) == 1:
            self._step_compressed(alike, states, group, step=int(steps[0]))
            return
        for step in distinct:
            those = [i for i, own in enumerate(steps) if own == step]
            some = [states[i] for i in those]
            self._step_compressed(alike.of(those), some, group, step=int(step))

    def _step_compressed(
        self, alike: Alike, states: Sequence[State], group: dict[str, Any], *, step: int
    ) -> None:
        compressor: Compressor = group["compressor"]
        weights, gradients = alike.parameters, alike.gradients
        now = Step(step, group["betas"], group["eps"])
        if group["maximize"]:
            gradients = list(torch._foreach_neg(gradients))

        compressed = compressor.compress(gradients, states, step=now)
        moments = compressor.rule.accumulate(states, compressed.p, compressed.q, step=now)
        update = compressor.decompress(moments, compressed, states, step=now)
        update, residual = compressor.residual_rule.complete(update, compressed, states, step=now)
        scale = compressor.step_scale(weights)
        if scale is not None:
            update = update.scaled(scale)
            residual = None if residual is None else residual * scale

        lr = _learning_rate(group["lr"], weights[0].device)
        rounding = NEAREST
        if group["rounding"] == "stochastic" and weights[0].dtype == torch.bfloat16:
            rounding = stochastic(group["seed"], step, alike.positions)
        update.apply_to(
            weights,
            compressed.gradients,
            lr=lr,
            decay=1 - lr * group["weight_decay"] if group["weight_decay"] else 1.0,
            residual=residual,
            rounding=rounding,
        )
        compressor.rule.finish(weights, lr=lr, rounding=rounding)

    def _plain_state(self, p: Tensor) -> State:
        state: State = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return state

    def _states(self, parameters: Sequence[Tensor], compressor: Compressor) -> list[State]:
        """States of alike parameters, made at the first step: distributed checkpoints count on it.

        New ones lie in one block of memory, so that one operation covers them all.
        """
        states: list[State] = [self.state[p] for p in parameters]
        new = [state for state in states if not state]
        if new:
            first = parameters[0]
            made = fresh_states(len(new), compressor, first, first.device)
            for state, own in zip(new, made, strict=True):
                state.update(own)
        return states

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only (loads with ``weights_only=True``).

        A compressor is configuration, not state: each group carries its description as text.
        """
        saved = super().state_dict()
        groups = [dict(group) for group in saved["param_groups"]]
        for group in groups:
            if isinstance(group["compressor"], Compressor):
                group["compressor"] = group["compressor"].describe()
        return {**saved, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of what :meth:`state_dict` returned.

        Tensors take the dtypes that a state of these weights has: under equal dtypes nothing
        changes, and over weights of another dtype moments are cast (of parameters without a
        compressor to the parameter's, as torch's AdamW does).

        Raises:
            ValueError: the groups do not match, or were saved with other compressors than this
                optimizer has.
        """
        own = [group["compressor"] for group in self.param_groups]
        saved_groups = state_dict["param_groups"]
        for number, (mine, saved) in enumerate(zip(own, saved_groups, strict=False)):
            theirs = saved.get("compressor")
            theirs = theirs.describe() if isinstance(theirs, Compressor) else theirs
            if theirs is None and mine.native:
                continue  # a state of torch's own AdamW
            if theirs is None or not describes(theirs, mine):
                raise ValueError(
                    f"group {number} was saved with the compressor {theirs}, but this optimizer "
                    f"has {mine.describe()}: build it with the saved options"
                )
        super().load_state_dict(state_dict)
        for group, mine in zip(self.param_groups, own, strict=True):
            group["compressor"] = mine
            for option, value in self.defaults.items():
                group.setdefault(option, value)  # a state from before there was the option
        # torch casts every state tensor but "step" to the parameter's dtype, and need not copy.
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            for p, place in zip(group["params"], saved["params"], strict=True):
                if tensors := state_dict["state"].get(place):
                    self.state[p].update(copied(tensors, p, group["compressor"]))


def _learning_rate(lr: float | Tensor, device: torch.device) -> float | Tensor:
    """A number where the host has it; what an accelerator holds is used there, without a look."""
    if not isinstance(lr, Tensor):
        return lr
    if lr.device.type == "cpu" or device.type == "cpu":
        return float(lr)
    return lr.detach().reshape(()).to(device, non_blocking=True)
