"""Random streams that depend on a seed and a purpose, never on a device or on the call order."""

import hashlib

import numpy as np


def stream(seed: int, *purpose: object) -> np.random.Generator:
    """Return the random generator of ``(seed, *purpose)``.

    The purpose (an ensemble's name, for instance) is hashed together with the seed: otherwise data
    drawn elsewhere with the same integer seed could *be* the first row of A. Philox is
    counter-based and draws on the CPU, so the numbers are the same for every device, dtype and
    world size.

    Args:
        seed: any Python integer.
        purpose: what the numbers are for; every part is hashed by its ``str``.

    Returns:
        A NumPy generator of its own; the global generators are not touched.
    """
    text = "\x1f".join(("sgc", str(int(seed)), *map(str, purpose)))
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
