"""What several tests of the studies start from."""

import pytest

import sgc
from studies import plugins
from studies import study as registry


@pytest.fixture
def toy_parts_alone(monkeypatch):
    """The one study is that of the tests' plug-ins; what they register is gone afterwards."""
    monkeypatch.setattr(registry, "STUDIES", {"parts": "tests.studies.toy_parts"})
    monkeypatch.setattr("studies.cli.STUDIES", registry.STUDIES)
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.setattr(plugins, "_of_files", {})
    before = set(sgc.available("recovery"))
    yield
    for name in set(sgc.available("recovery")) - before:
        sgc.unregister("recovery", name)
