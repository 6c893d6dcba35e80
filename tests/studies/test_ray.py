"""The engine of a Ray cluster."""

from __future__ import annotations

import shutil
import sys

import pytest

from ecosystem.errors import EcosystemError
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.run import folder_of
from ecosystem.studies.executors.jobs import run_jobs
from ecosystem.studies.executors.options import ExecutionOptions, start_engine
from tests.studies.processes import kill_at
from tests.studies.small_runs import job, numbers, scenario, undisturbed


@pytest.mark.slow
def test_ray_measures_the_same_survives_a_lost_worker_and_says_what_it_has_no_room_for(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    specs = [scenario(steps=40, seed=seed) for seed in (1, 2)]
    folder = folder_of(specs[0], tmp_path / "ray")
    engine = start_engine(ExecutionOptions("ray", jobs=2))
    try:
        killer = kill_at(str(folder), folder, 3)
        jobs = [job(tmp_path / "ray", specs[0]), job(f"file://{tmp_path}/bucket", specs[1])]
        results = run_jobs(jobs, engine)
        killer.join()
        assert [result.attempts for result in results] == [2, 1], results
        for spec, result in zip(specs, results, strict=True):
            assert numbers(result.run).equals(undisturbed(spec, tmp_path / "undisturbed"))
        with pytest.raises(EcosystemError, match=r"--threads 3: no machine of this Ray cluster .* 2 CPUs"):
            start_engine(ExecutionOptions("ray", threads=3))
        with pytest.raises(EcosystemError, match=r"--gpus 0.5: no machine"):
            start_engine(ExecutionOptions("ray", gpus=0.5))
        import ray

        assert ray.is_initialized()  # an engine does not stop a cluster that it did not start
    finally:
        engine.close()
        shutil.rmtree(Mirror(f"file://{tmp_path}/bucket").folder)


@pytest.mark.slow
def test_ray_that_is_not_there_is_told_in_a_sentence(monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(EcosystemError, match=r"--address 127.0.0.1:1: no response"):
        start_engine(ExecutionOptions("ray", address="127.0.0.1:1"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EcosystemError, match="pip install"):
        start_engine(ExecutionOptions("ray"))
