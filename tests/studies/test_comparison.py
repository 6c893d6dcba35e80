"""Several runs of one scenario in one report, and comparisons of runs."""

import json
import math
import re
from html import unescape

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.comparing import seeds_of
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from ecosystem.metrics.limits import limits
from ecosystem.report.charts.templates import scaled
from ecosystem.report.findings import plus_minus
from ecosystem.report.html import breakable
from ecosystem.report.over_seeds import EMPTY, add_link, folder_over_seeds, link
from ecosystem.report.run_charts import metric_title
from ecosystem.runs.run import Run
from ecosystem.studies.comparison.groups import Group, courses, differences, groups_of, open_runs, over_seeds, settings
from ecosystem.studies.comparison.page import Comparison
from ecosystem.studies.comparison.seeds import Seeds
from ecosystem.studies.comparison.seeds_page import _charts
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
    assert row["size"] is None  # the difference is that at every seed


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
    assert 'id="profile"' in html and "runs of each scenario" in html and " of 3" in html
    assert "trainers.naive.scrape.docs" in said.output and "+0.25" in said.output
    assert (page.parent / "charts/cross_entropy_naive.svg").exists()
    assert pl.read_parquet(page.parent / "differences.parquet").height > 10
    plain = json.loads(CliRunner().invoke(cli, ["compare", *places, "--out", str(tmp_path), "--json"]).output)
    assert plain["groups"][0]["seeds"] == [1, 2, 3] and plain["report"] == str(page)


@pytest.fixture
def unrendered(monkeypatch):
    monkeypatch.setattr("ecosystem.report.charts.pictures", lambda spec: (b"<svg/>", b"png"))


def test_the_folder_of_a_scenario_has_a_report_over_its_seeds(runs, unrendered):
    folder, first, _, noise = runs
    linked, page_of_run = first[1], first[1].path / "report.html"
    linked.store.write("report.html", f"<main>{EMPTY}</main>".encode())
    said = CliRunner().invoke(cli, ["report", str(linked.path.parent)])
    assert said.exit_code == 0, said.exception
    page = folder / "seeds" / linked.path.parent.name / "report.html"
    assert said.output == f"{page}\n"
    text = unescape(page.read_text())
    assert "1, 2 and 3 (n = 3)" in text and text.count("@misc{invented-") == 3 and "Any increase of risk" in text
    address = f"../../{linked.path.parent.name}/2/report.html"
    assert f'<a href="{address}">seed 2</a>' in text and (page.parent / address).samefile(page_of_run)
    link_of_run = re.search(r'href="([^"]*)"', page_of_run.read_text())[1]
    assert (linked.path / link_of_run).samefile(page) and linked.notes() == []

    row = only(pl.read_parquet(page.parent / "over_seeds.parquet"), **NAIVE, step=2)
    assert row["error"] == pytest.approx(np.std(noise, ddof=1) / math.sqrt(3))
    assert breakable(plus_minus(row["mean"], row["error"], 3)) in text
    effect = only(pl.read_parquet(page.parent / "contrasts.parquet"), metric="distinct_2", population="filtered")
    assert effect["seeds"] == 3 and effect["low"] <= effect["difference"] <= effect["high"]
    profile = pl.read_parquet(page.parent / "profile.parquet")
    assert set(profile["seed"]) == {1, 2, 3} and profile["definition"].n_unique() == 8


def test_bands_and_axes_end_at_the_bounds_of_a_metric(runs):
    """With two seeds, Student's intervals are 12.7 standard errors: far beyond what a share can be."""
    group = Group("two", groups_of(runs[1])[0].runs[:2])
    series = courses(group, 2).with_columns(value=pl.when(pl.col("seed") == 1).then(0.2).otherwise(0.9))
    drawn = _charts(Seeds(group, 2, series, over_seeds(series)))
    share = drawn["distinct_2"]
    assert share.tables["means"].select(pl.col("low").min(), pl.col("high").max()).row(0) == (0, 1)
    assert next(channel["scale"]["domain"] for channel in scaled(share.spec, "y")) == [0, 1]
    assert share.spec["title"]["text"] == "Distinct 2-grams" == metric_title("distinct_2")
    depth = drawn["depth"].tables["means"]
    assert depth["low"].min() == 0 and depth["high"].max() > 4
    assert limits("cross_entropy_change") == limits("of a plug-in") == (-math.inf, math.inf)


def test_a_report_written_later_links_to_the_one_over_seeds(runs, tmp_path):
    first = runs[1]
    run = invented(tmp_path, first[0].scenario, 1, 0.0)
    assert link(run) == EMPTY and not add_link(run)  # no report over seeds, no report of the run
    page = folder_over_seeds(run.path.parent) / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert link(run).startswith('<p class="seeds">') and link(run).count("../../seeds/") == 1
    run.store.write("report.html", b"a page of an earlier release")
    assert not add_link(run)


def test_populations_are_compared_seed_by_seed(runs, unrendered):
    """Differences between populations: 0.1, 0.2 and 0.6 by seed, so that g = 0.5642 x 0.3 / 0.2646."""
    [group] = groups_of(runs[1])
    series = courses(group, 2)
    shifts = (
        pl.when(pl.col("of") == "filtered").then(pl.col("seed").replace_strict({1: 0.1, 2: 0.2, 3: 0.6})).otherwise(0)
    )
    same = series.with_columns(value=pl.lit(4.0) + pl.col("seed") + shifts)
    seeds = Seeds(group, 2, same, over_seeds(same))
    filtered, anchored = seeds.contrasts(["cross_entropy"])
    assert filtered.paired.mean == pytest.approx(0.3) and anchored.paired.mean == 0
    assert filtered.size.mean == pytest.approx(0.56419 * 0.3 / math.sqrt(0.07), rel=1e-4) and anchored.size is None
    assert filtered.holm == pytest.approx(2 * filtered.p) and filtered.base_mean == pytest.approx(6)
    assert seeds.final("cross_entropy", "naive") == pytest.approx((6, 1 / math.sqrt(3), 3))
    alone = Seeds(Group("one", group.runs[:1]), 2, series.filter(seed=1), over_seeds(series.filter(seed=1)))
    assert alone.contrasts(["cross_entropy"]) == [] and alone.final("cross_entropy", "naive")[1] is None


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
    with pytest.raises(EcosystemError, match="are runs of one scenario with seed 1"):
        groups_of(open_runs([first[0].path, copy.path]))


def test_lists_of_seeds():
    assert seeds_of("1-3,7, 9-9") == [1, 2, 3, 7, 9] and seeds_of("4") == [4]
    for text, part in (
        ("1,1", "repeated"),
        ("3-1", "give the smaller seed first, 1-3"),
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
