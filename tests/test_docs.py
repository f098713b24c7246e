"""The page of methods knows every plug-in."""

import pathlib

import pytest

import sgc
from sgc.finetune.methods import METHODS

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "methods.md").read_text("utf-8")


@pytest.mark.parametrize("kind", ["compressor", "residual", "source"])
def test_every_plug_in_has_a_row(kind):
    missing = [name for name in sgc.available(kind) if f"`{name}` |" not in PAGE]
    assert not missing


def test_every_method_that_changes_the_model_has_a_row():
    assert not [name for name in METHODS if name != "adamw" and f"`{name}` |" not in PAGE]
