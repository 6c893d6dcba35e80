"""Files of a small run and study, and their commands, which the campaigns of kills and of altered files interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecosystem.runs.store import Store

SCENARIO = """
name = "small"
steps = 4
[sources.language]
kind = "process"
held_out = 20
[web]
kind = "watts_strogatz"
sites = 6
initial = { source = "language", documents = 60 }
[models.small]
kind = "ngram"
order = 2
vocabulary = 300
context = 32
[policies.short]
kind = "length"
min_words = 2
[writers.people]
source = "language"
rate = 5.0
[trainers.labs]
count = 2
model = "small"
scrape = { docs = 40 }
select = ["short"]
decoding = { max_tokens = 16 }
publish = 20
"""
STUDY = """
name = "small-study"
base = "small.toml"
seeds = [1, 2]
[arms.plain]
[arms.more]
"trainers.labs.publish" = 30
[[measures]]
metric = "cross_entropy"
of = "labs"
"""
# Each is called in a folder with the two files; ``branch`` needs the run.
RUN = ["run", "small.toml", "--quiet", "--out", "run"]
BRANCH = ["branch", "{run}@2", "--set", "trainers.labs.publish=5", "--quiet", "--out", "branch"]
STUDY_RUN = ["study", "study.toml", "--quiet", "--out", "study"]


def write_files(folder: Path) -> None:
    """Write the scenario and the study into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.toml").write_text(SCENARIO)
    (folder / "study.toml").write_text(STUDY)


def run_folder(out: Path) -> Path:
    """Return the folder of the only run below ``out``."""
    (folder,) = {path.parent for path in out.rglob("commits")}
    return folder


def hashes(out: Path) -> dict[str, Any]:
    """Return the files that the commit records below a folder name, with their hashes, by run and step."""
    runs = sorted(path.parent for path in out.rglob("commits"))
    return {str(run.relative_to(out)): [commit.files for commit in Store(run).commits()] for run in runs}
