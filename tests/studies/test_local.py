"""Workers on this machine, whatever happens to them."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from ecosystem.errors import EcosystemError
from ecosystem.runs.run import Run, folder_of
from ecosystem.studies.executors.jobs import run_jobs
from ecosystem.studies.executors.local import Processes
from tests.studies.processes import kill_at
from tests.studies.small_runs import job, numbers, scenario, undisturbed


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_resumed_and_others_do_not_notice(tmp_path, processes):
    specs = [scenario(steps=30, seed=seed) for seed in (1, 2)]
    folder = folder_of(specs[0], tmp_path / "killed")
    killer = kill_at(str(folder), folder, 3)
    first, second = run_jobs([job(tmp_path / "killed", spec) for spec in specs], processes)
    killer.join()
    assert (first.attempts, second.attempts) == (2, 1)
    resumed = [len(Run.open(result.run).environment["resumed"]) for result in (first, second)]
    assert resumed == [1, 0]
    for spec, result in zip(specs, (first, second), strict=True):
        assert numbers(result.run).equals(undisturbed(spec, tmp_path / "undisturbed"))


@pytest.mark.slow
def test_a_worker_killed_between_two_jobs_costs_no_job_an_attempt(tmp_path):
    others, engine = set(multiprocessing.active_children()), Processes(1)
    try:
        assert run_jobs([job(tmp_path, scenario(steps=1))], engine)[0].run
        (worker,) = set(multiprocessing.active_children()) - others
        worker.kill()
        worker.join()
        assert run_jobs([job(tmp_path, scenario(steps=1, seed=2))], engine)[0].attempts == 1
    finally:
        engine.close()


@pytest.mark.slow
def test_the_script_that_asks_for_a_study_is_not_run_in_its_workers(tmp_path, monkeypatch):
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    Path(script.__file__).write_text("raise SystemExit('run again')")
    monkeypatch.setitem(sys.modules, "__main__", script)
    engine = Processes(1)
    try:
        assert run_jobs([job(tmp_path, scenario(steps=1))], engine)[0].attempts == 1
        assert sys.modules["__main__"] is script
    finally:
        engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads in /proc")
def test_workers_keep_to_their_threads_and_the_process_they_are_forked_from_has_started_none(tmp_path, processes):
    run_jobs([job(tmp_path, scenario(steps=1, seed=seed)) for seed in (5, 6)], processes)

    def threads(pid):
        return [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]

    for worker in multiprocessing.active_children():
        names = threads(worker.pid)
        assert sum(name.startswith("polars-") and name != "polars-ooc-clea" for name in names) <= 1
        started = [
            n for n in threads(psutil.Process(worker.pid).ppid()) if not n.startswith(("jemalloc", "polars-ooc"))
        ]
        assert len(started) == 1, f"forking after threads have started may hang: {started}"


def test_workers_are_started_again_if_the_process_they_are_forked_from_was_killed(tmp_path, monkeypatch):
    others, engine = set(multiprocessing.active_children()), Processes(1)
    start, failures = BaseProcess.start, [EOFError, ConnectionResetError]

    def start_if_lucky(process):
        if failures:
            raise failures.pop()
        start(process)

    monkeypatch.setattr(BaseProcess, "start", start_if_lucky)
    try:
        assert run_jobs([job(tmp_path, scenario(steps=1))], engine)[0].run
        failures += [EOFError] * 3
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
            worker.join()
        with pytest.raises(EcosystemError, match="no worker can be started"):
            run_jobs([job(tmp_path, scenario(steps=1, seed=2))], engine)
    finally:
        engine.close()
