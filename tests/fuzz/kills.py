"""Kill runs, branches and studies at random moments, run them again, and compare with undisturbed ones."""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecosystem.cli.main import cli
from ecosystem.runs.store import Store

SCENARIO = """
name = "killed"
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
name = "killed-study"
base = "killed.toml"
seeds = [1, 2]
[arms.plain]
[arms.more]
"trainers.labs.publish" = 30
[[measures]]
metric = "cross_entropy"
of = "labs"
"""
COMMANDS = {
    "run": ["run", "killed.toml"],
    "branch": ["branch", "PARENT@2", "--set", "trainers.labs.publish=5"],
    "study": ["study", "killed.toml", "--engine", "processes", "--jobs", "2"],
}


@dataclass(frozen=True)
class Kills:
    """Number of kills, and how many of the interrupted results differ from the undisturbed one."""

    kills: int
    results: int
    different: int
    after_seconds: float  # duration of an undisturbed command


class Campaign:
    """Commands run in child processes of one server, which has imported everything before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "killed.toml").write_text(SCENARIO)
        (folder / "study.toml").write_text(STUDY)
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["ecosystem.api", "ecosystem.studies.run_study", "ecosystem.report"])
        self._call(["run", "killed.toml"], "parent")

    def kill(self, kind: str, kills: int, number: int) -> Kills:
        """Kill a sort of command ``kills`` times at uniformly random moments; each result is killed once or more."""
        chance = random.Random(number)
        self._call(self._command(kind), f"{kind}-warm-up")
        began = time.monotonic()
        self._call(self._command(kind), f"{kind}-undisturbed")
        duration = time.monotonic() - began
        expected = self._hashes(f"{kind}-undisturbed")
        assert expected, "the undisturbed command has committed nothing"
        done = results = different = 0
        while done < kills:
            out = f"{kind}-{results}"
            while True:
                if not self._call(self._command(kind), out, chance.uniform(0, duration)):
                    break  # finished before the kill
                done += 1
                if chance.random() < 0.5:
                    break
            self._call(self._command(kind), out)
            results += 1
            different += self._hashes(out) != expected
        return Kills(done, results, different, duration)

    def _command(self, kind: str) -> list[str]:
        parent = next((self._folder / "parent").glob("killed-*/1"))
        words = ["study.toml" if kind == "study" and word == "killed.toml" else word for word in COMMANDS[kind]]
        return [word.replace("PARENT", str(parent)) for word in words]

    def _call(self, words: list[str], out: str, seconds: float | None = None) -> bool:
        """Run a command until its end, or kill it after some seconds; return whether it was killed."""
        child = self._server.Process(target=_run, args=(str(self._folder), [*words, "--out", str(self._folder / out)]))
        child.start()
        child.join(seconds)
        if seconds is None:
            assert child.exitcode == 0, f"{words} ended with exit code {child.exitcode}"
            return False
        child.kill()
        child.join()
        return child.exitcode != 0

    def _hashes(self, out: str) -> dict[str, Any]:
        """Return the files that the commit records below a folder name, with their hashes."""
        runs = sorted(path.parent for path in (self._folder / out).rglob("commits"))
        return {str(run.relative_to(self._folder / out)): [c.files for c in Store(run).commits()] for run in runs}


def _run(folder: str, words: list[str]) -> None:
    """Call the command line in a child process, quietly."""
    import os

    os.chdir(folder)
    os.environ["ECOSYSTEM_CACHE"] = f"{folder}/cache"
    cli.main([*words, "--quiet"], prog_name="ecosystem", standalone_mode=False)
