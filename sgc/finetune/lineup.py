"""Who races when nobody is named."""

from collections.abc import Mapping

__all__ = ["FAMILIES", "METHODS", "REFERENCES", "family_of"]

_SRHT = "projection=srht,recovery=omp"  # A is a byte a column, and no copy of it is written out

#: Family → label → spec.
FAMILIES: Mapping[str, Mapping[str, str]] = {
    "no state, or V alone": {
        "frozen": "frozen",
        "sgd": "sgd",
        "normalised sgd": "normalised-sgd",
        "sign-sgd": "sign-sgd",
        "adafactor": "adafactor",
    },
    "subspaces": {
        "galore": "galore",
        "galore + ρ": "galore:residual=0.1",
        "galore, adafactor": "galore:inner=adafactor",
        "fira": "fira",
        "apollo": "apollo",
        "frugal": "frugal",
        "flora": "flora",
        "osd": "online-subspace-descent",
        "ldadam, no EF": "ldadam:error_feedback=false",
        "adarankgrad": "adarankgrad",
    },
    "sketches": {
        "mesgc": f"mesgc:{_SRHT}",
        "mesgc + ρ": f"mesgc:{_SRHT},residual=0.1",
        "cesgc": f"cesgc:{_SRHT}",
        "adjoint": "adjoint:chunks=16",
        "adafactor + sketched M": "adafactor:inner=adjoint,inner.rule=momentum,inner.chunks=16",
    },
    "coordinates, wavelets, adapters": {
        "explicit sparse": "explicit-sparse",
        "explicit sparse + ρ": "explicit-sparse:residual=0.1",
        "sift": "sift",
        "gwt, details": "gwt:details=true",
        "gwt + ρ": "gwt:residual=0.1",
        "lora": "lora",
        "bitfit": "bitfit",
    },
}

#: Label → spec.
METHODS: Mapping[str, str] = {
    label: spec for family in FAMILIES.values() for label, spec in family.items()
}

#: What is raced whatever it takes, to be compared with.
REFERENCES: Mapping[str, str] = {"adamw": "adamw"}


def family_of(label: str) -> str:
    """The family of a label; empty for one that is not in the line-up."""
    return next((name for name, members in FAMILIES.items() if label in members), "")
