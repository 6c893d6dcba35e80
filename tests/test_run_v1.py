"""Run folders of the first release format, kept in ``tests/data/run-v1``: whatever a run folder is for still works.

They were written by version 0.1.0 with ``ecosystem run --threads 1 --device cpu`` and stay as they are. Their reports,
charts and lock files are left out, and two lines of environment.json are shortened (platform, base).
"""

import importlib.metadata
import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

import ecosystem
from ecosystem.app.worlds.run_view import RunView
from ecosystem.cli.main import cli

KEPT = Path(__file__).parent / "data" / "run-v1"
TEXT, VECTORS = "text-3363a5fdcc2f/1", "vectors-1802ebbff523/1"
BOTH = pytest.mark.parametrize("run", [TEXT, VECTORS], indirect=True)
PACKAGES = ("torch", "tokenizers")  # a foundation is one of these versions


@pytest.fixture
def run(request, tmp_path, monkeypatch) -> ecosystem.Run:
    """A copy of a stored run, in the current folder."""
    shutil.copytree(KEPT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return ecosystem.Run.open(tmp_path / request.param)


def said(*arguments, code=0) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def contents(folder: Path) -> dict[str, bytes]:
    """What a resume or a branch must leave as it is: every file of the steps that are committed."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.parent.name != "charts"}


@BOTH
def test_it_opens_and_every_file_is_there(run):
    recorded = [json.loads(path.read_text())["files"] for path in sorted(run.path.glob("commits/*.json"))]
    pruned = 2 if run.scenario.weights_every == 2 else 0  # weights and archive of step 1
    assert run.verify() == sum(map(len, recorded)) - pruned
    assert run.steps == 2 and run.seed == 1 and run.machine.device == "cpu" and run.machine.threads == 1
    assert f"{run.scenario.name}-{run.scenario.fingerprint()}" == run.path.parent.name
    assert run.scenario.changes[0].at == 2 and run.events == []


@pytest.mark.slow
@pytest.mark.parametrize("run", [TEXT], indirect=True)
def test_tables_and_models_of_text_are_read(run):
    documents, ledger = run.documents.collect(), run.ledger.collect()
    assert documents.height == 104 and documents["synthetic"].sum() == 44 and documents["retired_at"].count() == 53
    assert ledger["verdict"].drop_nulls().value_counts().sort("verdict").rows() == [("detector", 20), ("short", 14)]
    value = run.metrics.filter(step=2, scope="trainer", id="plain/0", metric="cross_entropy")["value"].item()
    assert value == pytest.approx(1.428026, abs=1e-6)
    assert run.model("careful/0").config.n_embd == 8
    spent = run.costs(total=True).filter(id="trainers/plain/0")
    assert spent.select("metric", "value").rows() == [
        ("tokens_trained", 6287.0),
        ("tokens_generated", 1809.0),
        ("tokens_published", 904.0),
    ]


@pytest.mark.parametrize("run", [VECTORS], indirect=True)
def test_tables_of_vectors_are_read(run):
    documents, ledger = run.documents.collect(), run.ledger.collect()
    assert documents["content"].dtype == pl.Array(pl.Float64, 2) and documents.height == 108
    assert ledger.filter(step=2, added_by="fixed").height == 16
    value = run.metrics.filter(step=2, scope="trainer", id="normal/0", metric="variance")["value"].item()
    assert value == pytest.approx(0.9386529622625004)


@pytest.mark.slow
@BOTH
def test_it_is_resumed(run):
    there, environment = contents(run.path), run.environment
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    if run.path.parent.name.startswith("text") and installed.items() - environment["packages"].items():
        assert "the foundation of model" in said("run", run.path / "scenario.toml", "--steps", 3, "--out", ".", code=2)
        return
    said("run", run.path / "scenario.toml", "--steps", 3, "--out", ".", "--quiet")
    resumed = ecosystem.Run.open(run.path)
    after = contents(run.path)
    assert resumed.steps == 3 and resumed.environment["resumed"][0]["after_step"] == 2
    assert resumed.verify() and there.items() <= after.items() and "commits/000003.json" in after
    steps = resumed.metrics.group_by("step", maintain_order=True).len()
    assert steps["step"].to_list() == [0, 1, 2, 3] and steps["len"][3] == steps["len"][2]


@pytest.mark.slow
@pytest.mark.parametrize("run", [VECTORS], indirect=True)
def test_it_is_resumed_with_the_numbers_of_a_fresh_run(run):
    longer = run.scenario.override({"steps": 3})
    resumed, fresh = (ecosystem.run(longer, out=out, device="cpu", threads=1).metrics for out in (".", "fresh"))
    assert resumed.drop("value", "error").equals(fresh.drop("value", "error"))
    assert resumed["value"].to_list() == pytest.approx(fresh["value"].to_list(), rel=1e-8, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("run", [VECTORS], indirect=True)
def test_it_is_branched(run):
    before = contents(run.path)
    said("branch", f"{run.path}@1", "--set", "policies.fixed.fraction=0.75", "--steps", 3, "--out", "forks", "--quiet")
    (path,) = Path("forks").glob("vectors-*/1")
    forked = ecosystem.Run.open(path)
    assert forked.verify() and forked.steps == 3 and contents(run.path) == before
    assert forked.metrics.filter(pl.col("step") < 2).equals(run.metrics.filter(pl.col("step") < 2))
    injected = forked.ledger.filter(pl.col("added_by") == "fixed").collect().group_by("step").len().sort("step")
    assert dict(injected.iter_rows()) == {1: 5, 2: 48, 3: 48}


@pytest.mark.parametrize("run", [TEXT], indirect=True)
def test_its_policies_are_audited(run):
    found = json.loads(said("audit", run.path, "--policy", "detector", "--json"))
    survival = {row["group"]: row["value"] for row in found if row["measure"] == "survival" and row["by"] == "origin"}
    assert survival == pytest.approx({"human": 11 / 12, "synthetic": 9 / 39})


@pytest.mark.slow
@BOTH
def test_it_is_reported(run):
    said("report", run.path)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in [run.scenario.name, *run.trainers()])
    assert list(run.path.glob("charts/*.svg"))


@pytest.mark.parametrize(
    ("run", "document", "content"),
    [(TEXT, "[76] writers/people/0", "nu mi ba de ko re zuvu"), (VECTORS, "[60] normal/0", "-0.748 1.261")],
    indirect=["run"],
)
def test_its_documents_are_shown(run, document, content):
    shown = said("show", run.path, "--step", 2, "--limit", 1)
    assert document in shown and content in shown


@BOTH
def test_the_interactive_page_plays_it(run):
    view = RunView(run)
    assert view.last == 2 and view.metrics.equals(run.metrics) and view.report_data is not None
    documents = view.documents.filter(pl.col("verdict").is_null())
    live = documents.filter((pl.col("t") <= 1) & (pl.col("retired_at").is_null() | (pl.col("retired_at") > 1)))
    assert view.live(1).height == live.height > 0
    assert view.sites(2)["documents"].sum() == view.live(2).height
