"""CompressedAdamW: ``W ← W − η·g(ρ(f(G)))`` as a torch optimizer."""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from sgc import adam
from sgc.compressors.base import Compressor
from sgc.registry import create, did_you_mean

_UNSUPPORTED = {
    "capturable": "the step counters live on the CPU",
    "differentiable": "sparse recovery is not differentiable",
    "fused": "only torch's own AdamW has a fused kernel",
    "amsgrad": "a maximum over sketches is not a sketch",
}


class CompressedAdamW(Optimizer):
    """AdamW whose moments live where a compressor puts them.

    A compressor owns f (gradient → p, q) and g (moments → update); this class owns ρ: the moments

        ``M ← β₁ M + (1 − β₁) p``,  ``V ← β₂ V + (1 − β₂) q``

    their bias correction, the learning rate and decoupled weight decay
    (``W ← (1 − η λ) W`` before the update, as in :class:`torch.optim.AdamW`). Parameters without a
    compressor are handed to torch's AdamW, bit for bit.

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
        maximize: step uphill.

    Raises:
        ValueError: options out of range, a parameter that its compressor cannot take, or a flag of
            torch's AdamW that is not supported.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(16, 16))
        >>> mesgc = create("compressor", "mesgc", sparsity=8, chunks=4, kappa=8)
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
        **unsupported: Any,
    ) -> None:
        _refuse_flags(unsupported)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "compressor": _compressor(compressor),
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters in mid-run; options of the group override the defaults.

        Raises:
            ValueError: as in the constructor.
        """
        _refuse_flags({k: v for k, v in param_group.items() if k in _UNSUPPORTED})
        _refuse_misspelt(param_group, known=["params", *self.defaults])
        group = {**param_group}
        if "compressor" in group:
            group["compressor"] = _compressor(group["compressor"])
        _check_options({**self.defaults, **group})
        super().add_param_group(group)
        try:
            _check_parameters(self.param_groups[-1])
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
        for group in self.param_groups:
            compressor: Compressor = group["compressor"]
            plain: list[Tensor] = []
            # Parameters that share a shape and a step count are decompressed in one call.
            alike: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(
                        "CompressedAdamW needs dense gradients; build the embedding with "
                        "sparse=False, or give it torch.optim.SparseAdam"
                    )
                if _is_plain(compressor, p):
                    plain.append(p)
                    continue
                state = self._state(p, compressor)
                key = (p.shape, p.dtype, p.device, int(state["step"]))
                alike[key].append(p)
            if plain:
                self._step_plain(plain, group)
            for parameters in alike.values():
                self._step_compressed(parameters, group)
        return loss

    def _step_plain(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._state(p, None) for p in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            has_complex=any(p.is_complex() for p in parameters),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    def _step_compressed(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        compressor: Compressor = group["compressor"]
        beta1, beta2 = group["betas"]
        states = [self.state[p] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if group["maximize"]:
            gradients = [-g for g in gradients]

        for gradient, state in zip(gradients, states, strict=True):
            state["step"] += 1
            p, q = compressor.compress(gradient, state, step=int(state["step"]))
            adam.accumulate(state["exp_avg"], state["exp_avg_sq"], p, q, beta1=beta1, beta2=beta2)

        step = int(states[0]["step"])
        first = torch.stack([state["exp_avg"] for state in states]) / (1 - beta1**step)
        second = torch.stack([state["exp_avg_sq"] for state in states]) / (1 - beta2**step)
        updates = compressor.decompress(first, second, gradients, states, eps=group["eps"])
        for w, gradient, update in zip(parameters, gradients, updates, strict=True):
            if group["weight_decay"]:
                w.mul_(1 - group["lr"] * group["weight_decay"])
            update.apply_to(w, gradient, lr=group["lr"], residual=compressor.residual)

    def _state(self, p: Tensor, compressor: Compressor | None) -> dict[str, Any]:
        """State of a parameter, made at its first step: distributed checkpoints count on that."""
        state: dict[str, Any] = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            if compressor is None:
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            else:
                dtype = adam.moment_dtype(p.dtype)
                shape = compressor.moment_shape(tuple(p.shape))
                state["exp_avg"] = torch.zeros(shape, dtype=dtype, device=p.device)
                state["exp_avg_sq"] = torch.zeros(shape, dtype=dtype, device=p.device)
                state.update(compressor.init_state(tuple(p.shape), p.device, dtype))
        return state

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
        """Load what :meth:`state_dict` returned, dtypes included.

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
            if theirs != mine.describe():
                raise ValueError(
                    f"group {number} was saved with the compressor {theirs}, but this optimizer "
                    f"has {mine.describe()}: build it with the saved options"
                )
        super().load_state_dict(state_dict)
        for group, mine in zip(self.param_groups, own, strict=True):
            group["compressor"] = mine
        # torch casts every state tensor but "step" to the parameter's dtype: take the saved ones.
        places = [i for saved in saved_groups for i in saved["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for place, p in zip(places, parameters, strict=True):
            for key, value in state_dict["state"].get(place, {}).items():
                if isinstance(value, Tensor):
                    on_cpu = key in _CPU_STATE
                    device = torch.device("cpu") if on_cpu else p.device
                    self.state[p][key] = value.detach().to(device, copy=True)


#: Keys that torch's schedulers and others put into groups.
_OF_OTHERS = frozenset({"initial_lr", "max_lr", "min_lr", "name", "param_names", *_UNSUPPORTED})
#: Counters: read on the host at every step, so they never live on an accelerator.
_CPU_STATE = frozenset({"step", "basis_step"})


def _compressor(given: str | Compressor | None) -> Compressor:
    if isinstance(given, Compressor):
        return given
    if given is None or isinstance(given, str):
        return create("compressor", given or "none")
    raise TypeError(
        f"compressor must be a registered name, a Compressor or None, got {type(given).__name__}"
    )


def _is_plain(compressor: Compressor, p: Tensor) -> bool:
    return compressor.native or compressor.refuses(tuple(p.shape)) is not None


def _refuse_flags(flags: dict[str, Any]) -> None:
    for name, value in flags.items():
        if name not in _UNSUPPORTED:
            raise TypeError(f"CompressedAdamW has no option {name!r}")
        if value:
            raise ValueError(
                f"CompressedAdamW does not support {name}={value}: {_UNSUPPORTED[name]}"
            )


def _refuse_misspelt(group: dict[str, Any], *, known: list[str]) -> None:
    """Groups may carry keys of others (schedulers do), but not a near miss of an option."""
    for key in group:
        near = did_you_mean(key, known) if key not in (*known, *_OF_OTHERS) else ""
        if near:
            raise TypeError(f"a parameter group has no option {key!r}{near}")


def _check_options(group: dict[str, Any]) -> None:
    lr, (beta1, beta2) = group["lr"], group["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"a tensor lr must have one element, got shape {tuple(lr.shape)}")
    for name, value in (("lr", lr), ("eps", group["eps"]), ("weight_decay", group["weight_decay"])):
        if not value >= 0.0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    for name, beta in (("betas[0]", beta1), ("betas[1]", beta2)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"{name} must lie in [0, 1), got {beta}")


def _check_parameters(group: dict[str, Any]) -> None:
    compressor: Compressor = group["compressor"]
    plain: list[tuple[int, ...]] = []
    reason = None
    for p in group["params"]:
        shape = tuple(p.shape)
        refusal = compressor.refuses(shape)
        if p.is_complex() and not compressor.native:
            raise ValueError(f"complex parameters (here {p.dtype}) need compressor=None")
        if refusal and p.ndim >= 2:
            raise ValueError(
                f"the compressor {type(compressor).__name__} cannot take a parameter: {refusal}"
            )
        if refusal:
            plain.append(shape)
            reason = refusal
    if plain:
        numbers = sum(math.prod(shape) for shape in plain)
        warnings.warn(
            f"{len(plain)} parameter(s) with fewer than two dimensions ({numbers} numbers in all) "
            f"get plain AdamW, because {type(compressor).__name__} cannot take them ({reason}); "
            f"put them in a group with compressor=None to say so yourself",
            stacklevel=4,
        )
