"""Texts of a source that are left out are counted, by reason, in the plan of a run."""

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.sources.files import JsonLines, Parquet, TextFiles
from ecosystem.streams import Streams

STORED = ["one", "two", None, "", "one ", "three", "\u200b", "two", "one"]
SAID = "6 of 9 texts are left out: 1 missing, 2 empty, 3 equal to an earlier one"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in STORED))
    pl.DataFrame({"text": STORED}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\none\n\nthree\n")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (JsonLines(path="a.jsonl"), SAID),
        (Parquet(path="a.parquet"), SAID),
        (
            JsonLines(path="a.jsonl", min_chars=4),
            "8 of 9 texts are left out: 1 missing, 7 shorter than min_chars = 4",
        ),
        (TextFiles(path="a.txt"), "1 of 4 texts are left out: 1 equal to an earlier one"),
        (TextFiles(path="a.txt", split="line"), "1 of 4 texts are left out: 1 equal to an earlier one"),
        (TextFiles(path="a.txt", split="file"), ""),
    ],
)
def test_every_reason_is_counted(source, said, folder):
    reservoir = source.model_copy(update={"held_out": 0}).open("docs", Streams(1), folder)
    assert reservoir.omissions == (f"sources.docs: {said}" if said else "")
    if said:  # what is said is what is missing
        left_out, _, stored = said.split()[:3]
        assert reservoir.size == int(stored) - int(left_out)


@pytest.mark.slow
def test_the_plan_says_it(folder: Path):
    (folder / "loop.toml").write_text("""
name = "loop"
sources.docs = { kind = "jsonl", path = "a.jsonl" }
web = { kind = "complete", sites = 2, initial = { source = "docs", documents = 2 } }
models.small = { preset = "trigram" }
trainers.lab = { model = "small" }
""")
    result = CliRunner().invoke(cli, ["run", str(folder / "loop.toml"), "--dry-run"])
    assert result.exit_code == 0 and f"note       sources.docs: {SAID}" in result.output
