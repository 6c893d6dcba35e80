"""Fixtures for tests of studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecosystem.studies.executors.local import Processes
from tests.studies.small_study import STUDY, WORLD


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the small study and its world."""
    (tmp_path / "loop.toml").write_text(WORLD)
    (tmp_path / "small.toml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def scratch(tmp_path_factory, monkeypatch):
    """A temporary folder in which this process, but no worker, makes runs that go to an object store."""
    place = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


@pytest.fixture(scope="module")
def processes():
    """An engine with two workers."""
    engine = Processes(2)
    yield engine
    engine.close()
