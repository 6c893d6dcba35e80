"""Several runs of one scenario in one report, and comparisons of runs."""

import json
import math

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.comparing import seeds_of
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.runs.run import Run
from ecosystem.studies.comparison.groups import courses, differences, groups_of, open_runs, over_seeds, settings
from ecosystem.studies.comparison.page import Comparison
from tests.conftest import tiny
from tests.invented_runs import invent, scenario

SHIFT, NOISE = 0.25, 0.5  # of the other scenario, and of the seeds


def shifted(by):
    """Add a number to every cross-entropy of trainers."""
    hit = (pl.col("metric") == "cross_entropy") & (pl.col("scope") == "trainer")
    return lambda frame: frame.with_columns(value=pl.when(hit).then(pl.col("value") + by).otherwise("value"))


def invented(folder, spec, seed, by):
    spec = spec.override({"seed": seed})
    return invent(folder / f"{spec.name}-{spec.fingerprint()}" / str(seed), spec, metrics=shifted(by), graph=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two scenarios, three seeds of each: noise of the seeds is common, and the second is worse by SHIFT."""
    folder = tmp_path_factory.mktemp("runs")
    base, other = scenario(steps=2), scenario(steps=3, members=2).override({"trainers.naive.scrape.docs": 400})
    noise = NOISE * np.random.default_rng(3).standard_normal(3)
    first = [invented(folder, base, seed, x) for seed, x in enumerate(noise, 1)]
    second = [invented(folder, other, seed, x + SHIFT) for seed, x in enumerate(noise, 1)]
    return folder, first, second, noise


def only(frame, **key):
    [row] = frame.filter(*(pl.col(name) == value for name, value in key.items())).iter_rows(named=True)
    return row


NAIVE = {"scope": "trainer", "of": "naive", "metric": "cross_entropy"}


def test_means_and_intervals_are_students_over_seeds(runs):
    _, first, _, noise = runs
    [group] = groups_of(first)
    row = only(over_seeds(courses(group, 2)), **NAIVE, step=2)
    at_zero = [
        first[i]
        .metrics.filter(
            (pl.col("step") == 2) & (pl.col("metric") == "cross_entropy") & pl.col("id").str.starts_with("naive/")
        )["value"]
        .mean()
        for i in range(3)
    ]
    half = 4.302653 * np.std(noise, ddof=1) / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert row["seeds"] == 3 and row["mean"] == pytest.approx(np.mean(at_zero))
    assert row["high"] - row["mean"] == pytest.approx(half, rel=1e-6)
    assert only(over_seeds(courses(groups_of(first[:1])[0], 2)), **NAIVE, step=2)["low"] is None


def test_differences_are_paired_by_common_seeds(runs):
    _, first, second, _ = runs
    comparison = Comparison.of(groups_of([*first, *second]))
    assert comparison.last == 2  # the last step that all have
    row = only(comparison.differences, **NAIVE)
    assert row["by"] == "paired seeds" and row["seeds"] == 3
    assert row["difference"] == pytest.approx(SHIFT)
    assert row["high"] - row["low"] < 1e-6 < NOISE  # the noise of seeds is common to both


def test_without_common_seeds_intervals_are_welchs_and_of_single_runs_those_of_measurement(runs):
    folder, first, second, _ = runs
    other = [invented(folder, second[0].scenario, seed, 0.1 * seed) for seed in (11, 12)]
    series = [courses(group, 2) for group in groups_of([*first, *other])]
    row = only(differences(series), **NAIVE)
    assert row["by"] == "independent seeds" and row["high"] - row["low"] > NOISE / 2
    series = [courses(group, 2) for group in groups_of([first[0], second[1]])]
    row, errors = (
        only(differences(series), **NAIVE),
        [only(frame.filter(pl.col("step") == 2), **NAIVE) for frame in series],
    )
    assert row["by"] == "measurement only" and row["seeds"] == 1
    expected = 1.959964 * math.hypot(*(each["error"] for each in errors))
    assert row["high"] - row["difference"] == pytest.approx(expected)


def test_settings_that_differ_are_listed(runs):
    _, first, second, _ = runs
    assert dict(settings(groups_of([first[0], second[0]]))) == {
        "steps": ["2", "3"],
        "trainers.naive.scrape.docs": ["500", "400"],
    }
    assert settings(groups_of(first)) == []


def test_the_command_writes_one_page_and_tables(runs, tmp_path):
    _, first, second, _ = runs
    places = [str(run.path.parent) for run in (first[0], second[0])]
    said = CliRunner().invoke(cli, ["compare", *places, "--out", str(tmp_path)])
    assert said.exit_code == 0, said.exception
    page = tmp_path / said.output.splitlines()[-1]
    html = page.read_text()
    assert "trainers.naive.scrape.docs" in html and "3 paired seeds" in html
    assert "trainers.naive.scrape.docs" in said.output and "+0.25" in said.output
    assert (page.parent / "charts/cross_entropy_naive.svg").exists()
    assert pl.read_parquet(page.parent / "differences.parquet").height > 10
    plain = json.loads(CliRunner().invoke(cli, ["compare", *places, "--out", str(tmp_path), "--json"]).output)
    assert plain["groups"][0]["seeds"] == [1, 2, 3] and plain["report"] == str(page)


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        (lambda a, b: [a[0].path], "give two or more runs to compare"),
        (lambda a, b: [a[0].path, a[0].path], "is given twice"),
        (lambda a, b: [a[0].path, "nowhere"], "is not a run folder"),
    ],
)
def test_mistakes_are_sentences(runs, which, sentence):
    _, first, second, _ = runs
    error = CliRunner().invoke(cli, ["compare", *map(str, which(first, second))]).exception
    assert isinstance(error, EcosystemError) and sentence in str(error)


def test_a_copy_of_a_run_is_refused(runs, tmp_path):
    _, first, _, _ = runs
    copy = invented(tmp_path, first[0].scenario, 1, 0.0)
    with pytest.raises(EcosystemError, match="are the same run"):
        groups_of(open_runs([first[0].path, copy.path]))


def test_lists_of_seeds():
    assert seeds_of("1-3,7, 9-9") == [1, 2, 3, 7, 9] and seeds_of("4") == [4]
    for text, part in (
        ("1,1", "repeated"),
        ("3-1", "smaller one first"),
        ("x", "write 1-8"),
        ("1-", "write 1-8"),
        ("", "write"),
    ):
        with pytest.raises(EcosystemError, match=part):
            seeds_of(text)


@pytest.mark.slow
def test_a_scenario_over_several_seeds_has_one_report(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    spec = tiny(steps=2).override({"models.tiny": {"preset": "trigram", "vocabulary": 300}, "changes": []})
    (tmp_path / "tiny.toml").write_text(spec.to_toml())
    monkeypatch.setattr("ecosystem.api._report", lambda folder: str(folder / "report.html"))
    arguments = ["run", "tiny.toml", "--cache", str(cache), "--seeds", "1,4"]
    said = CliRunner().invoke(cli, [*arguments, "--json"])
    assert said.exit_code == 0, said.exception
    summary = json.loads(said.stdout.splitlines()[-1])
    assert [Run.open(place).seed for place in summary["runs"]] == [1, 4]
    assert summary["report"] == f"outputs/seeds/{spec.name}-{spec.fingerprint()}/report.html"
    row = next(row for row in summary["metrics"] if row["of"] == "naive" and row["metric"] == "cross_entropy")
    values = [
        Run.open(place)
        .metrics.filter(
            (pl.col("step") == 2) & (pl.col("metric") == "cross_entropy") & pl.col("id").str.starts_with("naive/")
        )["value"]
        .mean()
        for place in summary["runs"]
    ]
    assert row["seeds"] == 2 and row["mean"] == pytest.approx(np.mean(values)) and row["low"] < row["mean"]
    again = CliRunner().invoke(cli, [*arguments, "--quiet"])  # finished runs are reused
    assert again.output == f"{summary['report']}\n"
    for more, part in ((["--seed", "1"], "not both"), (["--out", "s3://bucket/x"], "need a local --out")):
        error = CliRunner().invoke(cli, [*arguments, *more]).exception
        assert isinstance(error, EcosystemError) and part in str(error)
