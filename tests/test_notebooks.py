"""The notebooks of the documentation run from the first cell to the last, and find what their text says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
CHART = "image/svg+xml"
# What a reader sees in each: at least so many cards, tables and charts, and what the text claims, as Python.
CLAIMS = {
    "collapse": (
        2,
        4,
        """
shares = run.metrics.filter(pl.col("scope") == "web", pl.col("metric") == "synthetic_share").sort("step")["value"]
assert shares[0] == 0 and shares[4] == 1, "at step 4 the last human page is gone"
change = run.metrics.filter(pl.col("metric") == "cross_entropy_change", pl.col("step") == 6)
naive, anchored = (change.filter(pl.col("id").str.starts_with(p))["value"].mean() for p in ("naive", "anchored"))
assert naive > anchored, "models that get no real text lose more"
joined = before.join(after, on="step", suffix="_rescued").sort("step")
assert joined.filter(pl.col("step") <= 2).select((pl.col("value") == pl.col("value_rescued")).all()).item()
assert joined["value_rescued"][-1] < joined["value"][-1]
""",
    ),
    "your_corpus": (
        2,
        3,
        """
verdicts = set(filtered.ledger.collect()["verdict"].drop_nulls())
assert "mine" in verdicts and filtered.environment["plugins"].keys() == {"my_filter.py"}
assert run.documents.filter(pl.col("synthetic")).collect().height > 100
""",
    ),
    "policy_study": (
        2,
        4,
        """
effects = result.effects.filter(measure="labs/cross_entropy")
assert effects["seeds"].to_list() == [4, 4] and effects.filter(arm="archive")["effect"].item() < 0
assert result.results.runs["error"].null_count() == 12
""",
    ),
    "fitted_web": (
        2,
        6,
        """
table = result.to_pandas().set_index("parameter")
assert table.loc["human_rate", "low"] < 50 < table.loc["human_rate", "high"]
assert table.loc["human_rate", "width_ratio"] < 0.3 and table.loc["observers_temperature", "width_ratio"] > 0.85
assert run.last_step == 12
""",
    ),
}


def test_every_notebook_is_tested_and_stored_without_results():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(CLAIMS)
    for path in FOLDER.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", CLAIMS)
def test_cells_run(name, tmp_path, monkeypatch):
    if name == "fitted_web":
        pytest.importorskip("optuna", reason="the extra fit is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    cards, charts, claims = CLAIMS[name]
    notebook.cells.append(nbformat.v4.new_code_cell(claims))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises CellExecutionError with the traceback of the cell that fails
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    data = [output.get("data", {}) for output in outputs]
    assert sum("ecosystem-card" in str(each.get("text/html", "")) for each in data) >= cards
    assert sum(CHART in each for each in data) >= charts
