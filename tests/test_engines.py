"""Engines: the same numbers on each, whatever dies meanwhile; runs in object stores; what a study costs a machine."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from click.testing import CliRunner
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, StoreError
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors import local
from ecosystem.studies.executors.jobs import Job, Outcome, attempt, complete, work
from ecosystem.studies.executors.local import Processes, Serial, engine_of
from ecosystem.studies.object_store import Mirror, last_step, opened, place_of
from ecosystem.studies.progress import Board, Entry
from ecosystem.studies.run_study import Means, Plan, conduct, listing
from ecosystem.studies.study import Study

WORLD = """
name = "tiny-loop"
steps = 5
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 3
initial = { source = "truth", documents = 60 }
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 3
model = "normal"
sites = 1
scrape = { docs = 20, strategy = "reach", links = 0 }
publish = 20
[measure]
synthetic = 0
sites = false
"""
TEXT = """
name = "tiny-text"
steps = 2
[sources.docs]
kind = "text"
path = "docs/*.txt"
held_out = 0.2
[web]
sites = 4
initial = { source = "docs", documents = 30 }
[models.small]
kind = "ngram"
order = 2
vocabulary = 300
context = 64
[trainers.lab]
model = "small"
scrape = { docs = 20, strategy = "reach" }
publish = 4
"""
STUDY = """
name = "tiny-study"
base = "world.toml"
seeds = [1, 2]
[[measures]]
metric = "variance"
[arms.plain]
[arms.more]
"trainers.lab.publish" = 40
"""
PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
LONG = 400  # steps that outlast any test, of some milliseconds each


@pytest.fixture
def scratch(tmp_path_factory, monkeypatch):
    """Where this process (and no worker) makes runs that go to an object store, thrown away with the test."""
    place = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


@pytest.fixture(scope="module")
def processes():
    engine = Processes(2)
    yield engine
    engine.close()


def scenario(**changes) -> Scenario:
    """The tiny loop, with more dotted paths set (``__`` stands for a dot)."""
    import tomllib

    return Scenario.parse(tomllib.loads(WORLD)).override({k.replace("__", "."): v for k, v in changes.items()})


def job(out, spec: Scenario, **more) -> Job:
    return Job(spec.to_toml(), ".", str(out), **more)


def study(folder: Path, text: str = STUDY, world: str = WORLD) -> Study:
    (folder / "world.toml").write_text(world)
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def numbers(place) -> pl.DataFrame:
    """Everything that a run measured, but for how long it took."""
    return opened(str(place)).metrics.filter(pl.col("metric") != "wall_seconds")


def undisturbed(spec: Scenario, out: Path) -> pl.DataFrame:
    return numbers(work(job(out, spec)))


def until(condition, seconds=60.0):
    """Wait for a condition and return it; fail the test where it never comes."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "this never came"
        time.sleep(0.01)
    return found


