"""Disk space of stored runs: what may go, what stays, and that all else still works."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, StoreError
from ecosystem.runs.branch import Branch
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.space import prunable, stored_runs
from tests.conftest import MACHINE, tiny


def numbers(steps=3, **more):
    small = {"models.tiny": {"preset": "trigram", "vocabulary": 300}, "changes": [], "steps": steps, **more}
    return tiny().override(small)


@pytest.fixture(scope="module")
def original(tmp_path_factory, cache):
    """A finished run, a branch of its step 1, and a run that was stopped after step 1."""
    out = tmp_path_factory.mktemp("original")
    for _ in begin(numbers(), out=out, machine=MACHINE, cache=cache):
        pass
    parent = Run.open(folder_of(numbers(), out))
    fork = Branch.of(parent, 1, {"trainers.naive.publish": 3})
    for _ in begin(fork.scenario, out=out, machine=MACHINE, cache=cache, branch=fork):
        pass
    stopped = numbers(seed=5)
    steps = begin(stopped, out=out, machine=MACHINE, cache=cache)
    next(steps)
    next(steps)
    steps.close()
    return (
        out,
        parent.path.relative_to(out),
        fork.folder(out).relative_to(out),
        folder_of(stopped, out).relative_to(out),
    )


@pytest.fixture
def stored(original, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(original[0], out)
    return out, *(out / place for place in original[1:])


def prune(*arguments, **more):
    return CliRunner().invoke(cli, ["prune", *map(str, arguments)], **more)


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_models_of_past_steps_go_and_what_is_needed_stays(stored, cache):
    out, parent, branch, stopped = stored
    before, whole = size(out), [size(place) for place in (branch, stopped)]
    said = prune(out, "--yes", "--json")
    assert said.exit_code == 0, said.exception
    found = json.loads(said.stdout)
    assert found["freed"] == before - size(out) > 0  # the notes of what was deleted are empty
    assert "has 1 of 3 steps and can be resumed, so it stays" in said.stderr
    run = Run.open(parent)
    assert run.store.steps_with_weights() == [1, 3]  # the branch begins at 1
    assert Run.open(branch).store.steps_with_weights()[-1] == 3 and size(stopped) == whole[1] > 0
    for place in (parent, branch):
        Run.open(place).verify()
        assert not Run.open(place).notes()
    with pytest.raises(StoreError, match="the models of step 2 were deleted by `ecosystem prune`"):
        run.store.weights(2)
    for spec in (numbers(seed=5), numbers(steps=4)):  # a stopped run and a finished one go on
        for _ in begin(spec, out=out, machine=MACHINE, cache=cache):
            pass
        assert Run.open(folder_of(spec, out)).last_step == spec.steps
    again = prune(out, "--dry-run", "--json")
    assert str(parent) in again.stdout  # step 3 is a past step now


@pytest.mark.slow
def test_finished_runs_go_but_no_parent_of_a_branch(stored):
    out, parent, branch, stopped = stored
    said = prune(out, "--runs", input="y\n")
    assert said.exit_code == 0, said.exception
    assert f"{parent}: a branch reads its steps, so it stays." in said.output
    assert not branch.exists() and not branch.parent.exists() and parent.exists() and stopped.exists()
    assert prune(out, "--runs", "--yes").exit_code == 0 and not parent.exists()  # no branch is left


@pytest.mark.slow
def test_nothing_goes_without_a_yes_or_in_a_dry_run(stored):
    out, before = stored[0], size(stored[0])
    assert prune(out, "--runs", input="n\n").exit_code == 1
    assert prune(out, "--runs", input="").exit_code == 1
    dry = prune(out, "--runs", "--dry-run")
    assert dry.exit_code == 0 and "would be free" in dry.output and "the whole run" in dry.output
    assert size(out) == before


@pytest.mark.slow
def test_newer_runs_are_left_alone(stored):
    out, _, branch, _ = stored
    assert json.loads(prune(out, "--older-than", 1, "--dry-run", "--json").stdout)["bytes"] == 0
    for record in (branch / "commits").iterdir():
        os.utime(record, (0, 0))
    parts, _ = prunable(stored_runs(out), whole=True, before=1e9)
    assert [part.folder for part in parts] == [branch]


@pytest.mark.slow
def test_a_run_at_work_pinned_or_damaged_stays(stored):
    out, _, branch, _ = stored
    run = Run.open(branch)
    with run.store.lock():
        error = prune(out, "--runs", "--yes").exception
    assert isinstance(error, EcosystemError) and "another process is working on this run" in str(error)
    assert branch.exists()
    run.store.pin(3)
    assert "a branch was made from it, perhaps in another folder" in prune(out, "--runs", "--dry-run").output
    (branch / "scenario.toml").write_text("steps = ")
    said = prune(out, "--yes")
    assert f"{branch}: cannot be read, so it is left alone" in said.output


@pytest.mark.slow
def test_runs_are_listed_with_their_disk_use(stored):
    out, parent, _, _ = stored
    said = CliRunner().invoke(cli, ["list", "runs", "--out", str(out)]).output
    assert said.count("finished") == 2 and "step 1 of 3" in said and "3 runs, " in said
    rows = json.loads(CliRunner().invoke(cli, ["list", "runs", "--out", str(out), "--json"]).output)
    row = next(row for row in rows if row["folder"] == str(parent))
    assert row["size"] == size(parent) and 0 < row["weights"] < row["size"] and row["last"] == 3


def test_an_empty_folder_lists_nothing_and_a_missing_one_is_a_sentence(tmp_path):
    assert "0 runs" in CliRunner().invoke(cli, ["list", "runs", "--out", str(tmp_path / "no")]).output
    error = prune(tmp_path / "no").exception
    assert isinstance(error, EcosystemError) and "is no folder of runs" in str(error)
