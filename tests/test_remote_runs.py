"""Runs whose ``--out`` is the URL of an object store: made, killed, resumed, checked and read there."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner
from fsspec.core import url_to_fs

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.run import folder_of
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
    out = f"file://{tmp_path}/runs"
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
        (["run", file, "--fresh", "--out", "file:///x"], "file:///x: nothing is moved in an object store"),
        (["run", file, "--out", "nowhere://x"], "nowhere://x: unknown kind of store"),
        (["report", "memory://x/none/1"], "memory://x/none/1: there is no run at this URL"),
        (
            ["branch", "memory://x/none/1@2"],
            "memory://x/none/1@2: `ecosystem branch` needs a local folder; copy the run",
        ),
        (["view", "memory://x/none/1"], "memory://x/none/1: `ecosystem view` needs a local folder; copy the run"),
        (
            ["tasks", "memory://x/none/1", "t"],
            "memory://x/none/1: `ecosystem tasks` needs a local folder; copy the run",
        ),
        (["run", file, "--out", "s3://"], "s3://: this is not the URL of a place"),
        (["report", "memory://x"], "memory://x: this is not the URL of a run"),
        (["run", file, "--out", "memory://x"], "^--out memory://x: what is stored there is lost when the command ends"),
        (["study", file, "--out", "memory://x"], "^--out memory://x: what is stored there is lost"),
        (["run", file, "--out", "file://tmp/x"], "^--out file://tmp/x: tmp is the name .* give file:///tmp/x, or the"),
        (["run", file, "--out", "zip://x.zip"], "^--out zip://x.zip: runs cannot be written there as folders; give"),
    ):
        with pytest.raises(EcosystemError, match=sentence):
            told(*arguments)
