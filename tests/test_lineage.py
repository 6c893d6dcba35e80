"""The lineage of documents without the interactive page: in Python and on the command line."""

import json
import subprocess
import sys

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from tests.conftest import ROOT

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


def test_the_command_needs_no_page_and_gives_text_or_json(finished):
    doc = last_synthetic(finished)
    arguments = [sys.executable, "-c", WITHOUT_THE_PAGE, str(finished.path), str(doc)]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"Document {doc} by " in text and "trained at step" in text
    data = json.loads(subprocess.run([*arguments, "--json"], capture_output=True, check=True, cwd=ROOT).stdout)
    assert data["doc"] == doc and data["hops"] == pytest.approx(finished.lineage(doc).hops)
    assert [fit["step"] for fit in data["fits"]] == [fit.step for fit in finished.lineage(doc).fits]


def test_a_document_that_is_not_there_is_a_sentence(finished, monkeypatch, capsys):
    from ecosystem.cli.main import main

    monkeypatch.setattr(sys, "argv", ["ecosystem", "lineage", str(finished.path), "99999"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "there is no document 99999; there are 0 to " in capsys.readouterr().err
    assert CliRunner().invoke(cli, ["lineage", str(finished.path), "-1"]).exit_code == 2
