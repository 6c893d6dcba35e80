"""The promise of the run folder: a run killed at any moment and resumed equals the uninterrupted one, bit for bit."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest

from ecosystem.api import run_scenario
from ecosystem.errors import StoreError
from ecosystem.families.checkpoint import fingerprint
from ecosystem.runs.environment import Machine, changed_input
from ecosystem.runs.execute import begin
from ecosystem.runs.progress import RunProgress
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.phases import PHASES
from tests import killing
from tests.conftest import MACHINE, ROOT, SMOKE, tiny

MOMENTS = [
    *(f"phase:{phase.__name__}" for phase in PHASES),
    "inside:fit",
    "inside:generate",
    *(f"{kind}:{table}" for table in ("corpus", "weights", "state", "commits") for kind in ("write", "part")),
]


@pytest.fixture(scope="module")
def server():
    """Processes forked from one that has imported everything already (and started no threads)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system forks no processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killing"])
    return context


def fingerprints(folder):
    """Names, sizes and hashes of every file of every step."""
    return [commit.files for commit in Store(folder).commits()]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_uninterrupted(moment, server, finished, cache, tmp_path):
    process = server.Process(target=killing.run_and_die, args=(tmp_path, cache, moment))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"the process was to die at {moment}"
    folder = folder_of(tiny(), tmp_path)
    died_after_commit = moment == "write:commits"
    assert Store(folder).last() == killing.STEP - (0 if died_after_commit else 1)
    resumed = [snapshot.t for snapshot in begin(tiny(), out=tmp_path, machine=MACHINE, cache=cache)]
    assert resumed == list(range(killing.STEP + died_after_commit, 4))
    assert fingerprints(folder) == fingerprints(finished.path)
    assert Run.open(folder).environment["resumed"]
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_a_finished_run_is_left_alone(finished, cache):
    before = fingerprints(finished.path)
    assert list(begin(tiny(), out=finished.path.parent.parent, machine=MACHINE, cache=cache)) == []
    assert fingerprints(finished.path) == before


