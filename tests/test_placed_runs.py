"""Runs on a Ray cluster of several nodes on one machine: the files of a run in one process, whatever dies."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ecosystem
from ecosystem.errors import EcosystemError, TrainingError
from ecosystem.placement import workers as workers_module
from ecosystem.placement.spec import PlacementSpec
from ecosystem.placement.worker import versions
from ecosystem.placement.workers import Workers
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from tests.conftest import tiny
from tests.studies import small_runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unreported")]
ray = pytest.importorskip("ray", reason="the extra ray is not installed")
DOWNSTREAM = {"tasks": ["next_word"], "train": 8, "test": 6, "random": 1, "epochs": 1.0}


@pytest.fixture(scope="module")
def cluster():
    """Three nodes with two CPUs and one (imagined) GPU each; this process is connected to them."""
    from ray.cluster_utils import Cluster

    nodes = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**nodes, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**nodes)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def committed(folder) -> dict[str, Any]:
    """Size and hash of every committed file of a run, and of the arrays of weights, which may be in several files."""
    records = sorted((Path(folder) / "commits").glob("*.json"))
    found = {name: file for path in records for name, file in json.loads(path.read_text())["files"].items()}
    files = {name: file for name, file in found.items() if not name.startswith("weights/")}
    store = Store(Path(folder))
    for step in store.steps_with_weights():
        for model, arrays in store.weights(step).items():
            contents = {name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays}
            files[f"weights of {model} in step {step}"] = contents
    return files


@pytest.fixture(scope="module")
def local(tmp_path_factory, cache):
    """Return the files of a scenario's run in this process, which is made once."""
    runs = {}

    def run(scenario: Scenario) -> dict[str, Any]:
        key = scenario.fingerprint(), scenario.steps
        if key not in runs:
            out = tmp_path_factory.mktemp("local")
            runs[key] = committed(ecosystem.run(scenario, out=out, device="cpu", threads=1, cache=cache).path)
        return runs[key]

    return run


def placed(scenario: Scenario, out: Path, cache: Path, threads=1, **placement) -> dict[str, Any]:
    options = {"engine": "ray", **placement}
    run = ecosystem.run(scenario, out=out, device="cpu", threads=threads, cache=cache, placement=options)
    return committed(run.path)


