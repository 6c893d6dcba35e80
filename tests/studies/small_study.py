"""A small study and a small frontier of one world, with their runs, for tests."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.frontier import run_frontier
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.results import Results
from ecosystem.studies.run_study import StudyResult, run_study
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from ecosystem.studies.threshold import Threshold

WORLD = """
name = "loop"
steps = 4
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 4
initial = { source = "truth", documents = 80 }
[[changes]]
at = 2
set = { "web.retain" = ["newest"] }
[policies.newest]
kind = "replace"
[policies.fresh]
kind = "inject_real"
source = "truth"
fraction = 0.5
mode = "fresh"
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 4
model = "normal"
sites = 1
scrape = { docs = 100, strategy = "reach", links = 0 }
publish = 20
[measure]
synthetic = 0
sites = false
"""


STUDY = """
name = "small"
base = "loop.toml"
seeds = [1, 2, 3]
reference = "alone"
[arms.alone]
[arms.helped]
"trainers.lab.select" = ["fresh"]
[arms.more]
"trainers.lab.select" = ["fresh"]
"policies.fresh.fraction" = 0.8
[[measures]]
metric = "variance"
[[measures]]
metric = "w2"
of = "lab"
window = [2, 4]
"""


FRONTIER = """
name = "where"
base = "loop.toml"
seeds = [1, 2, 3]
path = "trainers.lab.publish"
range = { low = 5, high = 200, whole = true, scale = "log" }
measure = { metric = "variance" }
limit = 0.8
precision = 0.1
"""
SERIAL = ExecutionOptions(engine="serial", threads=1)


def load(folder: Path, text: str = STUDY) -> Study:
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def run(folder: Path, text: str = STUDY) -> StudyResult:
    return run_study(load(folder, text), folder, SERIAL, StudyProgress(quiet=True), out=str(folder / "out"))


def search(folder: Path, text: str = FRONTIER) -> tuple[Frontier, Threshold, Path]:
    """Run a frontier; return it, its threshold and the path of its report."""
    (folder / "where.toml").write_text(text)
    frontier = Frontier.load(folder / "where.toml")
    out = str(folder / "out")
    return frontier, *run_frontier(frontier, folder, SERIAL, StudyProgress(quiet=True), out=out)


def axes(design: str, values: str) -> str:
    """The text of a study of axes."""
    return STUDY[: STUDY.index("reference")] + f'[axes]\n{values}\n{design}\n[[measures]]\nmetric = "variance"\n'


def results_of(study: Study, rows: list[tuple[str, str, int, float]], measure: str = "variance") -> Results:
    """Results with these values (arm, world, seed, value) of one measure and no costs."""
    cells = pl.DataFrame([r[:3] for r in rows], schema=["arm", "world", "seed"], orient="row")
    values = cells.with_columns(measure=pl.lit(measure), value=pl.Series([r[3] for r in rows]))
    runs = cells.with_columns(run=pl.lit("x"), error=pl.lit(None, pl.String), attempts=pl.lit(0), seconds=pl.lit(1.0))
    series = cells.with_columns(
        of=pl.lit(""), metric=pl.lit(measure), step=pl.lit(4, pl.Int64), value=pl.Series([r[3] for r in rows])
    )
    costs = cells.with_columns(cost=pl.lit("reviews"), amount=pl.lit(0.0)).clear()
    return Results(study, runs, values, series, costs)
