"""Kinds by name: one class for each, whichever package it comes from."""

import importlib
import os
import subprocess
import sys

import pytest

from ecosystem.errors import ScenarioError
from ecosystem.policies.base import POLICIES
from ecosystem.registry import Registry

PLUGIN = '''
"""A plug-in."""
import polars as pl

from ecosystem.policies.base import POLICIES, Filter


@POLICIES.register("no_shouting")
class NoShouting(Filter):
    """Refuse nothing."""

    def refuse(self, docs, ctx):
        return pl.Series([None] * docs.height, dtype=pl.String)
'''


@pytest.fixture
def plugins(tmp_path):
    """Two installed packages with the same class for the same kind; the folder that they are installed in."""
    for name in ("first", "second"):
        (tmp_path / f"{name}_plugin.py").write_text(PLUGIN)
        metadata = tmp_path / f"{name}_plugin-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[ecosystem.plugins]\n{name} = {name}_plugin\n")
    return tmp_path


def listed(folder):
    path = os.pathsep.join([str(folder), *sys.path])
    command = [sys.executable, "-m", "ecosystem", "list", "policies"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.slow
def test_classes_of_the_same_name_from_two_modules_collide(plugins):
    refused = listed(plugins)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert {"first_plugin.NoShouting", "second_plugin.NoShouting"} <= set(refused.stderr.replace(";", " ").split())
    (plugins / "second_plugin-1.0.dist-info/entry_points.txt").unlink()
    alone = listed(plugins)
    assert alone.returncode == 0 and "no_shouting" in alone.stdout


def test_a_collision_is_refused_every_time_it_is_met(plugins, monkeypatch):
    monkeypatch.setattr(POLICIES, "_kinds", dict(POLICIES.all()))
    monkeypatch.syspath_prepend(str(plugins))
    monkeypatch.setattr(POLICIES, "_plugins_loaded", False)
    for _ in range(2):
        with pytest.raises(ScenarioError, match="rename one of them"):
            POLICIES.get("no_such_kind")


def test_a_module_that_is_imported_again_replaces_its_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("tool")
    monkeypatch.setattr("ecosystem.registry.TOOLS", registry, raising=False)
    (tmp_path / "tool_box.py").write_text(
        "from ecosystem.registry import TOOLS\n\n@TOOLS.register('hammer')\nclass Hammer:\n    pass\n"
    )
    module = importlib.import_module("tool_box")
    before = module.Hammer
    importlib.reload(module)
    assert registry.get("hammer") is module.Hammer is not before
