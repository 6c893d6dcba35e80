"""Runs whose ``--out`` is the URL of an object store: made, killed, resumed, checked and read there."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from fsspec.core import url_to_fs

import ecosystem
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.run import Run, folder_of
from tests.conftest import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch):
    """A temporary folder for mirrors."""
    place = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def told(*arguments) -> str:
    """Return what a command prints; raise its error."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def records(url: str) -> dict[str, dict]:
    """Return the files of every commit record at a URL."""
    store, root = url_to_fs(url)
    found = [json.loads(store.cat_file(path)) for path in sorted(store.ls(f"{root}/commits", detail=False))]
    return {name: file for record in found for name, file in record["files"].items()}


def test_a_run_goes_to_a_url_is_resumed_elsewhere_and_read_there(tmp_path, finished, scratch, monkeypatch):
    file = tmp_path / "tiny.toml"
    file.write_text(tiny().to_toml())
    out = f"memory://{tmp_path}/runs"
    url = f"{out}/{folder_of(tiny(), '').as_posix()}"
    options = ["--device", "cpu", "--threads", "2", "--out", f"{out}/"]
    assert told("run", file, *options, "--steps", "2").splitlines()[-1] == f"{url}/report.html"
    shutil.rmtree(Mirror(out).folder)  # as on another machine
    said = told("run", file, *options)
    assert f"Resuming {url} after step 2 of 3." in said and str(scratch) not in said
    store, root = url_to_fs(url)
    assert b"<html" in store.cat_file(f"{root}/report.html") and store.ls(f"{root}/charts")
    local = json.loads((finished.path / "commits/000003.json").read_text())["files"]
    assert {name: records(url)[name] for name in local} == local
    assert "This run is finished" in told("run", file, *options)
    assert f"{url}: intact (steps 0 to 3" in told("check", url)
    assert told("show", url, "--step", "1", "--author", "naive").startswith("24 documents at step 1")
    store.rm_file(f"{root}/report.html")
    assert told("report", url).strip() == f"{url}/report.html" and store.exists(f"{root}/report.html")
    content = store.cat_file(f"{root}/weights/000003.safetensors")
    store.pipe_file(f"{root}/weights/000003.safetensors", content[:-1] + b"?")
    shutil.rmtree(Mirror(out).folder)
    with pytest.raises(EcosystemError, match=rf"^{url}/weights/000003.safetensors: .* altered"):
        told("check", url)


def test_what_an_object_store_cannot_do_is_told(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(tiny().to_toml())
    for arguments, sentence in (
        (["run", file, "--fresh", "--out", "memory://x"], "memory://x: nothing is moved in an object store"),
        (["run", file, "--out", "nowhere://x"], "nowhere://x: unknown kind of store"),
        (["report", "memory://x/none/1"], "memory://x/none/1: there is no run at this URL"),
        (["branch", "memory://x/none/1@2"], "is not a run folder"),
    ):
        with pytest.raises(EcosystemError, match=sentence):
            told(*arguments)


def test_workers_send_weights_to_the_store_themselves(tmp_path, cache, monkeypatch, unreported):
    """The folder of this machine never holds them; a killed upload and a repeated one count for nothing."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ecosystem.placement.workers import Workers

    out = f"file://{tmp_path}/store"
    scenario = tiny(models={"tiny": {"preset": "trigram", "vocabulary": 300}}, steps=2, weights_every=2)
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
    assert {name for name in records(str(out) + f"/{folder_of(scenario, '')}") if "weights" in name} >= {
        f"weights/{name}" for name in names
    }
    theirs, mine = (r.store.weights(2)["tiny"] for r in (run, alone))
    assert set(theirs) == set(mine) and all((theirs[name] == mine[name]).all() for name in mine)
    assert run.metrics.equals(Run.open(alone.path).metrics)
