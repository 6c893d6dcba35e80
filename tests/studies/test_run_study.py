"""Running a study: which runs are made, where, and what the command reports."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem

import ecosystem
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.remote.places import place_of
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import run_jobs
from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.run_plan import RunPlan
from ecosystem.studies.run_study import StudyResult, listing, planned, run_study
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.spec.study import Study
from tests.studies import small_runs
from tests.studies.processes import kill_at
from tests.studies.small_runs import numbers, undisturbed
from tests.studies.small_study import FRONTIER, STUDY, load, run


@pytest.mark.slow
def test_a_second_call_runs_nothing_and_says_the_same(folder: Path) -> None:
    first = run(folder)
    times = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("loop-*/*/commits/*.json")}
    second = run(folder)
    assert times == {p: p.stat().st_mtime_ns for p in times} and len(times) == 9 * 5
    assert second.results.values.equals(first.results.values)
    assert second.results.runs["attempts"].to_list() == [0] * 9


@pytest.mark.slow
def test_arms_that_come_to_the_same_scenario_share_its_run(folder: Path) -> None:
    text = STUDY.replace("[arms.more]", '[arms.named]\n"policies.fresh.mode" = "fresh"\n[arms.more]')
    result = run(folder, text)
    runs = result.results.runs
    assert runs.height == 12 and runs["run"].n_unique() == 9


@pytest.mark.slow
def test_arms_that_fork_share_the_history_of_the_base(folder: Path) -> None:
    """After the fork they are what the uninterrupted scenario with that timed change is, bit for bit."""
    text = STUDY + "[branch]\nstep = 2\n"
    result = run(folder, text)
    assert result.results.runs["error"].null_count() == 9
    cells = {(c.arm, c.scenario.seed): c for c in load(folder, text).cells(folder)}
    alone = Run.open(folder_of(cells["alone", 1].scenario, folder / "out"))
    helped = Run.open(folder_of(cells["helped", 1].scenario, folder / "out"))
    early = pl.col("step") <= 2
    assert helped.metrics.filter(early).equals(alone.metrics.filter(early))
    assert not helped.metrics.filter(~early).equals(alone.metrics.filter(~early))
    assert not (helped.path / "corpus" / "000001.parquet").exists()  # read through, not copied
    whole = ecosystem.run(cells["helped", 1].scenario, out=folder / "elsewhere")
    assert whole.metrics.equals(helped.metrics)


@pytest.mark.slow
def test_a_stored_run_of_another_scenario_is_refused_as_the_parent(folder: Path) -> None:
    other = ecosystem.run(
        Scenario.load(folder / "loop.toml").override({"trainers.lab.publish": 21}), out=folder / "out"
    )
    text = STUDY + f'[branch]\nstep = 2\nrun = "{other.path.parent}"\n'
    with pytest.raises(ScenarioError, match="a run of another scenario"):
        run(folder, text)


@pytest.mark.slow
def test_the_command_says_where_the_report_is_and_as_json_what_failed(folder: Path) -> None:
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--engine", "serial"]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["runs"] == 9 and summary["failed"] == [] and Path(summary["report"]).exists()
    dry = CliRunner().invoke(cli, [*arguments, "--dry-run"])
    assert dry.stdout.count("(finished)") == 9
    cells = json.loads(CliRunner().invoke(cli, [*arguments, "--dry-run", "--json"]).stdout)["cells"]
    assert len({cell["run"] for cell in cells}) == 9 and all(cell["finished"] for cell in cells)


@pytest.mark.slow
def test_from_python_a_study_is_one_call(folder: Path) -> None:
    result = ecosystem.study(folder / "small.toml", folder / "out", engine="serial", threads=1)
    assert result.effects.height == 4 and result.report.exists() and result.results.values.height == 18
    for options, said in (
        ({"engine": "slurm"}, "--engine slurm: unknown engine; choose from serial, processes, ray"),
        ({"jobs": 0}, "--jobs: give a whole number of at least 1, not 0"),
        ({"device": "tpu"}, "--device tpu: unknown device.* cpu"),
    ):
        with pytest.raises(EcosystemError, match=said):  # though there is nothing left to run
            ecosystem.study(folder / "small.toml", folder / "out", **options)
    (folder / "where.toml").write_text(FRONTIER)
    frontier = Frontier.load(folder / "where.toml")
    threshold, page = ecosystem.frontier(frontier, folder / "out", base=folder, engine="serial", threads=1)
    assert threshold.value is not None and page.exists()


def run_with(study: Study, base: Path, out: str | Path, options: ExecutionOptions) -> StudyResult:
    return run_study(study, base, options, StudyProgress(quiet=True), out=str(out))


@pytest.mark.slow
def test_serial_and_processes_measure_the_same_and_a_finished_run_is_not_run_again(tmp_path):
    study = small_runs.study(tmp_path)
    alone = run_with(study, tmp_path, tmp_path / "serial", ExecutionOptions("serial"))
    many = run_with(study, tmp_path, tmp_path / "processes", ExecutionOptions("processes", jobs=9))
    assert alone.results.values.equals(many.results.values) and alone.results.values["value"].is_finite().all()
    for one, other in zip(alone.results.runs["run"], many.results.runs["run"], strict=True):
        assert numbers(one).equals(numbers(other)) and numbers(one).height > 20
        assert Run.open(one).machine == Run.open(other).machine
    records = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*/commits/*.json")}
    again = run_with(study, tmp_path, tmp_path / "processes", ExecutionOptions("processes"))
    assert again.results.runs["attempts"].to_list() == [0] * 4 and again.results.values.equals(many.results.values)
    assert len(records) == 2 * 4 * 6 and all(path.stat().st_mtime_ns == at for path, at in records.items())


@pytest.mark.slow
def test_runs_that_diverge_are_told_in_their_cells_and_the_others_are_compared(tmp_path):
    """Text hotter by 1.7e77 at each step overflows at step 5 with seed 1 and with no other; by 1e100, with all."""
    heat = '"trainers.lab.decoding.temperature"'
    arms = f"[arms.hot]\n{heat} = 1.7e77\n[arms.hotter]\n{heat} = 1e100\n[arms.plain]"
    text = small_runs.STUDY.replace('"variance"', '"synthetic_share"\nof = "lab"').replace("[1, 2]", "[1, 2, 3]")
    small_runs.study(tmp_path, text.replace("[arms.plain]", arms).replace("seeds", 'reference = "plain"\nseeds'))
    command = ["study", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--engine", "serial", "--json"]
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 1, shown.exception  # some runs fail
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
    assert page.count("has diverged: its documents are too large for a number") == 4


@pytest.mark.slow
@pytest.mark.parametrize("where", ["folder", "url"])
def test_arms_wait_for_the_run_that_they_branch_from_and_read_it(tmp_path, processes, where):
    out = str(tmp_path / "out") if where == "folder" else f"file://{tmp_path}/out"
    study = small_runs.study(
        tmp_path,
        "branch = { step = 3 }\n"
        + small_runs.STUDY.replace("[arms.plain]", '[arms.plain]\n[arms.less]\n"trainers.lab.publish" = 10'),
    )
    plan = RunPlan(tmp_path, ExecutionOptions(), out)
    for cell in study.cells(tmp_path):
        plan.add_cell(cell, study)
    results = run_jobs(plan.jobs, processes)
    assert [result.error for result in results] == [""] * 6
    for job, result in zip(plan.jobs, results, strict=True):
        if job.parent_job is None:
            continue
        course, before = numbers(result.run), numbers(results[job.parent_job].run)
        assert course.filter(pl.col("step") <= 3).equals(before.filter(pl.col("step") <= 3))
        assert not course.filter(pl.col("step") > 3).equals(before.filter(pl.col("step") > 3))
        own = Path(result.run.removeprefix("file://")) / "commits"
        assert [path.stem for path in sorted(own.glob("*.json"))] == ["000004", "000005"]
    if where == "url":
        shutil.rmtree(Mirror(out).folder)


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StoreError, match="choose another folder"):
        run_with(small_runs.study(tmp_path), tmp_path, tmp_path / "out", ExecutionOptions("serial"))


def test_a_store_that_cannot_be_written_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def full(self, file, path, **more):
        raise PermissionError("read only")

    monkeypatch.setattr(MemoryFileSystem, "put_file", full)
    with pytest.raises(StoreError, match=rf"^memory://{tmp_path}/studies/tiny-study-.* read only"):
        run_with(small_runs.study(tmp_path), tmp_path, f"memory://{tmp_path}", ExecutionOptions("serial"))


@pytest.mark.slow
def test_a_study_in_an_object_store_survives_a_killed_worker_and_tells_beside_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = small_runs.study(tmp_path, world=small_runs.WORLD.replace("steps = 5", "steps = 30"))
    out = f"file://{tmp_path}/bucket/runs"
    place = place_of(study.cells(tmp_path)[0].scenario, out)
    folder = Mirror(out).local(place)
    killer = kill_at(place, folder, 3)
    result = run_with(study, tmp_path, out, ExecutionOptions("processes", jobs=2))
    killer.join()
    assert sorted(result.results.runs["attempts"]) == [1, 1, 1, 2] and result.results.runs["error"].null_count() == 4
    assert numbers(place).equals(undisturbed(study.cells(tmp_path)[0].scenario, tmp_path))
    uploaded = Path(f"bucket/runs/studies/{result.folder.name}")
    assert (uploaded / "report.html").read_bytes() == result.report.read_bytes() and (
        uploaded / "runs.parquet"
    ).is_file()
    assert listing(planned(study, tmp_path, out)).count("(finished)") == 4
    shutil.rmtree(Mirror(out).folder)


SOURCE = """
name = "cells"
steps = 1
[sources.texts]
kind = "text"
path = "texts.txt"
held_out = 10
[web]
kind = "isolated"
sites = 6
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
CELLS = """
name = "cells"
base = "base.toml"
seeds = SEEDS
[arms.few]
[arms.more]
"trainers.labs.publish" = 8
[[measures]]
metric = "cross_entropy"
of = "labs"
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["out", "memory://changed/out"])
def test_cells_made_from_other_files_are_not_put_beside_new_ones(place: str, tmp_path: Path) -> None:
    def study(seeds: str) -> StudyResult:
        (tmp_path / "study.toml").write_text(CELLS.replace("SEEDS", seeds))
        return ecosystem.study(tmp_path / "study.toml", place if ":" in place else tmp_path / place, engine="serial")

    (tmp_path / "base.toml").write_text(SOURCE)
    texts = [f"This is text number {i} of a book.\n\n" for i in range(60)]
    (tmp_path / "texts.txt").write_text("".join(texts))
    first = study("[1, 2]")
    assert study("[1, 2]").results.values.equals(first.results.values)
    (tmp_path / "texts.txt").write_text("".join(texts[1:]))
    message = r"4 finished runs cannot be reused, for instance .* \(the source \"texts\" has changed\)"
    for seeds in ("[1, 2, 3]", "[1, 2]"):
        with pytest.raises(StoreError, match=message):
            study(seeds)
    (tmp_path / "texts.txt").write_text("".join(texts))
    assert study("[1, 2, 3]").results.runs["error"].null_count() == 6
