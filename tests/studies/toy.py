"""Toy: is a sum of uniform numbers what it should be?

A study for the tests of the runner; the points with the value 13 fail.
"""

import time
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from rich.table import Table

from studies.study import Preset, product

PAIRED = ("method",)


@dataclass(frozen=True, kw_only=True)
class Config:
    value: int
    method: str = "sum"
    device: str = "cpu"
    seconds: float = 0.0


PRESETS = {
    "smoke": Preset(configs=lambda: product(Config, value=[1, 2], method=["sum", "mean"]), seeds=2),
    "default": Preset(configs=lambda: product(Config, value=[1, 13, 2])),
    "slow": Preset(configs=lambda: product(Config, value=range(20, 40), seconds=[0.1]), seeds=2),
}


def trial(config, generator):
    if config.value == 13:
        raise ArithmeticError("thirteen")
    time.sleep(config.seconds)
    drawn = torch.rand(config.value + 1, generator=generator)
    return {"drawn": drawn.tolist(), "answer": float(getattr(drawn, config.method)())}


def figure(rows):
    made = Figure()
    made.subplots().plot([row.config["value"] for row in rows], [row.seed for row in rows])
    return made


def table(rows):
    made = Table("value", "answer")
    for row in rows:
        made.add_row(str(row.config["value"]), f"{row.metrics['answer']:.3f}")
    return made
