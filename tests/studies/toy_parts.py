"""Toy parts: which class is behind a solver's name?

A study for the tests of plug-ins: its grid is what was registered under names with ``toy-``.
"""

from dataclasses import dataclass

from matplotlib.figure import Figure

from sgc.registry import available, create
from studies.study import Preset, product


@dataclass(frozen=True, kw_only=True)
class Config:
    solver: str
    copy: int


def _toys():
    return [name for name in available("recovery") if name.startswith("toy-")]


PRESETS = {"smoke": Preset(configs=lambda: product(Config, solver=_toys(), copy=[0, 1]))}


def trial(config, generator):
    return {"class": type(create("recovery", config.solver)).__name__}


def figure(rows):
    return Figure()
