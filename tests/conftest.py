"""What every suite shares: devices, and the parts that can be made here."""

import pytest
import torch

import sgc

# Its entry points must not be on the path of the other tests.
collect_ignore = ["example_plugin"]

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def compressing() -> list[str]:
    """Registered projections that exist for k < d."""
    return [
        name
        for name in sgc.available("projection")
        if not getattr(sgc.registry.resolve("projection", name), "square", False)
    ]


def makeable(kind: str) -> list:
    """Every registered name of a kind; what needs something absent is skipped with a reason."""
    params = []
    for name in sgc.available(kind):
        try:
            sgc.registry.resolve(kind, name)
            if kind == "recovery":
                sgc.create(kind, name)
        except sgc.MissingDependencyError as error:
            params.append(pytest.param(name, marks=pytest.mark.skip(reason=str(error))))
        else:
            params.append(name)
    return params


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def global_rng_untouched():
    """Nothing in this project draws from the global generators."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "the global RNG was used"
