"""The points of the ablation, as fields of its config: methods, sizes, and where walks begin."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

__all__ = ["cesgc_spec", "default", "lines", "mesgc_spec", "smoke", "smollm2", "smollm2_sizes"]

Rates = Mapping[str, float]
Fields = dict[str, Any]

#: Line → where the walk begins, from earlier trials and the races at equal bytes.
MINILM: Rates = {
    **{"adamw": 3e-4, "sign-sgd": 3e-4, "galore": 3e-3, "lora": 3e-3, "mesgc": 1e-2},
    **{"mesgc + ρ": 3e-3, "cesgc": 1e-2, "adjoint": 3e-3, "explicit sparse": 1e-3},
}
SMOLLM2: Rates = {
    **{"adamw": 3e-4, "sign-sgd": 3e-4, "galore": 1e-3, "lora": 3e-3, "mesgc": 1e-3},
    **{"mesgc + ρ": 3e-4, "cesgc": 1e-3, "adjoint": 3e-4, "explicit sparse": 3e-4},
}

#: The same with all examples of SIQA, from the axis of examples.
SIQA: Rates = {
    **{"adamw": 3e-4, "sign-sgd": 3e-4, "galore": 1e-2, "lora": 1e-2, "mesgc": 1e-2},
    **{"mesgc + ρ": 3e-3, "cesgc": 3e-2, "adjoint": 3e-3, "explicit sparse": 3e-3},
}

#: Entries a chunk; κ; so a sketch of c chunks has 2·κ·s = 48·c numbers.
_KEPT, _KAPPA = 3, 8
#: A of ±1 has 2^(k_c − 1) different columns at most: some points here have more atoms than that.
_SKETCH = "projection=gaussian,recovery=auto"


def mesgc_spec(c: int, s: int, kappa: float = _KAPPA) -> str:
    """MESGC of c chunks, s entries in all."""
    return f"mesgc:chunks={c},sparsity={s},kappa={kappa},{_SKETCH}"


def cesgc_spec(c: int) -> str:
    """CESGC of c chunks; of rank 4, or more where its chunks would have less than 96 entries."""
    spec = f"cesgc:rank={max(4, c // 4)},chunks={c},sparsity={_KEPT * c},kappa={_KAPPA}"
    return f"{spec},{_SKETCH}"


def lines(chunks: int) -> dict[str, str]:
    """Line → spec, with 48·``chunks`` numbers a matrix where there is a choice.

    With 16 chunks that is what GaLore of rank 1 has for the matrices of MiniLM (384×384), with 24
    for those of SmolLM2 (576×576, 192×576); LoRA of rank 1 has 2 and 1.7 times as many.
    """
    return {
        "adamw": "adamw",
        "sign-sgd": "sign-sgd",
        "galore": "galore:rank=1",
        "lora": "lora:rank=1",
        **_sketches(chunks),
    }


def default() -> Iterator[Fields]:
    """MiniLM on the snippets, every axis; the longest trainings first."""
    whole = 10_250  # the training part
    counts = {250: 250, 1000: 1000, 4000: 4000, whole: 0}
    return chain(
        _batches((16, 64, 256, 512)),
        _shapes(),
        _examples(counts, MINILM, chunks=16),
        _states((1, 4, 8, 16, 64, 256), MINILM, side=384, ranks=(1, 4, 16)),
    )


def smollm2(
    data: str,
    counts: Mapping[int, int],
    *,
    steps: int,
    max_length: int,
    whole_state: Mapping[int, int] = MappingProxyType({}),
) -> Iterator[Fields]:
    """SmolLM2 on a task of the paper: Figure 2(a).

    ``whole_state``: like ``counts``, where only AdamW, sign-SGD and the frozen model are asked.
    """
    task = _smollm2(data, steps=steps, max_length=max_length)
    few = _examples(whole_state, SMOLLM2, chunks=24, **task)
    asked = (point for point in few if point["label"] in ("frozen", "adamw", "sign-sgd"))
    return chain(_examples(counts, SMOLLM2, chunks=24, **task), asked)


def smollm2_sizes(data: str, rates: Rates, *, steps: int, max_length: int) -> Iterator[Fields]:
    """SmolLM2 on a task of the paper, all examples: Figures 2(b) and 3, and ρ."""
    task = _smollm2(data, steps=steps, max_length=max_length)
    for point in _states((6, 24, 96), rates, side=576, ranks=(1, 4), **task):
        if point["label"] != "mesgc + ρ":
            yield point
    rate = rates["mesgc"]
    for kappa in (4, 6, 7, 8):
        yield _point("kappa", kappa, "mesgc", mesgc_spec(24, 72, kappa), rate, **task)
    for label, chunker in (("mesgc", "permuted"), ("mesgc, contiguous", "contiguous")):
        for c in (6, 24, 72):
            spec = f"{mesgc_spec(c, 72)},chunker={chunker}"
            yield _point("chunks", c, label, spec, rate, **task)
    for s in (24, 72, 288):
        yield _point("sparsity", s, "mesgc", mesgc_spec(24, s), rate, **task)
    for rho in (0, 0.01, 0.1, 1):
        own = rate if rho < 0.03 else rates["mesgc + ρ"]
        yield _point("residual", rho, "mesgc", f"{mesgc_spec(24, 72)},residual={rho}", own, **task)


def _smollm2(data: str, *, steps: int, max_length: int) -> Fields:
    return {
        **{"model": "smollm2", "data": data, "max_length": max_length, "steps": steps},
        **{"precision": "autocast", "compile": True, "choose_by": "loss"},
    }


def smoke() -> Iterator[Fields]:
    """Two points, in seconds."""
    tiny = {
        **{"steps": 2, "batch_size": 4, "examples": 40, "test_examples": 20, "repeats": 2},
        **{"device": "cpu", "max_length": 16, "choose_by": "loss"},
    }
    for axis, x, line, patience in (("states", 768, "mesgc", 1), ("residual", 0.1, "mesgc + ρ", 0)):
        yield _point(axis, x, line, lines(16)[line], 1e-3, patience=patience, **tiny)


def _point(axis: str, x: float, label: str, spec: str, rate: float, **more: Any) -> Fields:
    return {"axis": axis, "x": x, "label": label, "spec": spec, "lr": rate, **more}


def _frozen(axis: str, x: float, **task: Any) -> Fields:
    return _point(axis, x, "frozen", "frozen", 1e-3, patience=0, **task)


def _sketches(c: int) -> dict[str, str]:
    mesgc, numbers = mesgc_spec(c, _KEPT * c), 2 * _KAPPA * _KEPT * c
    return {
        "mesgc": mesgc,
        "mesgc + ρ": f"{mesgc},residual=0.1",
        "cesgc": cesgc_spec(c),
        "adjoint": f"adjoint:chunks={c},measurements={numbers // 2}",
        "explicit sparse": f"explicit-sparse:entries={numbers // 3}",  # two moments and a place
    }


def _examples(
    counts: Mapping[int, int], rates: Rates, *, chunks: int, **task: Any
) -> Iterator[Fields]:
    """``counts``: number of examples → the option that asks for it."""
    for count, option in counts.items():
        yield _frozen("examples", count, examples=option, **task)
        for label, spec in lines(chunks).items():
            yield _point("examples", count, label, spec, rates[label], examples=option, **task)


def _states(
    chunks: Sequence[int], rates: Rates, *, side: int, ranks: Sequence[int], **task: Any
) -> Iterator[Fields]:
    """Sketches of more and more chunks with equal s_c and κ; GaLore's and LoRA's ranks.

    ``side`` is that of the square matrices; smaller ones have less by GaLore, LoRA and AdamW.
    """
    for c in chunks:
        for label, spec in _sketches(c).items():
            yield _point("states", 2 * _KAPPA * _KEPT * c, label, spec, rates[label], **task)
    for rank in ranks:
        for label, numbers in (("galore", 2 * side * rank), ("lora", 4 * side * rank)):
            yield _point("states", numbers, label, f"{label}:rank={rank}", rates[label], **task)
    yield _point("states", 0, "sign-sgd", "sign-sgd", rates["sign-sgd"], **task)
    yield _frozen("states", 0, **task)
    yield _point("states", 2 * side**2, "adamw", "adamw", rates["adamw"], **task)


def _shapes() -> Iterator[Fields]:
    """One of c, s, κ and ρ at a time."""
    rate = MINILM["mesgc"]
    for label, chunker in (("mesgc", "permuted"), ("mesgc, contiguous", "contiguous")):
        for c in (1, 4, 16, 48):
            yield _point("chunks", c, label, f"{mesgc_spec(c, 48)},chunker={chunker}", rate)
    for s in (16, 48, 192, 768):
        yield _point("sparsity", s, "mesgc", mesgc_spec(16, s), rate)
    for kappa in (3, 4, 5, 6, 7, 8, 16):
        yield _point("kappa", kappa, "mesgc", mesgc_spec(16, 48, kappa), rate)
    for kappa in (4, 5, 6, 7, 8):  # d_c 2048 and s_c 31, as in the paper
        yield _point("kappa", kappa, "mesgc, s_c 31", mesgc_spec(72, 2232, kappa), rate)
    for rho in (0, 0.01, 0.03, 0.1, 0.3, 1):
        own = rate if rho < 0.03 else 3e-3 if rho < 0.3 else 1e-3
        yield _point("residual", rho, "mesgc", f"{mesgc_spec(16, 48)},residual={rho}", own)


def _batches(sizes: Sequence[int]) -> Iterator[Fields]:
    for size in sizes:
        task = {"batch_size": size, "steps": 17_920 // size}
        yield _frozen("batch", size, **task)
        for label, spec in lines(16).items():
            # Rates rise slower than the batch; the walk does the rest.
            yield _point("batch", size, label, spec, MINILM[label] * (size / 16) ** 0.25, **task)