def kill_within(place: str, step: int, pids) -> threading.Thread:
    """Kill (SIGKILL) the worker that holds a run's lock, once the run has committed a step."""

    def kill():
        until(lambda: last_step(place) >= step)
        os.kill(until(pids), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def descendants(pid: int) -> list[int]:
    """Return the processes that this one started, and those that they did."""
    above = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            above[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [child for child, parent in above.items() if parent == pid]
    return [*found, *(below for child in found for below in descendants(child))]


def holder(folder: Path, among) -> int | None:
    """Return the process that has a run folder's lock open."""
    for pid in among:
        try:
            files = [str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if str(folder / ".lock") in files:
            return pid
    return None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def engine_pids(engine: Processes) -> list[int]:
    return [worker.process.pid for worker in engine._workers]


# The same numbers


def test_serial_and_processes_measure_the_same_and_a_finished_run_is_not_run_again(tmp_path):
    spec = study(tmp_path)
    alone = conduct(spec, tmp_path, Means("serial"), Board(quiet=True), out=str(tmp_path / "serial"))
    many = conduct(spec, tmp_path, Means("processes", jobs=9), Board(quiet=True), out=str(tmp_path / "processes"))
    assert alone.results.values.equals(many.results.values) and alone.results.values["value"].is_finite().all()
    for one, other in zip(alone.results.runs["run"], many.results.runs["run"], strict=True):
        assert numbers(one).equals(numbers(other)) and numbers(one).height > 20
        assert Run.open(one).machine == Run.open(other).machine
    records = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*/commits/*.json")}
    again = conduct(spec, tmp_path, Means("processes"), Board(quiet=True), out=str(tmp_path / "processes"))
    assert again.results.runs["attempts"].to_list() == [0] * 4 and again.results.values.equals(many.results.values)
    assert len(records) == 2 * 4 * 6 and all(path.stat().st_mtime_ns == at for path, at in records.items())


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
    failed, made = complete(jobs, processes)
    assert failed.attempts == 1 and "gone" in failed.error and not failed.run  # once: the same would happen again
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1
    alone = work(replace(jobs[1], out=str(tmp_path / "alone")))
    assert numbers(alone).equals(numbers(made.run)) and "cross_entropy" in set(numbers(alone)["metric"])


def test_weighted_shares_do_not_depend_on_the_threads_of_polars():
    measure = (
        "import numpy as np, polars as pl; from ecosystem.metrics.tables import _contamination\n"
        "r = np.random.default_rng(0); n = 200_000\n"
        "d = pl.DataFrame({'id': r.integers(0, 4, n), 'weight': r.random(n), 'synthetic': r.random(n) < 0.4,\n"
        "                  'depth': 3 * r.random(n)}).with_columns(pl.col('id').cast(pl.String))\n"
        "print(pl.thread_pool_size(), sorted(_contamination(d, 1, 'web').select('id', 'metric', 'value').rows()))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", measure],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "7")
    ]
    assert told[0].startswith("1 ") and told[1].startswith("7 ") and told[0][2:] == told[1][2:]


# What dies


@PROC
def test_a_run_whose_worker_is_killed_is_resumed_and_others_do_not_notice(tmp_path, processes):
    specs = [scenario(steps=30, seed=seed) for seed in (1, 2)]
    folder = folder_of(specs[0], tmp_path / "killed")
    killer = kill_within(str(folder), 3, lambda: holder(folder, engine_pids(processes)))
    first, second = complete([job(tmp_path / "killed", spec) for spec in specs], processes)
    killer.join()
    assert (first.attempts, second.attempts) == (2, 1)
    resumed = [len(Run.open(made.run).environment["resumed"]) for made in (first, second)]
    assert resumed == [1, 0]
    for spec, made in zip(specs, (first, second), strict=True):
        assert numbers(made.run).equals(undisturbed(spec, tmp_path / "undisturbed"))


def test_a_worker_killed_between_two_jobs_costs_nobody_an_attempt(tmp_path):
    engine = Processes(1)
    try:
        assert complete([job(tmp_path, scenario(steps=1))], engine)[0].run
        (worker,) = engine._workers
        worker.process.kill()
        until(worker.pipe.poll)  # its last thread has gone, and with it its end of the pipe
        assert complete([job(tmp_path, scenario(steps=1, seed=2))], engine)[0].attempts == 1
    finally:
        engine.close()


def test_the_script_that_asks_for_a_study_is_not_run_in_its_workers(tmp_path, monkeypatch):
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    Path(script.__file__).write_text("raise SystemExit('run again')")
    monkeypatch.setitem(sys.modules, "__main__", script)
    engine = Processes(1)
    try:
        assert complete([job(tmp_path, scenario(steps=1))], engine)[0].attempts == 1
        assert sys.modules["__main__"] is script
    finally:
        engine.close()


def test_an_attempt_that_might_go_better_is_made_again_after_a_while_and_at_most_three_times(tmp_path):
    spec = scenario(steps=2)
    folder = folder_of(spec, tmp_path)
    began = time.monotonic()
    with Store(folder).lock():
        (outcome,) = complete([job(tmp_path, spec)], Serial(lambda: None))
    assert outcome.attempts == 3 and "another process is working on this run" in outcome.error
    assert time.monotonic() - began > 2


def test_runs_that_diverge_are_told_in_their_cells_and_the_others_are_compared(tmp_path):
    """Text hotter by 1.7e77 at each step overflows at step 5 with seed 1 and with no other; by 1e100, with all."""
    heat = '"trainers.lab.decoding.temperature"'
    arms = f"[arms.hot]\n{heat} = 1.7e77\n[arms.hotter]\n{heat} = 1e100\n[arms.plain]"
    text = STUDY.replace('"variance"', '"synthetic_share"\nof = "lab"').replace("[1, 2]", "[1, 2, 3]")
    study(tmp_path, text.replace("[arms.plain]", arms).replace("seeds", 'reference = "plain"\nseeds'))
    command = ["study", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--engine", "serial", "--json"]
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.exception
    summary = json.loads(shown.stdout.splitlines()[-1])
    why = r"step 5, lab/\d: member \d has diverged: .* lower its decoding\.temperature"
    failing = {("hot", 1), ("hotter", 1), ("hotter", 2), ("hotter", 3)}
    assert {(cell["arm"], cell["seed"]) for cell in summary["failed"]} == failing
    assert all(re.match(why, cell["error"]) for cell in summary["failed"])
    runs = pl.read_csv(Path(summary["study"]) / "runs.csv")
    assert runs["attempts"].to_list() == [1] * 12  # a model that diverges would do so again
    assert runs.filter(pl.col("run").is_null()).height == runs["error"].drop_nulls().len() == 4
    effects = {row["arm"]: row for row in pl.read_parquet(Path(summary["study"]) / "effects.parquet").to_dicts()}
    assert {arm: row["seeds"] for arm, row in effects.items()} == {"hot": 2, "more": 3}
    values = pl.read_csv(Path(summary["study"]) / "values.csv").pivot("arm", index="seed", values="value").sort("seed")
    assert effects["more"]["effect"] == pytest.approx((values["more"] - values["plain"]).mean()) != 0
    assert effects["hot"]["base_mean"] == pytest.approx(values["plain"][1:].mean())  # over the seeds that both have
    page = Path(summary["report"]).read_text()
    for said in ("4 of 12 runs failed", "hotter cannot be compared with plain, since fewer than two seeds"):
        assert said in page and said in shown.stderr
    assert page.count("has diverged: what it learnt from is too large") == 4


@PROC
def test_workers_keep_to_their_threads_and_the_process_they_are_forked_from_has_started_none(tmp_path, processes):
    complete([job(tmp_path, scenario(steps=1, seed=seed)) for seed in (5, 6)], processes)

    def threads(pid):
        return [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]

    for pid in engine_pids(processes):
        names = threads(pid)
        assert sum(name.startswith("polars-") and name != "polars-ooc-clea" for name in names) <= 1
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        started = [n for n in threads(parent) if not n.startswith(("jemalloc", "polars-ooc"))]
        assert len(started) == 1, f"forking after threads have started may hang: {started}"


def start_study(folder: Path, screen: int | None = None) -> subprocess.Popen:
    """Begin a study of two long runs as a command of its own, and wait until both are under way."""
    study(folder, world=WORLD.replace("steps = 5", f"steps = {LONG}"), text=STUDY.replace("[1, 2]", "[1, 2, 3]"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ecosystem", "study", "study.toml", "--jobs", "2", "--out", "outputs"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if screen is None else screen,
        text=True,
        start_new_session=True,
    )
    until(lambda: sum(last_step(str(p.parent)) >= 2 for p in folder.glob("outputs/tiny-*/*/commits")) == 2)
    return process


def resumes(folder: Path) -> bool:
    """Whether a run that was broken off goes on to the numbers of one that was not, as long as a short test can say."""
    begun = next(p.parent for p in folder.glob("outputs/tiny-*/*/commits"))
    last = last_step(str(begun))
    spec = Run.open(begun).scenario.override({"steps": last + 2})
    return numbers(work(job(folder / "outputs", spec))).equals(undisturbed(spec, folder / "again"))


@PROC
def test_ctrl_c_stops_a_live_screen_and_leaves_no_process_and_a_study_that_goes_on(tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start_study(tmp_path, theirs)
    os.close(theirs)
    below = descendants(process.pid)
    assert len(below) >= 3  # two workers and what they are forked from
    shown = b""

    def listen():
        nonlocal shown
        while select.select([ours], [], [], 0.05)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                return True
        return b"0 of 6 runs" in shown and b"left" in shown

    until(listen)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    listen()
    assert process.returncode == 130 and "outputs" not in said
    text = shown.decode()
    assert "Stopped. What runs had committed stays; give the same command again to go on." in text
    assert "Traceback" not in text and "KeyboardInterrupt" not in text
    assert text.count("tiny-study: 6 runs to do.") == 1 and "seed 1" in text and "\x1b[1A" in text  # drawn over itself
    until(lambda: not any(alive(pid) for pid in below), 10)
    assert resumes(tmp_path)


@PROC
def test_workers_of_a_study_that_was_killed_end_by_themselves(tmp_path):
    process = start_study(tmp_path)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not any(alive(pid) for pid in below), 10)
    assert resumes(tmp_path)


# Branches


@pytest.mark.parametrize("where", ["folder", "url"])
def test_arms_wait_for_the_run_that_they_branch_from_and_read_it(tmp_path, processes, where):
    out = str(tmp_path / "out") if where == "folder" else f"file://{tmp_path}/out"
    spec = study(
        tmp_path,
        "branch = { step = 3 }\n"
        + STUDY.replace("[arms.plain]", '[arms.plain]\n[arms.less]\n"trainers.lab.publish" = 10'),
    )
    cells = spec.cells(tmp_path)
    plan = Plan(tmp_path, Means(), out)
    for cell in cells:
        plan.add(cell, spec)
    outcomes = complete(plan.jobs, processes)
    assert [outcome.error for outcome in outcomes] == [""] * 6
    for one, made in zip(plan.jobs, outcomes, strict=True):
        if one.after is None:
            continue
        course, before = numbers(made.run), numbers(outcomes[one.after].run)
        assert course.filter(pl.col("step") <= 3).equals(before.filter(pl.col("step") <= 3))
        assert not course.filter(pl.col("step") > 3).equals(before.filter(pl.col("step") > 3))
        own = Path(made.run.removeprefix("file://")) / "commits"
        assert [path.stem for path in sorted(own.glob("*.json"))] == ["000004", "000005"]
    if where == "url":
        shutil.rmtree(Mirror(out).folder)


def test_arms_of_a_run_that_failed_say_so(tmp_path):
    bad = job(tmp_path, scenario(), threads=1, device="cuda")
    outcomes = complete([bad, job(tmp_path, scenario(seed=2), after=0)], Serial(lambda: None))
    assert outcomes[1].attempts == 0 and outcomes[1].error.startswith("the run that it branches from failed: --device")


# Object stores


def test_a_run_in_an_object_store_is_the_run_in_a_folder(tmp_path, scratch):
    spec, out = scenario(weights_every=3), f"memory://{tmp_path}"
    place = work(job(out, spec))
    assert place == place_of(spec, out) and last_step(place) == 5
    assert numbers(place).equals(undisturbed(spec, tmp_path))
    folder, (store, root) = folder_of(spec, tmp_path), url_to_fs(place)
    kept = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    found = {path.removeprefix(f"{root}/") for path in store.find(root)}
    assert found == kept and "weights/000003.safetensors" in found and "weights/000004.safetensors" not in found
    table = f"{root}/metrics/000002.parquet"
    store.pipe_file(table, store.cat_file(table)[:-1] + b"?")
    shutil.rmtree(Mirror(out).folder)
    with pytest.raises(StoreError, match=r"metrics/000002.parquet: .* has been altered"):
        numbers(place)
    ended = attempt(0, job(out, scenario(weights_every=3, steps=6)))
    assert ended.error.startswith(f"{place}/metrics/000002.parquet: ") and str(scratch) not in ended.error


def test_a_record_that_names_a_file_outside_its_run_writes_nothing(tmp_path, scratch):
    spec, out = scenario(steps=1), f"memory://{tmp_path}"
    place = work(job(out, spec))
    store, root = url_to_fs(place)
    record = json.loads(store.cat_file(f"{root}/commits/000001.json"))
    record["files"]["../../../outside"] = {"size": 1, "sha256": "0"}
    store.pipe_file(f"{root}/commits/000001.json", json.dumps(record).encode())
    shutil.rmtree(Mirror(out).folder)
    with pytest.raises(StoreError, match="lies outside its run"):
        opened(place)
    assert not list(scratch.rglob("outside"))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_broken_off_while_it_was_pushed_goes_on_here_or_elsewhere(tmp_path, monkeypatch, scratch, elsewhere):
    spec, out = scenario(), f"memory://{tmp_path}"
    place, put = place_of(spec, out), MemoryFileSystem.put_file

    def broken(self, file, path, **more):
        if path.endswith("commits/000003.json"):
            raise ConnectionError("the network is gone")
        put(self, file, path, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", broken)
    ended = attempt(0, job(out, spec))
    assert not ended.final and "the network is gone" in ended.error and last_step(place) == 2
    store, root = url_to_fs(place)
    assert store.exists(f"{root}/state/000003.json")  # half a step, which counts for nothing
    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    if elsewhere:
        shutil.rmtree(Mirror(out).folder)
    assert numbers(work(job(out, spec))).equals(undisturbed(spec, tmp_path)) and last_step(place) == 5
    records = len(Run.open(Mirror(out).local(place)).environment["resumed"])
    assert records == 1


def test_a_push_that_fails_leaves_the_run_unlocked_while_its_error_is_kept(tmp_path, monkeypatch, scratch):
    def gone(self, file, path, **more):
        raise ConnectionError("the network is gone")

    out = f"memory://{tmp_path}"
    monkeypatch.setattr(MemoryFileSystem, "put_file", gone)
    with pytest.raises(StoreError, match="the network is gone") as raised:
        work(job(out, scenario(steps=1)))
    with Store(folder_of(scenario(steps=1), Mirror(out).folder)).lock():
        assert raised.tb is not None


def test_of_two_workers_on_one_run_the_later_gives_way(tmp_path, monkeypatch, scratch):
    spec, out = scenario(steps=2), f"memory://{tmp_path}"
    work(job(out, spec))
    longer, elsewhere = scenario(steps=4), scratch / "elsewhere"
    elsewhere.mkdir()
    mirror = Mirror(out)
    mirror.resume(folder_of(longer, mirror.folder))
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    work(job(out, longer))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(StoreError, match="another worker has gone on"):
        mirror.push(folder_of(longer, mirror.folder))
    assert numbers(work(job(out, longer))).equals(undisturbed(longer, tmp_path))  # theirs is taken over


@PROC
def test_a_study_in_an_object_store_survives_a_killed_worker_and_tells_beside_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = study(tmp_path, world=WORLD.replace("steps = 5", "steps = 30"))
    out = f"file://{tmp_path}/bucket/runs"
    place = place_of(spec.cells(tmp_path)[0].scenario, out)
    folder = Mirror(out).local(place)
    killer = kill_within(place, 3, lambda: holder(folder, descendants(os.getpid())))
    done = conduct(spec, tmp_path, Means("processes", jobs=2), Board(quiet=True), out=out)
    killer.join()
    assert sorted(done.results.runs["attempts"]) == [1, 1, 1, 2] and done.results.runs["error"].null_count() == 4
    assert numbers(place).equals(undisturbed(spec.cells(tmp_path)[0].scenario, tmp_path))
    told = Path(f"bucket/runs/studies/{done.folder.name}")
    assert (told / "report.html").read_bytes() == done.report.read_bytes() and (told / "runs.parquet").is_file()
    assert listing(spec, tmp_path, out).count("there already") == 4
    shutil.rmtree(Mirror(out).folder)


def test_a_store_that_cannot_be_written_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def full(self, file, path, **more):
        raise PermissionError("read only")

    monkeypatch.setattr(MemoryFileSystem, "put_file", full)
    with pytest.raises(StoreError, match=rf"^memory://{tmp_path}/studies/tiny-study-.* read only"):
        conduct(study(tmp_path), tmp_path, Means("serial"), Board(quiet=True), out=f"memory://{tmp_path}")


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
    work(job(bucket, spec))
    shutil.rmtree(Mirror(bucket).folder)
    place = work(job(bucket, longer))
    assert numbers(place).equals(undisturbed(longer, tmp_path)) and last_step(place) == 4
    assert len(opened(place).environment["resumed"]) == 1
    nowhere = job("s3://nowhere/runs", spec)
    with pytest.raises(StoreError, match=r'^s3://nowhere/runs: there is no bucket "nowhere"; make it'):
        work(nowhere)
    with pytest.raises(StoreError, match="there is no bucket"):
        work(nowhere)  # nor has the first attempt made one


@pytest.mark.parametrize(
    ("url", "why"), [("nowhere://bucket", "no such sort of store"), ("s3://bucket/runs", "package .* is missing")]
)
def test_a_store_that_cannot_be_spoken_to_is_told_in_a_sentence(url, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # where another test has loaded it
    with pytest.raises(EcosystemError, match=why):
        last_step(f"{url}/tiny/1")


# Ray


@PROC
def test_ray_measures_the_same_survives_a_lost_worker_and_says_what_it_has_no_room_for(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    specs = [scenario(steps=40, seed=seed) for seed in (1, 2)]
    folder = folder_of(specs[0], tmp_path / "ray")
    engine = engine_of("ray", 2)
    try:
        killer = kill_within(str(folder), 3, lambda: holder(folder, descendants(os.getpid())))
        jobs = [job(tmp_path / "ray", specs[0]), job(f"file://{tmp_path}/bucket", specs[1])]
        made = complete(jobs, engine)
        killer.join()
        assert [outcome.attempts for outcome in made] == [2, 1], made
        for spec, outcome in zip(specs, made, strict=True):
            assert numbers(outcome.run).equals(undisturbed(spec, tmp_path / "undisturbed"))
        with pytest.raises(EcosystemError, match=r"--threads 3: no machine of this Ray cluster .* 2 CPUs"):
            engine_of("ray", threads=3)
        with pytest.raises(EcosystemError, match=r"--gpus 0.5: no machine"):
            engine_of("ray", gpus=0.5)
        import ray

        assert ray.is_initialized()  # a cluster that was there before an engine is not that engine's to stop
    finally:
        engine.close()
        shutil.rmtree(Mirror(f"file://{tmp_path}/bucket").folder)


def test_ray_that_is_not_there_is_told_in_a_sentence(monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(EcosystemError, match=r"--address 127.0.0.1:1: nothing answers there"):
        engine_of("ray", address="127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EcosystemError, match="pip install"):
        engine_of("ray")


# Means and the board


@pytest.mark.parametrize(
    ("kind", "how", "why"),
    [
        ("processes", {"slots": 0}, "--jobs 0: give at least 1"),
        ("serial", {"slots": 2}, "one run at a time"),
        ("processes", {"gpus": 0.5}, "belong to --engine ray"),
        ("serial", {"address": "auto"}, "belong to --engine ray"),
    ],
)
def test_means_that_make_no_sense_are_told(kind, how, why):
    with pytest.raises(EcosystemError, match=why):
        engine_of(kind, **how)


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match="choose another folder with --out"):
        conduct(study(tmp_path), tmp_path, Means("serial"), Board(quiet=True), out=str(tmp_path / "out"))


def test_a_run_begun_with_other_threads_keeps_them(tmp_path):
    work(job(tmp_path, scenario(steps=1), threads=2))
    assert Run.open(work(job(tmp_path, scenario(steps=2)))).machine.threads == 2
    ended = attempt(0, job(tmp_path, scenario(steps=3), threads=1))
    assert ended.final and "Give --device cpu --threads 2" in ended.error


def test_the_board_counts_the_steps_left_and_not_those_that_a_branch_never_runs(tmp_path, capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    board = Board()
    board._live = None
    runs = [Entry("trunk", str(tmp_path / "a"), 10), Entry("arm", str(tmp_path / "b"), 10, 7)]
    board.begin("study", runs, 3)
    assert board.seconds_left() is None
    clock[0] += 11.0
    board.watch({1: 100.0}, [Outcome(run="a", attempts=2, seconds=11.0), Outcome()])
    assert board.seconds_left() == pytest.approx(3.0)  # 11 steps in 11 s, and 3 to go
    (tmp_path / "b" / "commits").mkdir(parents=True)
    (tmp_path / "b" / "commits" / "000008.json").touch()
    clock[0] += 13.0
    board.watch({1: 100.0}, [Outcome(run="a", attempts=2, seconds=11.0), Outcome()])
    assert board.seconds_left() == pytest.approx(2.0)  # how long its first step took is not known yet
    board.watch({}, [Outcome(run="a", attempts=2), Outcome(error="no luck", attempts=1)])
    said = capsys.readouterr().out
    assert "2 runs to do. 3 are there already." in said and "trunk: 11.0 s at attempt 2. 1 of 2 runs, about 3 s" in said
    assert "1 of 2 runs, about 2 s left" in said and "failed: arm: no luck" in said


def test_what_comes_before_the_first_steps_is_not_taken_for_their_pace(tmp_path, monkeypatch):
    """Two of six runs of 10 steps import for 30 s, and then take 1 s a step like all others, begun 2 s before."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    places = [tmp_path / str(i) for i in range(6)]
    board = Board(quiet=True)
    board.begin("study", [Entry(str(i), str(place), 9) for i, place in enumerate(places)], 0)

    def at(seconds, steps, running, ended=()):
        clock[0] = 100.0 + seconds
        for i, step in steps.items():
            (places[i] / "commits").mkdir(parents=True, exist_ok=True)
            (places[i] / "commits" / f"{step:06d}.json").touch()
        ends = dict(ended)
        board.watch(running, [Outcome("run", seconds=ends[i]) if i in ends else Outcome() for i in range(6)])
        return board.seconds_left()

    first = {0: 100.0, 1: 100.0}
    assert at(1, {}, first) is None
    assert at(31, {0: 0, 1: 0}, first) is None
    assert at(35, {0: 4, 1: 4}, first) == pytest.approx(1.0 * (4 * 10 + 2 * 5) / 2)
    later = {2: 140.0, 3: 140.0}
    assert at(40, {0: 9, 1: 9}, later, {0: 40.0, 1: 40.0}) == pytest.approx(1.0 * 4 * 10 / 2)
    left = at(47, {2: 4, 3: 4}, later, {0: 40.0, 1: 40.0})  # 7 s for 5 steps: what comes before each run counts
    assert left == pytest.approx((2 * 9 + 2 * 7) / (2 * 9 + 2 * 5) * (2 * 10 + 2 * 5) / 2)


def test_a_store_is_asked_about_a_run_now_and_then_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Mirror, "records", lambda self, folder: asked.append(folder) or [])
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    board = Board(quiet=True)
    board.begin("study", [Entry("far", f"memory://{tmp_path}/tiny/1", 10)], 0)
    for _ in range(20):
        clock[0] += 1.0
        board.watch({0: 100.0}, [Outcome()])
    assert 4 <= len(asked) <= 6


def test_workers_are_hired_again_where_they_come_from_was_killed(tmp_path, monkeypatch):
    engine, real, failures = Processes(1), local._Worker, [EOFError, ConnectionResetError]

    def unlucky(context):
        if failures:
            raise failures.pop()
        return real(context)

    monkeypatch.setattr(local, "_Worker", unlucky)
    try:
        assert complete([job(tmp_path, scenario(steps=1))], engine)[0].run
        failures += [EOFError] * 3
        for worker in engine._workers:
            worker.process.kill()
            until(worker.pipe.poll)
        with pytest.raises(EcosystemError, match="no worker can be started"):
            complete([job(tmp_path, scenario(steps=1, seed=2))], engine)
    finally:
        engine.close()
