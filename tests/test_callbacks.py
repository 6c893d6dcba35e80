"""Callbacks, TensorBoard and the command at the end: what they are given, and that no run depends on them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.api import branch, run, run_scenario
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, TrainingError
from ecosystem.runs.callbacks import base
from ecosystem.runs.callbacks.base import made, metric_curves, time_curves
from ecosystem.runs.callbacks.notify import exit_at_sigterm, notified
from ecosystem.runs.leftovers import other_files
from ecosystem.runs.progress import RunProgress
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.run_plan import RunPlan
from ecosystem.studies.run_study import StudyRunner
from tests.conftest import ROOT

FILE = ROOT / "tests/baseline/scenarios/vectors.toml"


class Recorder:
    """Writes down what it is called with."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def begin(self, run):
        self.calls.append(("begin", run))

    def step(self, step):
        self.calls.append(("step", step))
        if step.t == self.fails_at:
            raise ValueError("no connection")

    def end(self, run):
        self.calls.append(("end", run))

    def kinds(self):
        return [kind if kind != "step" else value.t for kind, value in self.calls]


@pytest.fixture
def scenario():
    return Scenario.load(FILE).override({"steps": 3})


def computed(scenario, out, *callbacks, **more):
    return run(scenario, out=out, threads=1, callbacks=callbacks, **more)


@pytest.mark.slow
def test_a_callback_gets_every_step_once_however_the_run_is_divided(scenario, tmp_path, unreported):
    first, second, third = Recorder(), Recorder(), Recorder()
    computed(scenario.override({"steps": 1}), tmp_path, first)
    whole = computed(scenario, tmp_path, second)
    computed(scenario, tmp_path, third)
    assert first.kinds() == ["begin", 0, 1, "end"]
    assert second.kinds() == ["begin", 2, 3, "end"]
    assert third.kinds() == ["begin", "end"]  # finished before
    start, end = second.calls[0][1], second.calls[-1][1]
    assert (start.last, start.steps, start.name, start.seed) == (1, 3, scenario.name, scenario.seed)
    assert start.folder == whole.path and start.scenario == scenario.plain()
    assert (end.status, end.last, end.message) == ("finished", 3, "")
    reported = [call.metrics for kind, call in first.calls + second.calls if kind == "step"]
    assert pl.concat(reported).equals(whole.store.table("metrics"))
    assert start.metrics.equals(whole.store.table("metrics", range(2)))
    assert third.calls[0][1].metrics.equals(whole.store.table("metrics"))
    assert all(call.timings.height for kind, call in first.calls if kind == "step")


@pytest.mark.slow
def test_a_branch_has_the_history_of_its_parent(scenario, tmp_path, unreported):
    whole, recorder = computed(scenario, tmp_path), Recorder()
    branch(whole, 1, {}, out=tmp_path / "branches", callbacks=[recorder])
    assert recorder.kinds() == ["begin", 2, 3, "end"]
    assert recorder.calls[0][1].metrics.equals(whole.store.table("metrics", range(2)))


@pytest.mark.slow
def test_a_callback_that_fails_is_switched_off_and_changes_nothing(scenario, tmp_path, unreported, capsys):
    failing, other = Recorder(fails_at=1), Recorder()
    watched = computed(scenario, tmp_path / "watched", failing, other)
    alone = computed(scenario, tmp_path / "alone")
    assert failing.kinds() == ["begin", 0, 1] and other.kinds() == ["begin", 0, 1, 2, 3, "end"]
    assert "is switched off, and the run goes on: no connection" in capsys.readouterr().err
    assert [c.files for c in watched.store.commits()] == [c.files for c in alone.store.commits()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(TrainingError("it diverged."), "failed", "it diverged."), (KeyboardInterrupt(), "stopped", "")],
)
def test_the_end_says_what_went_wrong(scenario, tmp_path, unreported, monkeypatch, error, status, message):
    recorder = Recorder()

    class Stopping(Recorder):
        def steps(self, done, total):
            if done == 1:
                raise error

    monkeypatch.setattr(RunProgress, "steps", Stopping.steps)
    with pytest.raises(type(error)):
        computed(scenario, tmp_path, recorder)
    end = recorder.calls[-1][1]
    assert recorder.kinds() == ["begin", 0, 1, "end"] and (end.status, end.last, end.message) == (status, 1, message)


def test_names_and_objects_that_are_no_callbacks_are_refused(monkeypatch):
    with pytest.raises(EcosystemError, match=r'did you mean "tensorboard"'):
        made(["tensorbord"])
    with pytest.raises(EcosystemError, match="neither a name nor an object with the methods begin, step and end"):
        made([Recorder])  # a class
    points = [
        EntryPoint("recorder", "tests.test_callbacks:Recorder", base.GROUP),
        EntryPoint("broken", "builtins:dict", base.GROUP),
    ]
    monkeypatch.setattr(base, "entry_points", lambda group: points if group == base.GROUP else [])
    [(name, callback)] = made(["recorder", "recorder"])
    assert name == "recorder" and isinstance(callback, Recorder)
    with pytest.raises(EcosystemError, match=r"makes .*, which lacks one of the methods"):
        made(["broken"])