@pytest.mark.slow
def test_more_steps_continue_a_run(finished, cache, tmp_path):
    short = tiny(steps=2)
    for _ in begin(short, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    assert folder_of(short, tmp_path) == folder_of(tiny(), tmp_path)
    assert [s.t for s in begin(tiny(), out=tmp_path, machine=MACHINE, cache=cache)] == [3]
    assert fingerprints(folder_of(short, tmp_path)) == fingerprints(finished.path)


@pytest.mark.slow
def test_a_rebuilt_foundation_is_the_same_one(finished, tmp_path):
    for _ in begin(tiny(), out=tmp_path / "out", machine=MACHINE, cache=tmp_path / "empty_cache"):
        pass
    assert fingerprints(folder_of(tiny(), tmp_path / "out")) == fingerprints(finished.path)


@pytest.mark.slow
def test_other_threads_are_allowed_where_no_number_depends_on_them(tmp_path):
    scenario = Scenario.load(ROOT / "tests/baseline/scenarios/ngram.toml")
    for out, threads in (("mixed", (2, 1)), ("alike", (2, 2))):
        for steps, number in zip((1, 2), threads, strict=True):
            machine = Machine("cpu", number)
            part = scenario.override({"steps": steps})
            for _ in begin(part, out=tmp_path / out, machine=machine, cache=tmp_path / "cache"):
                pass
    mixed, alike = (folder_of(scenario, tmp_path / out) for out in ("mixed", "alike"))
    assert fingerprints(mixed) == fingerprints(alike)


@pytest.mark.slow
def test_another_machine_or_source_is_refused(finished, cache, tmp_path):
    from ecosystem.errors import EcosystemError

    folder = tmp_path / finished.path.parent.name / "1"
    shutil.copytree(finished.path, folder)
    with pytest.raises(EcosystemError, match="--threads 2, or start again with --fresh"):
        next(begin(tiny(steps=4), out=tmp_path, machine=Machine("cpu", 1), cache=cache))
    environment = (folder / "environment.json").read_text()
    digest = finished.environment["sources"]["language"]["digest"]
    (folder / "environment.json").write_text(environment.replace(digest, "0" * 64))
    (folder / "digests.json").unlink()  # as if it had been so from the start
    with pytest.raises(EcosystemError, match='source "language" has changed'):
        next(begin(tiny(steps=4), out=tmp_path, machine=MACHINE, cache=cache))


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seed": 1}'])
def test_a_damaged_environment_is_a_sentence(content, finished, cache, tmp_path):
    from ecosystem.errors import StoreError

    folder = tmp_path / finished.path.parent.name / "1"
    shutil.copytree(finished.path, folder)
    (folder / "environment.json").write_text(content)
    with pytest.raises(StoreError, match=r"environment\.json: is damaged.*--fresh"):
        next(begin(tiny(steps=4), out=tmp_path, machine=MACHINE, cache=cache))


@pytest.mark.slow
def test_a_damaged_site_graph_is_a_sentence(finished, tmp_path):
    from ecosystem.errors import StoreError
    from ecosystem.report import write_report

    shutil.copytree(finished.path, tmp_path / "1")
    (tmp_path / "1/web.graphml").write_text("<graphml")
    with pytest.raises(StoreError, match=r"web\.graphml: cannot be read as GraphML"):
        write_report(Run.open(tmp_path / "1"))


@pytest.mark.slow
def test_fresh_leaves_a_run_alone_that_somebody_is_working_on(cache, tmp_path):
    from ecosystem.errors import StoreError

    steps = begin(tiny(), out=tmp_path, machine=MACHINE, cache=cache)
    next(steps)
    with pytest.raises(StoreError, match="another process"):
        next(begin(tiny(), out=tmp_path, machine=MACHINE, cache=cache, fresh=True))
    assert [s.t for s in steps] == [1, 2, 3]


@pytest.mark.slow
def test_the_remedy_for_a_damaged_file_names_a_step_that_can_be_resumed(cache, tmp_path):
    from ecosystem.errors import StoreError

    scenario = tiny(weights_every=2)
    for _ in begin(scenario, out=tmp_path, machine=MACHINE, cache=cache):
        pass
    folder = folder_of(scenario, tmp_path)
    (folder / "corpus/000002.parquet").write_bytes(b"")
    longer = tiny(weights_every=2, steps=4)
    with pytest.raises(StoreError, match=r"from step 0, make a copy of .* delete the records of step 1 and later"):
        list(begin(longer, out=tmp_path, machine=MACHINE, cache=cache))
    for record in sorted((folder / "commits").glob("*.json"))[1:]:
        record.unlink()
    assert [s.t for s in begin(longer, out=tmp_path, machine=MACHINE, cache=cache)] == [1, 2, 3, 4]


def test_a_damaged_file_of_an_early_step_stops_a_resume_before_it_computes(finished, cache, tmp_path):
    from ecosystem.errors import StoreError

    folder = tmp_path / finished.path.parent.name / "1"
    shutil.copytree(finished.path, folder)
    (folder / "metrics/000000.parquet").write_bytes(b"")
    with pytest.raises(StoreError, match=r"metrics/000000\.parquet: this file of step 0 is truncated or altered"):
        next(begin(tiny(steps=4), out=tmp_path, machine=MACHINE, cache=cache))


def test_a_model_is_never_built_from_damaged_files(finished, tmp_path):
    from ecosystem.errors import StoreError

    shutil.copytree(finished.path, tmp_path / "1")
    [model] = finished.scenario.models
    path = tmp_path / "1/models" / model / "config.json"
    path.write_text(path.read_text().replace('"n_layer": ', '"n_layer": 1'))
    with pytest.raises(StoreError, match=r"config\.json: this file of step 0 is truncated or altered"):
        Run.open(tmp_path / "1").model("naive/0")


@pytest.mark.slow
def test_a_report_older_than_its_run_is_written_again(finished, tmp_path):
    from ecosystem.api import run_scenario
    from ecosystem.runs.progress import RunProgress

    folder = tmp_path / finished.path.parent.name / "1"
    shutil.copytree(finished.path, folder)
    (folder / "report.html").write_text("of an earlier step")
    os.utime(folder / "report.html", (1, 1))
    run_scenario(tiny(), RunProgress(quiet=True), out=tmp_path)
    assert "<html" in (folder / "report.html").read_text()


FILES = """
name = "files"
steps = 1
[sources.texts]
kind = "jsonl"
path = "texts.jsonl"
held_out = 10
[web]
kind = "file"
path = "web.csv"
initial = { source = "texts", documents = 30 }
[models.counts]
kind = "ngram"
order = 2
vocabulary = 300
context = 32
[trainers.labs]
model = "counts"
scrape = { docs = 20 }
publish = 5
"""
LINKS = "".join(f"{site},{(site + 1) % 9}\n" for site in range(9))


def write_inputs(folder, texts="text", links=LINKS):
    """The files of FILES: a scenario, its texts and its graph."""
    (folder / "s.toml").write_text(FILES)
    lines = [json.dumps({"text": f"a {texts} with the number {i} and some words"}) for i in range(80)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    (folder / "web.csv").write_text(links)


@pytest.mark.parametrize(
    ("changed", "named"), [({"texts": "note"}, 'source "texts"'), ({"links": f"0,4\n{LINKS}"}, r"graph in web\.path")]
)
def test_a_run_whose_files_have_changed_is_neither_continued_nor_taken_for_finished(changed, named, tmp_path):
    write_inputs(tmp_path)
    file, out = tmp_path / "s.toml", tmp_path / "out"
    scenario = Scenario.load(file)
    for _ in begin(scenario, out=out, base=tmp_path, machine=MACHINE, cache=tmp_path / "cache"):
        pass
    environment = Run.open(folder_of(scenario, out)).environment
    assert changed_input(environment, scenario, tmp_path) == ""
    write_inputs(tmp_path, **changed)
    for steps in (1, 2):
        longer = scenario.override({"steps": steps})
        with pytest.raises(StoreError, match=f"the {named} has changed since this run began"):
            run_scenario(longer, RunProgress(quiet=True), out=out, base=tmp_path, cache=tmp_path / "cache", threads=2)
    for name in ("texts.jsonl", "web.csv"):  # without them, nothing can differ from what is stored
        (tmp_path / name).unlink()
    assert changed_input(environment, scenario, tmp_path) == ""


def test_a_changed_checkpoint_is_named(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    stored = Scenario.load(SMOKE).override({"models.tiny.init": str(folder)})
    environment = {"seed": 1, "sources": {}, "foundations": {"tiny": fingerprint(folder)}}
    assert changed_input(environment, stored, tmp_path) == ""
    (folder / "config.json").write_text("{} ")
    assert changed_input(environment, stored, tmp_path) == 'checkpoint of model "tiny"'
