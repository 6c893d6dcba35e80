"""The lineage of documents without the interactive page: in Python and on the command line."""

import json
import subprocess
import sys

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.cli.show import traced
from ecosystem.errors import EcosystemError
from ecosystem.runs.execute import begin
from ecosystem.runs.lineage import Fit, Origin
from ecosystem.runs.run import Run, folder_of
from tests.conftest import MACHINE, ROOT, tiny

WITHOUT_THE_PAGE = """
import sys
sys.modules["solara"] = None  # importing it fails, as where the extra is not installed
from ecosystem.cli.main import main
sys.argv = ["ecosystem", "lineage", *sys.argv[1:]]
main()
"""


def last_synthetic(run) -> int:
    documents = run.documents.filter(pl.col("synthetic")).select("doc").collect()
    return int(documents["doc"][-1])


@pytest.mark.slow
def test_a_run_traces_its_documents(finished):
    doc = last_synthetic(finished)
    lineage = finished.lineage(doc)
    row = finished.documents.filter(pl.col("doc") == doc).collect().row(0, named=True)
    assert (lineage.doc, lineage.author, lineage.t) == (doc, row["author"], row["t"])
    assert lineage.fits and sum(end.share for end in lineage.ends) == pytest.approx(1)
    people = finished.documents.filter(~pl.col("synthetic")).select("doc").collect()["doc"][0]
    assert finished.lineage(people).hops == 0 and "written by people" in str(finished.lineage(people))
    with pytest.raises(EcosystemError, match="there is no document 99999"):
        finished.lineage(99_999)
    step = lineage.fits[0].step
    (fit,) = lineage.fits_at(step)
    assert lineage.text(step).count("trained at step") == 1 and fit.heading in lineage.text(step)
    assert [fit["step"] for fit in lineage.plain(step)["fits"]] == [step]
    assert lineage.plain(step)["hops"] == lineage.plain()["hops"] == lineage.hops


def test_shares_of_a_training_set_add_up(finished):
    lineage = finished.lineage(last_synthetic(finished))
    for fit in lineage.fits:
        assert sum(origin.share for origin in fit.origins) == pytest.approx(1)
        assert 0 <= fit.human <= 1 + 1e-9 and fit.passes > 0
    assert lineage.hops == pytest.approx(lineage.depth, abs=1e-5)


@pytest.mark.slow
def test_a_run_that_goes_on_is_read_again(tmp_path, cache):
    scenario = tiny()
    steps = begin(scenario, out=tmp_path, machine=MACHINE, cache=cache)
    next(steps)
    next(steps)
    run = Run.open(folder_of(scenario, tmp_path))
    first = last_synthetic(run)
    run.lineage(first)
    next(steps)
    steps.close()
    newest = last_synthetic(run)
    assert newest > first and run.lineage(newest).doc == newest


def test_text_cannot_drive_the_terminal(finished, monkeypatch):
    doc = last_synthetic(finished)
    row = finished.documents.filter(pl.col("doc") == doc).collect()
    hostile = row.with_columns(content=pl.lit("\x1b[2Jgone\u202e" + 1000 * "a"), author=pl.lit("naive\x07/0"))
    monkeypatch.setattr(Run, "documents", property(lambda run: hostile.lazy()))
    text = traced(finished, doc, None, as_json=False)
    assert r"␛[2Jgone\u202e" in text and "naive␇/0" in text and not set("\x1b\x07\u202e\xa0") & set(text)
    assert 300 < text.count("a" * 10) * 10 < 500 and "…" in text


@pytest.mark.slow
def test_the_command_needs_no_page_and_gives_text_or_json(finished):
    doc = last_synthetic(finished)
    arguments = [sys.executable, "-c", WITHOUT_THE_PAGE, str(finished.path), str(doc)]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert text.startswith(f"[{doc}] ") and f"Document {doc} by " in text and "trained at step" in text
    data = json.loads(subprocess.run([*arguments, "--json"], capture_output=True, check=True, cwd=ROOT).stdout)
    assert data["doc"] == doc and data["hops"] == pytest.approx(finished.lineage(doc).hops)
    assert [fit["step"] for fit in data["fits"]] == [fit.step for fit in finished.lineage(doc).fits]


def test_a_document_that_is_not_there_is_a_sentence(finished, monkeypatch, capsys):
    from ecosystem.cli.main import main

    monkeypatch.setattr(sys, "argv", ["ecosystem", "lineage", str(finished.path), "99999"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "there is no document 99999; this run has documents 0 to " in capsys.readouterr().err
    assert CliRunner().invoke(cli, ["lineage", str(finished.path), "-1"]).exit_code == 2
    monkeypatch.setattr(sys, "argv", ["ecosystem", "lineage", str(finished.path), "0", "--step", "2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "step 2: no model in the lineage of document 0" in capsys.readouterr().err


def test_one_step_of_a_lineage(finished):
    doc = last_synthetic(finished)
    steps = sorted({fit.step for fit in finished.lineage(doc).fits if fit.step is not None})
    arguments = ["lineage", str(finished.path), str(doc), "--step", str(steps[0]), "--json"]
    fits = json.loads(CliRunner().invoke(cli, arguments).stdout)["fits"]
    assert {fit["step"] for fit in fits} == {steps[0]} and len(fits) < len(finished.lineage(doc).fits)


@pytest.mark.parametrize(
    ("who", "heading"),
    [("lab/0", "lab/0, before its first fit"), ("4 trainers of lab", "4 trainers of lab, before their first fit")],
)
def test_models_that_were_not_fitted_are_told_in_the_right_number(who, heading):
    assert Fit("lab", who, None, 0.5, 0.0, (Origin("start", "small", None, 1.0),), exact=True).heading == heading
