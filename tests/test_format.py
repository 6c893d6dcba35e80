"""Every commit record names its format: older ones are read, and every reader refuses a newer one in a sentence."""

import json
import shutil
import tomllib

import pytest
from click.testing import CliRunner
from fsspec.core import url_to_fs

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, FormatError, StoreError
from ecosystem.runs.execute import begin
from ecosystem.runs.records import FORMAT, record_digest
from ecosystem.runs.remote.places import open_run
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import Job, run_job
from tests.conftest import MACHINE
from tests.test_store import committed

WORLD = """
name = "loop"
steps = 2
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 2
initial = { source = "truth", documents = 40 }
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 2
model = "normal"
sites = 1
scrape = { docs = 20, strategy = "reach", links = 0 }
publish = 10
[measure]
synthetic = 0
sites = false
"""
STUDY = """
name = "small"
base = "loop.toml"
seeds = [1, 2]
[arms.plain]
[arms.more]
"trainers.lab.publish" = 20
[[measures]]
metric = "variance"
"""
FRONTIER = """
name = "where"
base = "loop.toml"
seeds = [1, 2]
path = "trainers.lab.publish"
range = { low = 5, high = 10, whole = true }
measure = { metric = "variance" }
limit = 0.8
precision = 0.5
"""
# A record that a release without formats wrote, of the first step of ``committed``.
OLD = {
    "step": 0,
    "parent": "",
    "files": {
        "corpus/000000.parquet": {
            "size": 8030,
            "sha256": "5513dc11029c196e792eead81ca5f56d9a8d7e3a8f114dcfb591805f755704c5",
        },
        "state/000000.json": {
            "size": 26,
            "sha256": "ccd3f9c167357105c1d1f62aea612b2ec0bbd48c10238bbd1ae28f9908666a7b",
        },
    },
    "kept": True,
    "seconds": 0.0,
    "digest": "9b55995b24a53e83fe6d08e584c4af05d13aa91348531680c4e3037653acaaaf",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a world, a study and a frontier on it, and the run of the world."""
    folder = tmp_path_factory.mktemp("written")
    for name, text in (("loop", WORLD), ("small", STUDY), ("where", FRONTIER)):
        (folder / f"{name}.toml").write_text(text)
    for _ in begin(Scenario.load(folder / "loop.toml"), out=folder / "outputs", machine=MACHINE):
        pass
    return folder


def record_of(run, step):
    return run / f"commits/{step:06d}.json"


def newer(run, step):
    """Make the record of a step one of the next format, which may look otherwise; return what every reader says."""
    file = record_of(run, step)
    file.write_text(json.dumps({"format": FORMAT + 1, "step": step, "contents": ["of", "another", "layout"]}))
    return [f"{file.name}: this run is in format {FORMAT + 1}", "Install a newer ecosystem"]


@pytest.fixture
def future(written, tmp_path, monkeypatch):
    """A copy of it whose run has a last step of a newer format: the run, and what every reader of it says."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run = folder_of(Scenario.load("loop.toml"))
    return run, newer(run, 2)


def test_a_record_names_its_format_and_its_digest_covers_it(tmp_path):
    store = committed(tmp_path, 2)
    data = json.loads(record_of(tmp_path, 1).read_text())
    assert data["format"] == 1 == store.commits()[1].format
    for altered in ({**data, "format": 0}, {k: v for k, v in data.items() if k != "format"}):
        record_of(tmp_path, 1).write_text(json.dumps(altered))
        with pytest.raises(StoreError, match="do not match its digest"):
            Store(tmp_path).commits()


@pytest.mark.parametrize("version", ["2", 1.5, True, None, 0])
def test_a_format_that_is_not_a_whole_number_is_damage(tmp_path, version):
    committed(tmp_path, 1)
    data = json.loads(record_of(tmp_path, 0).read_text()) | {"format": version}
    record_of(tmp_path, 0).write_text(json.dumps(data | {"digest": record_digest(data)}))
    with pytest.raises(StoreError, match=rf"000000\.json: .*its format is {version!r}"):
        Store(tmp_path).commits()


def test_a_record_from_before_there_were_formats_is_read(tmp_path):
    (tmp_path / "commits").mkdir()
    record_of(tmp_path, 0).write_text(json.dumps(OLD, indent=1))
    [commit] = Store(tmp_path).commits()
    assert commit.format == 1 and commit.files == OLD["files"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ledger/000001.parquet", "corpus/000001.parquet", "index/000002.parquet", "web.graphml"]
)
def test_a_report_is_not_drawn_from_damaged_files(name, written, tmp_path, monkeypatch):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run = folder_of(Scenario.load("loop.toml"))
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    error = CliRunner().invoke(cli, ["report", str(run)]).exception
    assert isinstance(error, StoreError) and str(run / name) in str(error) and "altered" in str(error)
    assert not (run / "report.html").exists()
    (run / name).write_bytes(bytes(content[:-3]))
    error = CliRunner().invoke(cli, ["report", str(run)]).exception
    assert isinstance(error, StoreError) and str(run / name) in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["run", "loop.toml"],
        ["run", "loop.toml", "--steps", "3"],
        ["branch", "{run}@1", "--set", "trainers.lab.publish=3"],
        ["view", "{run}"],
        ["report", "{run}"],
        ["check", "{run}"],
        ["show", "{run}"],
        ["audit", "{run}", "--policy", "replace"],
        ["study", "small.toml", "--jobs", "1"],
        ["frontier", "where.toml", "--jobs", "1"],
    ],
    ids=lambda command: " ".join(command[:1] + command[2:3]),
)
def test_every_command_refuses_a_newer_format(future, command):
    run, sentences = future
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    result = CliRunner().invoke(cli, [word.format(run=run) for word in command], standalone_mode=False)
    said = f"{result.exception}\n{result.output}"
    assert isinstance(result.exception, EcosystemError) or result.exit_code, said
    assert all(sentence in said for sentence in sentences), said
    assert all(path.read_bytes() == content for path, content in files.items())


def test_python_refuses_a_newer_format(future):
    run, (sentence, remedy) = future
    for reading in (lambda: Run.open(run), lambda: Run(run).steps, lambda: Run(run).metrics):
        with pytest.raises(FormatError, match=f"{sentence}.*{remedy}"):
            reading()


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"{"], ids=["newer", "damaged"])
def test_a_fresh_run_sets_aside_what_cannot_be_read(future, content):
    run, _ = future
    if content is not None:
        record_of(run, 2).write_bytes(content)
    unreadable = record_of(run, 2).read_bytes()
    result = CliRunner().invoke(cli, ["run", "loop.toml", "--fresh", "--quiet"], standalone_mode=False)
    assert result.exception is None and Run.open(run).steps == 2
    assert record_of(run.with_name("1.old-1"), 2).read_bytes() == unreadable


def test_an_object_store_with_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scenario, out = Scenario.parse(tomllib.loads(WORLD)), f"memory://{tmp_path}"
    place = run_job(Job(scenario.to_toml(), ".", out))
    store, root = url_to_fs(place)
    store.pipe_file(f"{root}/commits/000002.json", json.dumps({"format": FORMAT + 1}).encode())
    with pytest.raises(FormatError, match=rf"{place}/commits/000002\.json: this run is in format {FORMAT + 1}"):
        open_run(place)
