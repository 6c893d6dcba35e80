"""Time and tokens by phase and agent."""

import polars as pl
import pytest

from ecosystem.api import branch, run
from ecosystem.report.charts import specification
from ecosystem.report.data import RunReportData
from ecosystem.report.panels import times
from ecosystem.runs.leftovers import other_files
from ecosystem.runs.run import Run
from ecosystem.simulation.clock import REST, Clock
from ecosystem.simulation.phases import PHASES
from tests.conftest import ROOT

VECTORS = ROOT / "tests/baseline/scenarios/vectors.toml"


class Agent:
    def __init__(self, name):
        self.name = name


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time only ``spend`` moves."""
    made = Clock()
    made.time = 0.0
    monkeypatch.setattr(Clock, "now", lambda self=made: made.time)

    def spend(seconds):
        made.time += seconds

    made.spend = spend
    return made


def rows(clock):
    return {(phase, who): seconds for phase, who, seconds in clock.take().rows()}


def test_agents_are_charged_and_the_rest_goes_to_the_web(clock):
    with clock.phase("curate"):
        clock.spend(1.0)
        for agent in clock.each("curators", [Agent("a/0"), Agent("b/0"), Agent("a/0")]):
            clock.spend(2.0)
            if agent.name == "b/0":
                continue
            clock.spend(3.0)
    assert rows(clock) == {("curate", "curators/a/0"): 10.0, ("curate", "curators/b/0"): 2.0, ("curate", REST): 1.0}
    assert clock.take().is_empty()


def test_the_time_of_a_cohort_is_divided_by_tokens(clock):
    with clock.phase("fit"):
        started = clock.now()
        clock.spend(8.0)
        clock.divide("trainers", ["a/0", "b/0"], [300, 100], started)
        started = clock.now()
        clock.spend(2.0)
        clock.divide("trainers", ["a/0", "b/0"], [0, 0], started)
    assert rows(clock) == {("fit", "trainers/a/0"): 7.0, ("fit", "trainers/b/0"): 3.0, ("fit", REST): 0.0}


def test_a_phase_that_fails_is_closed(clock):
    with pytest.raises(ZeroDivisionError), clock.phase("fit"):
        clock.spend(1.0)
        raise ZeroDivisionError
    with clock.phase("measure"):
        clock.spend(2.0)
    assert rows(clock) == {("fit", REST): 1.0, ("measure", REST): 2.0}


@pytest.mark.slow
def test_the_phases_of_a_step_add_up_to_its_time(finished):
    timings, commits = finished.timings(), finished.store.commits()
    assert set(timings["step"]) == {0, 1, 2, 3}
    assert timings["seconds"].min() >= 0
    for commit in commits[1:]:
        own = timings.filter(step=commit.step)
        assert set(own["phase"]) == {"changes", *(phase.__name__ for phase in PHASES)}
        assert own.select("phase", "id").is_duplicated().sum() == 0
        # The rest of a step is the making of its tables, which no phase includes.
        assert 0.5 * commit.seconds < own["seconds"].sum() <= commit.seconds + 0.001
    tokens = timings.drop_nulls("tokens")
    assert set(tokens["phase"]) == {"fit", "generate"}
    costs = finished.costs(total=True).filter(pl.col("metric").is_in(["tokens_trained", "tokens_generated"]))
    assert tokens["tokens"].sum() == costs["value"].sum() > 0


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecosystem.api._report", lambda folder: str(folder / "report.html"))
        return run(VECTORS, out=tmp_path_factory.mktemp("out"), threads=1)


@pytest.mark.slow
def test_no_record_lists_times_and_no_one_misses_them(vectors, tmp_path, unreported):
    assert not [name for commit in vectors.store.commits() for name in commit.files if "timings" in name]
    assert other_files(vectors.store) == []
    half = vectors.last_step // 2
    fork = branch(vectors, half, out=tmp_path)
    assert fork.timings().filter(pl.col("step") <= half).equals(vectors.timings().filter(pl.col("step") <= half))
    assert set(fork.timings()["step"]) == set(range(fork.last_step + 1))
    times = fork.path / "timings"
    (times / f"{fork.last_step:06d}.parquet").write_bytes(b"damaged")
    (times / f"{half + 1:06d}.parquet").unlink()
    again = Run.open(fork.path)
    assert set(again.timings()["step"]) == set(range(fork.last_step + 1)) - {half + 1, fork.last_step}
    assert again.verify() > 0


@pytest.mark.slow
def test_the_report_draws_time_and_tokens_by_phase_and_who(finished):
    data = RunReportData.of(finished)
    rows, timings = times.spent(data), finished.timings()
    assert rows["phase"].unique(maintain_order=True).to_list() == [
        "foundations", "opening", "changes", *(phase.__name__ for phase in PHASES)
    ]  # fmt: skip
    assert set(rows["who"]) == {"naive", "careful", *times.OTHERS}
    assert rows["seconds"].sum() == pytest.approx(timings["seconds"].sum())
    fits = dict(rows.filter(phase="fit").select("who", "tokens").rows())
    costs = finished.costs(total=True).filter(metric="tokens_trained")
    assert fits == {
        "naive": costs.filter(pl.col("id").str.contains("/naive/"))["value"].sum(),
        "careful": costs.filter(pl.col("id").str.contains("/careful/"))["value"].sum(),
        "web": None,
    }
    for name, chart in times.drawn(data).items():
        spec = specification(chart)
        bars = [row for part in spec["datasets"].values() for row in part]
        column = "seconds" if name.startswith("time") else "tokens"
        assert sum(row["value"] for row in bars) == pytest.approx(rows[column].sum(), rel=0.02)
        ends = {(row["phase"], round(row["end"], 6)) for row in bars} | {(row["phase"], 0.0) for row in bars}
        assert all((row["phase"], round(row["start"], 6)) in ends for row in bars), "bars must join"
    table = times.table(data)
    assert len(table.rows) == rows.height


def test_a_run_of_an_earlier_release_has_no_times():
    run = Run.open(next((ROOT / "tests/data/run-v1").rglob("scenario.toml")).parent)
    data = RunReportData.of(run)
    assert run.timings().is_empty() and times.table(data) is None
    assert set(times.drawn(data).values()) == {None}
