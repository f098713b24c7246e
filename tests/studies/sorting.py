"""What the tests of chunks and their bounds share."""

import torch

#: Inequalities that are proved, in the words of studies.measures.chunk_bounds.
HOLDS = ("corrected", "sharp", "repaired", "padded")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def oracle(g, chunker, s):
    """Places of G̃ and G̃', by sorting with Python; equal magnitudes in the order of places."""

    def best(places, count):
        return sorted(places, key=lambda i: (-abs(g[i]), i))[:count]

    slots = chunker.split(torch.arange(1.0, len(g) + 1).double()).long().tolist()
    chunked = [i for chunk in slots for i in best([p - 1 for p in chunk if p], s // chunker.chunks)]
    return set(best(range(len(g)), s)), set(chunked)
