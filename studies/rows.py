"""Between a study's configs and the lines of a result file."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from sgc.results import Result, ResultStore

__all__ = ["finished", "row", "run_id"]


def run_id(config: Any) -> str:
    """12 hexadecimal digits, equal for equal configs.

    Args:
        config: a dataclass of JSON values, or of such dataclasses.
    """
    text = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def row(kind: str, config: Any, metrics: dict[str, Any], *, here: dict[str, Any]) -> Result:
    """The line of a config that has run ``here``.

    The environment is that of the process's start: appending to a tracked file makes the revision
    look changed.
    """
    return Result(
        run_id=run_id(config),
        kind=kind,
        config=asdict(config),
        seed=config.seed,
        metrics=metrics,
        environment=here,
    )


def finished(store: ResultStore, kind: str, config: Any, *, here: dict[str, Any]) -> Result | None:
    """The latest row of an equal config from the same revision and GPU, or None.

    Without a revision, or with changes that are not committed, no row is known to come from this
    code: None.

    Args:
        store: where to look.
        kind: the study's name.
        config: what would be run.
        here: :func:`sgc.results.environment` of this process.
    """
    if here["git"] is None or here["git"].endswith("-dirty"):
        return None
    for found in reversed(store.load()):
        same_place = all(found.environment.get(key) == here[key] for key in ("git", "gpu"))
        if found.kind == kind and found.config == asdict(config) and same_place:
            return found
    return None