def test_a_missing_package_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = CliRunner().invoke(cli, ["run", str(FILE), "--out", str(tmp_path), "--tensorboard"])
    assert isinstance(result.exception, EcosystemError)
    assert 'pip install "ecosystem[tensorboard]"' in str(result.exception) and not list(tmp_path.iterdir())


def test_curves_are_finite_and_leave_out_single_sites():
    table = pl.DataFrame(
        [
            (1, "trainer", "naive/0", "cross_entropy", 2.5, 0.1),
            (1, "site", "7", "documents", 3.0, None),
            (1, "web", "web", "depth", float("nan"), None),
            (1, "web", "web", "documents", None, None),
        ],
        schema=["step", "scope", "id", "metric", "value", "error"],
        orient="row",
    )
    assert list(metric_curves(table)) == [(1, "trainer_cross_entropy/naive/0", 2.5)]
    times = pl.DataFrame({"step": [1, 1, 2], "phase": ["fit"] * 3, "id": ["a", "b", "a"], "seconds": [1.0, 2.0, 4.0]})
    assert list(time_curves(times)) == [(1, "seconds/fit", 3.0), (2, "seconds/fit", 4.0)]


def require_curves(run):
    """Assert that the event files of a run have every step of every curve once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    expected = {}
    for step, tag, value in metric_curves(run.store.table("metrics")):
        expected.setdefault(tag, []).append((step, pytest.approx(value)))
    drawn = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    times = {tag: points for tag, points in drawn.items() if tag.startswith("seconds/")}
    assert {tag: points for tag, points in drawn.items() if tag not in times} == expected
    assert [step for step, _ in times["seconds/fit"]] == [1, 2, 3]


@pytest.mark.slow
def test_tensorboard_has_every_step_once_after_a_resume(scenario, tmp_path, unreported):
    computed(scenario.override({"steps": 2}), tmp_path, "tensorboard")
    require_curves(computed(scenario, tmp_path, "tensorboard"))


@pytest.mark.slow
def test_runs_of_a_study_write_their_curves_also_those_finished_or_begun_before(scenario, tmp_path, unreported):
    runs = [scenario.override({"seed": seed}) for seed in (1, 2, 3)]
    computed(runs[0], tmp_path)
    computed(runs[1].override({"steps": 2}), tmp_path)
    options = ExecutionOptions("serial", callbacks=["tensorboard"])
    plan = RunPlan(tmp_path, options, str(tmp_path))
    for each in runs:
        plan.add_run(each, each.name)
    with StudyRunner(options, StudyProgress(quiet=True)) as runner:
        runner.execute(plan, "three")
    for each in runs:
        require_curves(Run(folder_of(each, tmp_path)))


def test_studies_take_names_of_callbacks_and_folders_for_their_curves(tmp_path):
    with pytest.raises(EcosystemError, match="give names, such as tensorboard"):
        ExecutionOptions(callbacks=[Recorder()])
    with pytest.raises(EcosystemError, match=r'did you mean "tensorboard"'):
        ExecutionOptions(callbacks=["tensorbord"])
    with pytest.raises(EcosystemError, match=r"--out s3://bucket/runs is an object store; give a folder"):
        RunPlan(tmp_path, ExecutionOptions(callbacks=["tensorboard"]), "s3://bucket/runs")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package
def test_mlflow_has_every_step_once_after_a_resume(scenario, tmp_path, unreported, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    computed(scenario.override({"steps": 1}), tmp_path)  # not followed
    computed(scenario.override({"steps": 2}), tmp_path, "mlflow")
    whole = computed(scenario, tmp_path, "mlflow")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    [experiment] = [e for e in client.search_experiments() if e.name == scenario.name]
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.tags["ecosystem.step"] == "3"
    expected = {}
    for step, tag, value in metric_curves(whole.store.table("metrics")):
        expected.setdefault(tag, []).append((step, value))
    for tag in list(expected)[::20]:
        drawn = sorted((m.step, m.value) for m in client.get_metric_history(found.info.run_id, tag))
        assert drawn == expected[tag], tag
    assert [m.step for m in client.get_metric_history(found.info.run_id, "seconds/fit")] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_every_step_once_offline(scenario, tmp_path, unreported, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = []
    log = wandb.Run.log
    monkeypatch.setattr(wandb.Run, "log", lambda self, data, step: (logged.append((step, data)), log(self, data, step)))
    computed(scenario.override({"steps": 1}), tmp_path)
    computed(scenario.override({"steps": 2}), tmp_path, "wandb")
    whole = computed(scenario, tmp_path, "wandb")
    assert [step for step, _ in logged] == [0, 1, 2, 3]
    expected = {(step, tag): value for step, tag, value in metric_curves(whole.store.table("metrics"))}
    written = {(step, tag): value for step, data in logged for tag, value in data.items()}
    assert {key: value for key, value in written.items() if not key[1].startswith("seconds/")} == expected
    assert len(list((whole.path / "wandb").glob("offline-run-*/*.wandb"))) == 2 and other_files(whole.store) == []


def test_the_exit_code_at_sigterm_is_143_also_if_a_library_replaces_the_exception():
    with pytest.raises(SystemExit) as ended, exit_at_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except SystemExit:
            raise SystemExit(1) from None  # as ray.wait does
    assert ended.value.code == 143
    with pytest.raises(SystemExit) as ended, exit_at_sigterm():
        raise SystemExit(1)
    assert ended.value.code == 1


NOTE = f"\"{sys.executable}\" -c \"import json, os; json.dump(dict(os.environ), open(os.environ['NOTE'], 'w'))\""


@pytest.fixture
def note(tmp_path, monkeypatch):
    """A function that returns the variables of the command at the end."""
    monkeypatch.setenv("NOTE", str(tmp_path / "note.json"))

    def read():
        variables = json.loads((tmp_path / "note.json").read_text())
        return SimpleNamespace(**{k[10:].lower(): v for k, v in variables.items() if k.startswith("ECOSYSTEM_")})

    return read


@pytest.mark.slow
def test_the_command_at_the_end_gets_the_outcome(scenario, tmp_path, unreported, note):
    run_scenario(scenario, RunProgress(quiet=True), out=tmp_path, threads=1, notify=NOTE)
    folder, told = folder_of(scenario, tmp_path), note()
    assert (told.outcome, told.message, told.steps, told.name) == ("finished", "", "3", scenario.name)
    assert (told.run, told.report, told.seed) == (str(folder), str(folder / "report.html"), str(scenario.seed))
    assert float(told.seconds) > 0
    (folder / "corpus/000003.parquet").write_bytes(b"")
    longer = scenario.override({"steps": 4})
    with pytest.raises(EcosystemError):
        run_scenario(longer, RunProgress(quiet=True), out=tmp_path, threads=1, notify=NOTE)
    told = note()
    assert told.outcome == "failed" and "truncated" in told.message and told.run == str(folder)


def test_a_command_that_fails_is_said_and_changes_nothing(capsys):
    with notified("exit 3", {}) as outcome:
        outcome["report"] = "x"
    assert "the command of --notify failed (its exit code was 3): exit 3" in capsys.readouterr().err
    with pytest.raises(KeyError), notified("exit 0", {}):
        raise KeyError("x")
    with notified(None, {}):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
def test_a_run_that_a_batch_system_ends_says_so_and_goes_on_later(tmp_path, note):
    arguments = ["run", str(FILE), "--out", str(tmp_path / "out"), "--steps", "100000", "--notify", NOTE]
    process = subprocess.Popen(
        [sys.executable, "-m", "ecosystem", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step "):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and "run the same command again to continue" in errors, errors
    assert note().outcome == "stopped"
    resumed = run(Scenario.load(FILE).override({"steps": 3}), out=tmp_path / "out")
    assert resumed.store.verify() > 0


def test_a_study_with_failed_runs_is_told_as_failed(tmp_path, monkeypatch, note):
    result = SimpleNamespace(report="report.html", summary=lambda: {"failed": ["x", "y"]})
    monkeypatch.setattr("ecosystem.studies.run_study.run_study", lambda *_, **__: result)
    file = ROOT / "scenarios/studies/monoculture.toml"
    done = CliRunner().invoke(cli, ["study", str(file), "--out", str(tmp_path), "--notify", NOTE])
    told = note()
    assert done.exit_code == 1 and (told.outcome, told.message) == ("failed", "2 of the runs failed")
    assert told.name == "monoculture" and told.report == "report.html"


def test_sigterm_is_ours_again_after_ray_has_taken_it(tmp_path, monkeypatch):
    """Ray replaces the handler when its workers start; that of Ray aborts the process."""
    found = []

    @contextmanager
    def workers(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        yield None

    def executed(*_):
        found.append(signal.getsignal(signal.SIGTERM))
        raise EcosystemError("enough.")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ecosystem.api._workers", workers)
    monkeypatch.setattr("ecosystem.api._execute", executed)
    with pytest.raises(EcosystemError, match="enough"):
        run(Scenario.load(FILE), out=tmp_path, threads=1)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(SystemExit) as end:
        found[0](signal.SIGTERM, None)
    assert end.value.code == 143
