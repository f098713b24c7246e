"""Small compressors and fixed gradients, shared by the suites."""

import pytest
import torch

import sgc
from projections.seeding import stream
from sgc.registry import option_names
from tests.conftest import makeable

COMPRESSORS = makeable("compressor")
every_compressor = pytest.mark.parametrize("name", COMPRESSORS)

#: Sizes that fit a 24×16 matrix; a compressor takes those that it has an option for.
SMALL = {
    "sparsity": 8,
    "chunks": 2,
    "kappa": 4,
    "rank": 4,
    "refresh_every": 5,
    "entries": 40,
    "measurements": 192,
    "level": 1,
}
#: Where those do not fit: at refresh_every=5 the momentum of FLoRA outgrows its decay.
SMALL_OF = {"flora": {"refresh_every": 10}}


def small(name, **options):
    known = option_names("compressor", name) or []
    sizes = {**SMALL, **SMALL_OF.get(name, {})}
    fitting = {key: value for key, value in sizes.items() if key in known}
    return sgc.create("compressor", name, **{**fitting, **options})


def takes(name, *options):
    return set(options) <= set(option_names("compressor", name) or [])


def normal(*shape, seed=0, dtype=torch.float32, device="cpu"):
    return torch.from_numpy(stream(seed, "test").standard_normal(shape)).to(device, dtype)


def run(
    make_optimizer, *, steps=50, shape=(24, 16), dtype=torch.float32, gradient=None, device="cpu"
):
    """Weights, on the CPU, after some steps on a fixed sequence of gradients."""
    w = torch.nn.Parameter(normal(*shape).to(device, dtype))
    optimizer = make_optimizer([w])
    for step in range(steps):
        w.grad = (gradient or (lambda t: normal(*shape, seed=t + 1)))(step).to(device, dtype)
        optimizer.step()
    return w.detach().cpu()


def weights_like(*shapes, dtype=torch.float32, device="cpu"):
    return [torch.nn.Parameter(normal(*s, seed=i).to(device, dtype)) for i, s in enumerate(shapes)]


def steps(optimizer, weights, count, *, start=0):
    for t in range(start, start + count):
        for i, w in enumerate(weights):
            w.grad = normal(*w.shape, seed=1000 * i + t).to(w)
        optimizer.step()


def compressed(compressor, **options):
    return lambda params: sgc.CompressedAdamW(params, compressor=compressor, **options)


def moments_with_a_drifting_support(steps=40, d=512, k=64, s=4, device="cpu"):
    """M̂ and V̂ of gradients whose largest entries move about, as real ones do."""
    A = sgc.create("projection", "gaussian", k, d)
    draw = stream(0, "drift")
    first = second = torch.zeros(16, k)
    for _ in range(steps):
        g = torch.zeros(16, d)
        for row in g:
            row[torch.from_numpy(draw.choice(64, s, replace=False))] = torch.from_numpy(
                draw.standard_normal(s)
            ).float()
        first = 0.9 * first + 0.1 * A.matvec(g)
        second = 0.999 * second + 0.001 * A.matvec(g * g)
    A = sgc.create("projection", "gaussian", k, d, device=device)
    first, second = first / (1 - 0.9**steps), second / (1 - 0.999**steps)
    return A, first.to(device), second.to(device)


def one_step(compressor, gradient, **options):
    """How far one step moves the weights, in units of the learning rate."""
    w = torch.nn.Parameter(torch.zeros(gradient.shape, dtype=torch.float64))
    w.grad = gradient
    sgc.CompressedAdamW([w], lr=1.0, compressor=compressor, **options).step()
    return -w.detach()
