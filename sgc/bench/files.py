"""Reports as files: JSON values, written whole or not at all."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgc.bench.timing import Timing
from sgc.files import replacing

__all__ = ["as_json", "write_json"]


def as_json(value: Any) -> Any:
    """Dataclasses, mappings and sequences as JSON values; a timing also shows its statistics.

    Example:
        >>> as_json({"step": Timing((3.0, 1.0, 2.0))})["step"]["median"]
        2.0
    """
    if isinstance(value, Timing):
        return {
            "median": value.median,
            "low": value.low,
            "high": value.high,
            "samples": list(value.samples),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON: the file is the old one or the whole new one, never a part.

    Raises:
        OSError: the folder cannot be written.
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode() + b"\n")
