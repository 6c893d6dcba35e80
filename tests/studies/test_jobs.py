"""Jobs: attempts, their results, and the numbers of a run whoever makes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import attempt, run_job, run_jobs
from ecosystem.studies.executors.local import Serial
from tests.studies.small_runs import TEXT, job, numbers, scenario


@pytest.mark.slow
def test_text_measures_the_same_on_serial_and_processes_and_a_source_that_vanished_costs_its_own_cell(
    tmp_path, processes
):
    for folder in ("docs", "gone"):
        (tmp_path / folder).mkdir()
        for i in range(40):
            words = [("a", "cat", "sees", "the", "house", "and", "runs")[(i * j + j // 3) % 7] for j in range(1, 50)]
            (tmp_path / folder / f"{i:02d}.txt").write_text(" ".join(words))
    (tmp_path / "world.toml").write_text(TEXT)
    good = Scenario.load(tmp_path / "world.toml")
    lost = good.override({"sources.docs.path": "gone/*.txt"}, base=tmp_path)
    shutil.rmtree(tmp_path / "gone")
    jobs = [
        replace(job(tmp_path / "many", spec), base=str(tmp_path), cache=str(tmp_path / "cache"))
        for spec in (lost, good)
    ]
    failed, whole = run_jobs(jobs, processes)
    assert failed.attempts == 1 and "gone" in failed.error and not failed.run  # once: the same would happen again
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1
    alone = run_job(replace(jobs[1], out=str(tmp_path / "alone")))
    assert numbers(alone).equals(numbers(whole.run)) and "cross_entropy" in set(numbers(alone)["metric"])


@pytest.mark.slow
def test_weighted_shares_do_not_depend_on_the_threads_of_polars():
    measure = (
        "import numpy as np, polars as pl; from ecosystem.metrics.tables import training_sets\n"
        "r = np.random.default_rng(0); n = 200_000\n"
        "d = pl.DataFrame({'reader': r.integers(0, 4, n), 'weight': r.random(n), 'synthetic': r.random(n) < 0.4,\n"
        "                  'depth': 3 * r.random(n), 'ai_share': r.random(n)})\n"
        "d = d.with_columns(pl.col('reader').cast(pl.String), verdict=pl.lit(None), source=pl.lit(None))\n"
        "print(pl.thread_pool_size(), sorted(training_sets(d, 1).select('id', 'metric', 'value').rows()))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", measure],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "7")
    ]
    assert printed[0].startswith("1 ") and printed[1].startswith("7 ") and printed[0][2:] == printed[1][2:]
    assert "depth" in printed[0]


@pytest.mark.slow
def test_an_attempt_that_may_succeed_later_is_repeated_after_a_pause_and_at_most_three_times(tmp_path):
    spec = scenario(steps=2)
    folder = folder_of(spec, tmp_path)
    began = time.monotonic()
    with Store(folder).lock():
        (result,) = run_jobs([job(tmp_path, spec)], Serial())
    assert result.attempts == 3 and "another process is working on this run" in result.error
    assert time.monotonic() - began > 2


def test_arms_of_a_run_that_failed_say_so(tmp_path):
    bad = job(tmp_path, scenario(), threads=1, device="cuda")
    results = run_jobs([bad, job(tmp_path, scenario(seed=2), parent_job=0)], Serial())
    assert results[1].attempts == 0 and results[1].error.startswith("the run that it branches from failed: --device")


def test_a_job_that_does_not_fit_its_memory_fails_for_good(tmp_path):
    failed = attempt(0, job(tmp_path, scenario(steps=1), memory=10**8))
    assert failed.final and "of memory, but --memory allows 100 MB" in failed.error
    assert Run.open(run_job(job(tmp_path, scenario(steps=1), memory=10**10))).last_step == 1


def test_a_run_begun_with_other_threads_keeps_them_where_its_numbers_depend_on_them(tmp_path, monkeypatch):
    families = {type(family) for family in scenario().models.values()}
    for family in families:
        monkeypatch.setattr(family, "depends_on_threads", True)
    run_job(job(tmp_path, scenario(steps=1), threads=2))
    assert Run.open(run_job(job(tmp_path, scenario(steps=2)))).machine.threads == 2
    failed = attempt(0, job(tmp_path, scenario(steps=3), threads=1))
    assert failed.final and "Give --device cpu --threads 2" in failed.error
    for family in families:
        monkeypatch.setattr(family, "depends_on_threads", False)
    assert attempt(0, job(tmp_path, scenario(steps=3), threads=1)).run
