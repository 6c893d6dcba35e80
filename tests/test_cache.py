"""The cache: which folder it is, that every command takes it, and that nothing else is used in its place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.cache import cache_folder
from ecosystem.cli.main import cli
from ecosystem.formats import format_duration
from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.run_plan import RunPlan
from tests.conftest import ROOT, tiny

WORLD = """
name = "cached"
steps = 1
[sources.docs]
kind = "python_docs"
[web]
sites = 4
initial = { source = "docs", documents = 60 }
[models.small]
kind = "ngram"
order = 2
vocabulary = 300
context = 64
[trainers.lab]
model = "small"
scrape = { docs = 20, strategy = "reach" }
publish = 2
"""
BUILDING = ("run", "branch", "study", "frontier", "validate", "view", "audit", "tasks")


def test_what_is_chosen_comes_before_the_variable_and_that_before_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECOSYSTEM_CACHE", "of/variable")
    assert cache_folder("~/chosen") == Path.home() / "chosen"
    assert cache_folder() == tmp_path / "of/variable"
    monkeypatch.setenv("ECOSYSTEM_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "own/ecosystem"
    assert tmp_path / "models" not in cache_folder().parents


@pytest.mark.parametrize("name", BUILDING)
def test_every_command_that_builds_a_world_has_the_option(name):
    assert "cache" in {parameter.name for parameter in cli.commands[name].params}


def test_jobs_of_a_study_name_the_cache_unless_it_is_the_users_own(tmp_path, monkeypatch):
    def named(options: ExecutionOptions) -> str:
        plan = RunPlan(tmp_path, options, str(tmp_path))
        plan.add_run(tiny(), "one")
        return plan.jobs[0].cache

    monkeypatch.chdir(tmp_path)
    assert named(ExecutionOptions(cache="here")) == str(tmp_path / "here")
    monkeypatch.setenv("ECOSYSTEM_CACHE", "there")
    assert named(ExecutionOptions()) == str(tmp_path / "there")
    monkeypatch.delenv("ECOSYSTEM_CACHE")
    assert named(ExecutionOptions()) == ""  # another machine has another user


@pytest.mark.slow
def test_a_command_writes_where_it_is_told_and_nowhere_else(tmp_path):
    """Also from a current folder that cannot be written to."""
    (tmp_path / "world.toml").write_text(WORLD)
    (tmp_path / "current" / "models" / "cache").mkdir(parents=True)
    (tmp_path / "current").chmod(0o555)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ECOSYSTEM_CACHE": "variable"}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "own")}
    command = [sys.executable, "-m", "ecosystem", "run", "../world.toml", "--quiet"]
    command += ["--cache", "../chosen", "--out", "../outputs"]
    done = subprocess.run(command, cwd=tmp_path / "current", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {"python-docs-": 0, "tokenizer.json": 1, "vega-": 0}  # of files and of those in folders
    found = [path for path in (tmp_path / "chosen").rglob("*") if path.is_file()]
    for name, depth in names.items():
        assert any(path.name.startswith(name) and path.parents[depth] == tmp_path / "chosen" for path in found), name
    written = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert written == {"world.toml", "current", "chosen", "outputs"}
    assert [path.name for path in (tmp_path / "current").rglob("*")] == ["models", "cache"]
    assert not list((tmp_path / "home").rglob("ecosystem"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (3 * 86400, "3 days")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
