"""The report of a study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.report.profile import DEFINITIONS
from ecosystem.runs.store import Store
from ecosystem.studies.report import write_study
from ecosystem.studies.report.data import StudyReportData, findings
from tests.studies.small_study import STUDY, WORLD, axes, load, results_of, run


@pytest.mark.slow
def test_the_report_has_every_part_and_nothing_can_run(folder: Path) -> None:
    text = STUDY.replace('name = "small"', 'name = "small"\ndescription = "<script>alert(1)</script> & more"')
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    result = run(folder, text + worlds)
    page = result.report.read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    for part in ("What each arm changes", "Ranking", "Over uncertain worlds", "Collapse profile", "Runs", "Methods"):
        assert part in page
    for name in ("effect_variance_a", "course_lab_w2_b"):
        assert (result.folder / "charts" / f"{name}.svg").exists() and f'data-chart="{name}"' in page
    verdicts = pl.read_csv(result.folder / "profile.csv")
    assert verdicts.group_by("arm", "world").len()["len"].to_list() == [3 * len(DEFINITIONS)] * 6  # of three seeds
    lost = verdicts.filter((pl.col("arm") == "alone") & (pl.col("world") == "a") & (pl.col("definition") == "increase"))
    assert f"{int(lost['holds'].sum())} of 3" in page.split("<h3>lab, world a")[1].split("Collapsing variance")[0]
    assert page.count("common random numbers made intervals") == 2 and "Trainers had nothing to train on" not in page
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    assert all(isinstance(spec["height"], int) for spec in specs.values())  # others are warned of in a browser


@pytest.mark.slow
def test_a_report_of_a_study_without_any_value(folder: Path) -> None:
    empty = results_of(load(folder), [("alone", "", 1, float("nan"))])
    assert write_study(empty, Store(folder / "s")).exists()


@pytest.mark.slow
def test_sensitivity_of_a_study_says_which_lever_matters(folder: Path) -> None:
    ranges = '"trainers.lab.publish" = { low = 5, high = 80, whole = true }\n'
    ranges += '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'  # not selected by anybody: it does nothing
    text = axes('[design]\nmethod = "morris"\npoints = 4', ranges).replace("[1, 2, 3]", "[1, 2]")
    result = run(folder, text)
    page = result.report.read_text()
    assert "2 seeds at each of" in page and "the indices below show how much each axis matters" in page
    assert "How much each axis matters" in page and "What each arm changes" not in page
    charts = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    rows = next(iter(charts["index_variance"]["datasets"].values()))
    size = {(r["row"], r["index"]): r["value"] for r in rows}
    assert size["policies.fresh.fraction", "mu*: mean size of its effects"] == 0
    assert size["trainers.lab.publish", "mu*: mean size of its effects"] > 0
    table = pl.read_csv(result.folder / "sensitivity.csv")
    assert table.select("measure", "axis").rows() == [("variance", axis) for axis in result.study.axes]
    assert table["main"].to_list() == [size[axis, "mu*: mean size of its effects"] for axis in result.study.axes]
    assert table["total_half"].null_count() == 2 and "± 0<" in page  # of the axis that does nothing
    assert page.split("How much each axis matters</h2>")[1].count("<td>–</td>") == 2  # sigma has no interval
    assert not (result.folder / "effects.csv").exists()


@pytest.mark.slow
def test_the_courses_have_a_line_where_each_policy_starts(folder: Path) -> None:
    late = STUDY.replace("[arms.more]", '[arms.more]\n"branch.step" = 3') + "[branch]\nstep = 1\n"
    result = run(folder, late)
    page = json.loads(result.report.read_text().split('id="specs">')[1].split("</script>")[0])
    rows = [row for data in page["course_variance"]["datasets"].values() for row in data if "change" in row]
    assert {(row["step"], row["change"]) for row in rows} == {(2, "helped"), (4, "more")}


def test_arms_that_change_nothing_are_told_apart_from_those_that_cannot_be_told(folder: Path) -> None:
    text = STUDY.replace("[arms.more]", '[arms.idle]\n"policies.fresh.fraction" = 0.8\n[arms.more]')  # not selected
    rows = [(arm, "", s, s + k * s * s) for arm, k in (("alone", 0), ("idle", 0), ("helped", 1e-3)) for s in (1, 2, 3)]
    rows = [(arm, world, seed, y - (arm == "helped") * 0.005) for arm, world, seed, y in rows]
    sentences = findings(StudyReportData(results_of(load(folder, text), rows)))
    assert "variance: no significant difference from **alone**: **helped**." in sentences
    assert "variance: no effect (the same values as **alone** at every seed): **idle**." in sentences


@pytest.mark.slow
def test_a_study_that_measures_nothing_says_so_at_once(folder: Path) -> None:
    (folder / "loop.toml").write_text(WORLD.replace("[trainers.lab]", "[trainers.lab]\noffset = 9"))
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--engine", "serial"]
    assert "variance has no finite value in 9 of 9 runs" in CliRunner().invoke(cli, arguments).output
    refused = '[policies.none]\nkind = "synthetic_detector"\ntrue_positive_rate = 1.0\nfalse_positive_rate = 1.0\n'
    (folder / "loop.toml").write_text(WORLD + refused)
    text = STUDY.replace("[arms.alone]", '[arms.alone]\n"trainers.lab.select" = ["none"]').replace(
        "[1, 2, 3]", "[1, 2]"
    )
    sentences = StudyReportData(run(folder, text).results).missing_findings()
    [sentence] = [s for s in sentences if s.startswith("variance has")]
    assert "2 of 6 runs" in sentence and "(step 4 of alone, seed 1: lab/0 had nothing to train on: " in sentence


@pytest.mark.slow
def test_pairing_that_helped_little_says_why(folder: Path) -> None:
    """Arms that agree perfectly but vary by different amounts: the spread that one has more is not shared."""
    rows = [(arm, "", s, k * s) for arm, k in (("alone", 1.0), ("helped", 2.5), ("more", 2.6)) for s in (1, 2, 3)]
    study = load(folder)
    write_study(results_of(study, rows), Store(folder / "s"))
    still = StudyReportData(results_of(study, [(arm, world, s, y * (arm != "alone")) for arm, world, s, y in rows]))
    assert still.effects and "nan" not in " ".join(findings(still))
    two = StudyReportData(results_of(study, [row for row in rows if row[2] < 3]))  # any two points lie on a line
    assert two.effects and not any("common random numbers" in sentence for sentence in findings(two))
    assert all(row.saved is None and np.isnan(row.correlation) for row in two.effects)
    assert "they vary by different amounts" in (folder / "s" / "report.html").read_text()
    apart = [
        (a, w, s, y if a == "alone" else (4 - s) * y) for a, w, s, y in rows
    ]  # what is high in one is low in another
    [sentence] = [s for s in findings(StudyReportData(results_of(study, apart))) if "common random numbers" in s]
    assert "did not make intervals narrower (ratio of widths: median 0." in sentence and "no run was saved." in sentence
