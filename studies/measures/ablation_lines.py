"""The lines of the ablation: a method each, and where the search for its learning rate begins."""

from collections.abc import Mapping

__all__ = ["MINILM", "SMOLLM2", "cesgc_spec", "lines", "mesgc_spec"]

#: Line → where the walk begins, from earlier trials and the races at equal bytes.
MINILM: Mapping[str, float] = {
    **{"adamw": 3e-4, "sign-sgd": 3e-4, "galore": 3e-3, "lora": 3e-3, "mesgc": 1e-2},
    **{"mesgc + ρ": 3e-3, "cesgc": 1e-2, "adjoint": 3e-3, "explicit sparse": 1e-3},
}
SMOLLM2: Mapping[str, float] = {
    **{"adamw": 3e-4, "sign-sgd": 3e-4, "galore": 1e-3, "lora": 3e-3, "mesgc": 1e-3},
    **{"mesgc + ρ": 3e-4, "cesgc": 1e-3, "adjoint": 3e-4, "explicit sparse": 3e-4},
}

_SKETCH = "projection=srht,recovery=omp"


def mesgc_spec(c: int, s: int, kappa: float) -> str:
    """MESGC of c chunks, s entries in all."""
    return f"mesgc:chunks={c},sparsity={s},kappa={kappa},{_SKETCH}"


def cesgc_spec(c: int, s: int) -> str:
    """CESGC of c chunks, s entries in all, κ 8."""
    rank = 4 * max(1, s // c // 3)  # a chunk of the projected matrix must hold κ·s_c numbers
    return f"cesgc:rank={rank},chunks={c},sparsity={s},kappa=8,{_SKETCH}"


def lines(chunks: int) -> dict[str, str]:
    """Line → spec; 48 numbers a chunk where there is a choice.

    With 16 chunks that is what GaLore of rank 1 has for the matrices of MiniLM (384×384), with 24
    for those of SmolLM2 (576×576, 192×576); LoRA's least is more.
    """
    c, s = chunks, 3 * chunks
    return {
        "adamw": "adamw",
        "sign-sgd": "sign-sgd",
        "galore": "galore:rank=1",
        "lora": "lora:rank=1",
        "mesgc": mesgc_spec(c, s, 8),
        "mesgc + ρ": f"{mesgc_spec(c, s, 8)},residual=0.1",
        "cesgc": cesgc_spec(c, s),
        "adjoint": f"adjoint:chunks={c},measurements={24 * c}",
        "explicit sparse": f"explicit-sparse:entries={16 * c}",
    }