def killing(monkeypatch, moments: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Kill the worker of the n-th call of a method, just after it was sent; return the moments, as they come."""
    submit, counts, done = Workers._submit, {}, []

    def submit_and_kill(self, call):
        task = submit(self, call)
        moment = counts.get(call.method, 0), call.method
        counts[call.method] = moment[0] + 1
        if moment in moments:
            done.append(moment)
            os.kill(self.processes[call.part.worker].number, signal.SIGKILL)
        return task

    monkeypatch.setattr(Workers, "_submit", submit_and_kill)
    return done


def counting(**changes) -> Scenario:
    """The tiny scenario with a model of n-grams, whose authors mark their text."""
    mark = {"kind": "watermark", "model": "tiny"}
    marking = {"trainers.naive.decoding.watermark": "mark", "trainers.careful.decoding.watermark": "mark"}
    spec = tiny(models={"tiny": {"preset": "trigram", "vocabulary": 300}}, policies__mark=mark, steps=2)
    return spec.override(marking).override({k.replace("__", "."): v for k, v in changes.items()})


def test_models_of_vectors_are_placed_too(cluster, local, tmp_path, cache):
    scenario = small_runs.scenario(steps=2)
    assert placed(scenario, tmp_path, cache, workers=2) == local(scenario)


def test_workers_on_three_nodes_write_the_numbers_of_one_process_whoever_is_killed_in_any_phase(
    cluster, local, tmp_path, cache, monkeypatch
):
    scenario = tiny(steps=2, measure__downstream=DOWNSTREAM)
    done = killing(monkeypatch, [(1, "generate"), (1, "fit"), (2, "map_members"), (7, "write")])
    assert placed(scenario, tmp_path, cache, workers=3, gpus_per_worker=0.5) == local(scenario)
    assert len(done) == 4


def test_a_run_survives_the_loss_of_a_node_that_no_other_can_replace(cluster, local, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(workers_module, "_RESTART_SECONDS", 3.0)
    node = cluster.add_node(num_cpus=3, object_store_memory=80_000_000)
    submit, lost = Workers._submit, []

    def submit_and_lose(self, call):
        if call.method == "fit" and not lost:
            lost.append(node)
            cluster.remove_node(node, allow_graceful=False)
        return submit(self, call)

    monkeypatch.setattr(Workers, "_submit", submit_and_lose)
    # Only this node is large enough; afterwards the worker shares another.
    assert placed(counting(), tmp_path, cache, threads=3, workers=1) == local(counting())
    assert lost == [node]


CHILD = """
import os, signal, sys
from ecosystem.cli.main import main
from ecosystem.placement.workers import Workers
submit, writes = Workers._submit, []
def submit_and_die(self, call):
    task = submit(self, call)
    writes.extend([call] if call.method == "write" else [])
    if len(writes) == 4:  # both workers are writing their weights of step 1
        os.kill(os.getpid(), signal.SIGKILL)
    return task
Workers._submit = submit_and_die
main()
"""


def test_a_run_whose_driver_is_killed_while_workers_write_continues_on_others(cluster, local, tmp_path, cache):
    scenario = counting()
    file = tmp_path / "world.toml"
    file.write_text(scenario.to_toml() + '\n[placement]\nengine = "ray"\nworkers = 2\n')
    options = ["run", str(file), "--address", cluster.address, "--out", str(tmp_path / "out"), "--device", "cpu"]
    child = [sys.executable, "-c", CHILD, *options, "--cache", str(cache)]
    died = subprocess.run(child, capture_output=True, text=True, timeout=120)
    folder = folder_of(scenario, tmp_path / "out")
    assert died.returncode == -signal.SIGKILL, died.stderr
    # A machine that an earlier test stopped may still be counted.
    assert re.search(r"placement  2 Ray workers on \d machines, 1 thread each, for 3 models", died.stdout)
    assert Run.open(folder).last_step == 0
    assert list((folder / "weights").glob(".*.part"))
    assert placed(scenario, tmp_path / "out", cache, workers=3) == local(scenario)
    assert Run.open(folder).verify() > 0 and not Run.open(folder).notes()
    assert not list((folder / "weights").glob(".*"))


def test_workers_send_weights_to_the_store_themselves(cluster, tmp_path, cache, monkeypatch):
    """The folder of this machine never holds them; a killed upload and a repeated one count for nothing."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = f"file://{tmp_path}/store"
    scenario = counting(weights_every=2)
    alone = ecosystem.run(scenario, out=tmp_path / "alone", device="cpu", threads=1, cache=cache)
    submit, dying = Workers._submit, []

    def submit_and_stop(self, call):
        task = submit(self, call)
        if call.method == "write" and call.arguments[1].step == 1 and not dying:
            self.ray.get(task)  # uploaded, but never committed
            dying.append(call)
            raise KeyboardInterrupt
        return task

    monkeypatch.setattr(Workers, "_submit", submit_and_stop)
    placed = {"engine": "ray", "workers": 2}
    options = {"out": out, "device": "cpu", "threads": 1, "cache": cache, "placement": placed}
    with pytest.raises(KeyboardInterrupt):
        ecosystem.run(scenario, **options)
    weights = tmp_path / "store" / folder_of(scenario, "") / "weights"
    assert len(list(weights.glob("000001-*"))) == 1
    mirror = Mirror(out).folder
    assert not list(mirror.rglob("*.safetensors"))
    shutil.rmtree(mirror)
    run = ecosystem.run(scenario, **options)
    names = sorted(path.name for path in weights.iterdir())
    assert [name[:13] for name in names] == [f"00000{step}-00000{part}" for step in (0, 2) for part in (0, 1)]
    named = [json.loads(path.read_text())["files"] for path in (weights.parent / "commits").iterdir()]
    assert {f"weights/{name}" for name in names} <= {name for files in named for name in files}
    theirs, mine = (r.store.weights(2)["tiny"] for r in (run, alone))
    assert set(theirs) == set(mine) and all((theirs[name] == mine[name]).all() for name in mine)
    assert run.metrics.equals(Run.open(alone.path).metrics)


def test_errors_are_those_of_a_run_in_one_process(cluster, tmp_path, cache):
    diverging = tiny(steps=1, trainers__careful__learning_rate=1e30)
    said = []
    for placement in ({"engine": "local"}, {"engine": "ray", "workers": 1}):
        with pytest.raises(TrainingError) as error:
            ecosystem.run(diverging, out=tmp_path, device="cpu", threads=1, cache=cache, placement=placement)
        said.append(str(error.value))
    assert said[0] == said[1] and "step 1, careful/0" in said[0]


@pytest.mark.parametrize(
    ("spec", "threads", "sentence"),
    [
        ({"workers": 7}, 1, r"--workers 7 --threads 1: this Ray cluster has room for 6 workers .*; give fewer"),
        ({}, 3, r"--threads 3: no machine of this Ray cluster is large enough \(it has 2 CPUs"),
        ({"gpus_per_worker": 2.0}, 1, r"--gpus-per-worker 2: no machine of this Ray cluster is large enough"),
        ({"workers": 4, "gpus_per_worker": 1.0}, 1, r"--workers 4 .* --gpus-per-worker 1: .* room for 3 workers"),
    ],
)
def test_what_a_cluster_has_no_room_for_is_told(cluster, spec, threads, sentence):
    with pytest.raises(EcosystemError, match=sentence):
        Workers(PlacementSpec(**spec), threads, 100, print)
    assert Workers(PlacementSpec(gpus_per_worker=0.5), 1, 100, print).count == 6


def test_a_worker_that_dies_again_and_again_ends_the_run(cluster, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(workers_module, "_ATTEMPTS", 2)
    killing(monkeypatch, [(number, "fit") for number in range(9)])
    sentence = r"worker 0 \(3 models; .*\) was lost 2 times during fit .* smaller workers"
    with pytest.raises(EcosystemError, match=sentence):
        placed(counting(), tmp_path, cache, workers=1)


def test_other_versions_of_packages_are_refused(cluster, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(workers_module, "versions", lambda: {**versions(), "torch": "1.0"})
    with pytest.raises(EcosystemError, match=r"a machine of the Ray cluster, has torch .* instead of 1.0; numbers"):
        placed(small_runs.scenario(steps=1), tmp_path, cache, workers=1)


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(EcosystemError, match=r"--address 127.0.0.1:1: no response"):
        Workers(PlacementSpec(address="127.0.0.1:1"), 1, 1, print)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EcosystemError, match="pip install"):
        Workers(PlacementSpec(), 1, 1, print)
