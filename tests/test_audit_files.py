"""Audits of policies on plain files: survival and reasons, and with labels precision and recall."""

import json

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError

LONG = " ".join(["the river and another bridge of stone were old that day with people who have to be there"] * 4)
TEXTS = [f"{LONG} number {i}" for i in range(6)] + [LONG.replace("river", f"lake {i}")[:40] for i in range(4)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text, "synthetic": number >= 5} for number, text in enumerate(TEXTS)]
    (tmp_path / "labelled.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "plain.jsonl").write_text("\n".join(json.dumps({"text": row["text"]}) for row in rows))
    pl.DataFrame(rows).with_columns(origin=pl.when("synthetic").then(pl.lit("AI")).otherwise(pl.lit("Human"))).drop(
        "synthetic"
    ).write_parquet(tmp_path / "p.parquet")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("\n\n".join([*TEXTS, TEXTS[0], ""]))
    return tmp_path


def audit(*arguments):
    return CliRunner().invoke(cli, ["audit", *arguments])


def measured(*arguments):
    said = audit(*arguments, "--json")
    assert said.exit_code == 0, said.exception
    return pl.read_json(said.stdout.encode())


def value(frame, **key):
    [number] = frame.filter(*(pl.col(name) == which for name, which in key.items()))["value"]
    return number


def test_without_labels_there_are_survival_and_reasons_only(place):
    frame = measured("plain.jsonl", "--policy", "gopher_quality")
    assert value(frame, by="all", measure="documents") == 10 and value(frame, by="all", measure="survival") == 0.6
    assert set(frame["by"]) == {"all", "reason"}
    assert not {"recall", "precision", "false_positive_rate"} & set(frame["measure"])
    [reason] = frame.filter((pl.col("by") == "reason") & (pl.col("measure") == "documents")).iter_rows(named=True)
    assert reason["group"] == "number of words … is below …" and reason["value"] == 4
    shown = audit("plain.jsonl", "--policy", "gopher_quality").output
    assert "gopher_quality (gopher_quality) on plain.jsonl" in shown and "reason" in shown


def test_with_labels_there_are_precision_and_recall(place):
    """Of five synthetic texts four are refused, and none of five human ones."""
    for arguments in (["labelled.jsonl"], ["p.parquet", "--label", "origin"]):
        frame = measured(*arguments, "--policy", "gopher_quality")
        assert value(frame, by="all", measure="recall") == 0.8
        assert value(frame, by="all", measure="precision") == 1.0
        assert value(frame, by="all", measure="false_positive_rate") == 0.0
        assert value(frame, by="origin", group="human", measure="survival") == 1.0


def test_copies_stay_and_are_found_in_a_folder(place):
    exact = measured("texts", "--policy", "exact_dedup")
    assert value(exact, by="all", measure="documents") == 11
    assert value(exact, by="all", measure="survival") == pytest.approx(10 / 11)
    near = measured("texts", "--set", 'policies.near={kind="minhash_dedup", threshold=0.5}')
    assert value(near, by="all", measure="survival") <= 0.5  # the six long texts are nearly the same


def test_fields_of_policies_can_be_set_and_files_of_policies_read(place):
    (place / "mine.toml").write_text('[policies.long]\nkind = "length"\nmin_words = 20\n')
    frame = measured("plain.jsonl", "--policies", "mine.toml", "--set", "policies.long.min_words=1000")
    assert value(frame, by="all", measure="survival") == 0.0
    assert value(measured("plain.jsonl", "--policies", "mine.toml"), by="all", measure="survival") == 0.6


def test_an_audit_of_files_can_be_written(place):
    assert audit("plain.jsonl", "--policy", "length", "--out", "a.parquet").exit_code == 0
    assert "survival" in set(pl.read_parquet("a.parquet")["measure"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain.jsonl"], "no policy is named: use --policy KIND"),
        (["plain.jsonl", "--policy", "gopher_qualty"], 'did you mean "gopher_quality"?'),
        (["plain.jsonl", "--set", "policies.x={kind='length', min_wrds=3}"], 'did you mean "min_words"?'),
        (["plain.jsonl", "--set", "trainers.x=1"], "only policies can be set"),
        (["plain.jsonl", "--policy", "synthetic_detector"], "needs the origins of documents (--label)"),
        (
            ["plain.jsonl", "--set", 'policies.x={kind="perplexity_band", model="m"}'],
            "needs a model, which plain files",
        ),
        (["plain.jsonl", "--policy", "decontaminate"], "needs held-out documents, which plain files"),
        (
            ["plain.jsonl", "--set", 'policies.x={kind="inject_real", source="s", count=3}'],
            "needs a source of real documents",
        ),
        (["plain.jsonl", "--policy", "length", "--label", "origin"], "has no such column"),
        (["p.parquet", "--policy", "length", "--label", "text"], "says neither synthetic nor human"),
        (["texts", "--policy", "length", "--label", "x"], "holds plain text, which has no columns"),
        (["plain.jsonl", "--policy", "length", "--at", "3"], "--at, --all and --reader belong to runs"),
        (["nowhere", "--policy", "length"], "nowhere: there is no such file or folder"),
        (["empty", "--policy", "length"], "empty: has no files of text; give files that end in .txt"),
        (["runs", "--policy", "length"], "runs: is not a run folder (it has no scenario.toml). Did you mean runs/a/1?"),
        (["plain.jsonl", "--set", "policies.x={kind=length}"], "write texts in double quotes, and the whole option in"),
    ],
)
def test_a_mistake_is_a_sentence(place, arguments, message):
    (place / "empty").mkdir()
    (place / "runs/a/1").mkdir(parents=True)
    (place / "runs/a/1/scenario.toml").touch()
    error = audit(*arguments).exception
    assert isinstance(error, EcosystemError), error
    assert message in str(error)
