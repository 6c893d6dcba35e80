"""Runs in object stores."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.remote.places import last_step, open_run, place_of
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.studies.executors.jobs import attempt, run_job
from tests.studies.small_runs import job, numbers, scenario, undisturbed


@pytest.mark.slow
def test_a_run_in_an_object_store_is_the_run_in_a_folder(tmp_path, scratch):
    spec, out = scenario(weights_every=3), f"memory://{tmp_path}"
    place = run_job(job(out, spec))
    assert place == place_of(spec, out) and last_step(place) == 5
    assert numbers(place).equals(undisturbed(spec, tmp_path))
    folder, (store, root) = folder_of(spec, tmp_path), url_to_fs(place)
    kept = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    stored = {path.removeprefix(f"{root}/") for path in store.find(root)}
    assert stored == kept
    assert "weights/000003.safetensors" in stored and "weights/000004.safetensors" not in stored
    table = f"{root}/metrics/000002.parquet"
    store.pipe_file(table, store.cat_file(table)[:-1] + b"?")
    shutil.rmtree(Mirror(out).folder)
    with pytest.raises(StoreError, match=r"metrics/000002.parquet: .* has been altered"):
        numbers(place)
    failed = attempt(0, job(out, scenario(weights_every=3, steps=6)))
    assert failed.error.startswith(f"{place}/metrics/000002.parquet: ") and str(scratch) not in failed.error


def test_a_record_that_names_a_file_outside_its_run_writes_nothing(tmp_path, scratch):
    spec, out = scenario(steps=1), f"memory://{tmp_path}"
    place = run_job(job(out, spec))
    store, root = url_to_fs(place)
    record = json.loads(store.cat_file(f"{root}/commits/000001.json"))
    record["files"]["../../../outside"] = {"size": 1, "sha256": "0"}
    store.pipe_file(f"{root}/commits/000001.json", json.dumps(record).encode())
    shutil.rmtree(Mirror(out).folder)
    with pytest.raises(StoreError, match="outside its run"):
        open_run(place)
    assert not list(scratch.rglob("outside"))


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_broken_off_while_it_was_pushed_goes_on_here_or_elsewhere(tmp_path, monkeypatch, scratch, elsewhere):
    spec, out = scenario(), f"memory://{tmp_path}"
    place, put = place_of(spec, out), MemoryFileSystem.put_file

    def broken(self, file, path, **more):
        if path.endswith("commits/000003.json"):
            raise ConnectionError("the network is gone")
        put(self, file, path, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", broken)
    failed = attempt(0, job(out, spec))
    assert not failed.final and "the network is gone" in failed.error and last_step(place) == 2
    store, root = url_to_fs(place)
    assert store.exists(f"{root}/state/000003.json")  # half a step, which counts for nothing
    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    if elsewhere:
        shutil.rmtree(Mirror(out).folder)
    assert numbers(run_job(job(out, spec))).equals(undisturbed(spec, tmp_path)) and last_step(place) == 5
    records = len(Run.open(Mirror(out).local(place)).environment["resumed"])
    assert records == 1


def test_a_push_that_fails_leaves_the_run_unlocked_while_its_error_is_kept(tmp_path, monkeypatch, scratch):
    def gone(self, file, path, **more):
        raise ConnectionError("the network is gone")

    out = f"memory://{tmp_path}"
    monkeypatch.setattr(MemoryFileSystem, "put_file", gone)
    with pytest.raises(StoreError, match="the network is gone") as raised:
        run_job(job(out, scenario(steps=1)))
    with Store(folder_of(scenario(steps=1), Mirror(out).folder)).lock():
        assert raised.tb is not None


def test_of_two_workers_on_one_run_the_later_gives_way(tmp_path, monkeypatch, scratch):
    spec, out = scenario(steps=2), f"memory://{tmp_path}"
    run_job(job(out, spec))
    longer, elsewhere = scenario(steps=4), scratch / "elsewhere"
    elsewhere.mkdir()
    mirror = Mirror(out)
    mirror.resume(folder_of(longer, mirror.folder))
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    run_job(job(out, longer))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(StoreError, match="another worker has continued"):
        mirror.push(folder_of(longer, mirror.folder))
    assert numbers(run_job(job(out, longer))).equals(undisturbed(longer, tmp_path))  # theirs is taken over


@pytest.fixture
def bucket(monkeypatch, scratch):
    """An S3 server on this machine, with one bucket."""
    reason = "an S3 server needs the packages moto[server] and s3fs"
    server = pytest.importorskip("moto.moto_server.threaded_moto_server", reason=reason)
    s3fs = pytest.importorskip("s3fs", reason=reason)
    serving = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    address, port = serving.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{address}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket/runs"
    serving.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.filterwarnings("default")  # those of the server's and the store's packages are not ours
def test_a_run_in_s3_goes_on_after_it_was_broken_off(tmp_path, bucket, scratch):
    spec, longer = scenario(steps=2), scenario(steps=4)
    run_job(job(bucket, spec))
    shutil.rmtree(Mirror(bucket).folder)
    place = run_job(job(bucket, longer))
    assert numbers(place).equals(undisturbed(longer, tmp_path)) and last_step(place) == 4
    assert len(open_run(place).environment["resumed"]) == 1
    nowhere = job("s3://nowhere/runs", spec)
    with pytest.raises(StoreError, match=r'^s3://nowhere/runs: there is no bucket "nowhere"; create it'):
        run_job(nowhere)
    with pytest.raises(StoreError, match="there is no bucket"):
        run_job(nowhere)  # nor has the first attempt made one


@pytest.mark.parametrize(
    ("url", "why"), [("nowhere://bucket", "unknown kind of store"), ("abfs://bucket/runs", "package .* is missing")]
)
def test_a_store_of_an_unknown_kind_or_without_its_package_is_told_in_a_sentence(url, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "adlfs", None)  # the package of abfs, which no other test loads
    with pytest.raises(EcosystemError, match=why):
        last_step(f"{url}/tiny/1")
