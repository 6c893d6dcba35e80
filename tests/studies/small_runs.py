"""Small runs, and a small study of them, for tests of jobs and engines."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ecosystem.runs.remote.places import open_run
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import Job, run_job
from ecosystem.studies.spec.study import Study

WORLD = """
name = "tiny-loop"
steps = 5
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 3
initial = { source = "truth", documents = 60 }
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 3
model = "normal"
sites = 1
scrape = { docs = 20, strategy = "reach", links = 0 }
publish = 20
[measure]
synthetic = 0
sites = false
"""
TEXT = """
name = "tiny-text"
steps = 2
[sources.docs]
kind = "text"
path = "docs/*.txt"
held_out = 0.2
[web]
sites = 4
initial = { source = "docs", documents = 30 }
[models.small]
kind = "ngram"
order = 2
vocabulary = 300
context = 64
[trainers.lab]
model = "small"
scrape = { docs = 20, strategy = "reach" }
publish = 4
"""
STUDY = """
name = "tiny-study"
base = "world.toml"
seeds = [1, 2]
[[measures]]
metric = "variance"
[arms.plain]
[arms.more]
"trainers.lab.publish" = 40
"""


def scenario(**changes) -> Scenario:
    """The small world, with more dotted paths set (``__`` is read as a dot)."""
    return Scenario.parse(tomllib.loads(WORLD)).override({k.replace("__", "."): v for k, v in changes.items()})


def job(out, spec: Scenario, **options) -> Job:
    return Job(spec.to_toml(), ".", str(out), **options)


def study(folder: Path, text: str = STUDY, world: str = WORLD) -> Study:
    (folder / "world.toml").write_text(world)
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def numbers(place) -> pl.DataFrame:
    """All metrics of a run except its times."""
    return open_run(str(place)).metrics.filter(pl.col("metric") != "wall_seconds")


def undisturbed(spec: Scenario, out: Path) -> pl.DataFrame:
    """The metrics of a scenario that is run here at once."""
    return numbers(run_job(job(out, spec)))


def until(condition: Callable, seconds: float = 60.0):
    """Wait until a condition is true and return its value; fail the test if it never is."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "this never came"
        time.sleep(0.01)
    return value
