"""Kill runs, branches and studies at random moments, run them again, and compare with undisturbed ones."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from ecosystem.cli.main import cli
from ecosystem.runs.run import Run
from tests.fuzz.commands import BRANCH, RUN, STUDY_RUN, hashes, run_folder, write_files

COMMANDS = {"run": RUN, "branch": BRANCH, "study": [*STUDY_RUN, "--engine", "processes", "--jobs", "2"]}


@dataclass
class Tally:
    """Number of kills, and how many of the interrupted results differ from the undisturbed one."""

    kills: int = 0
    reporting: int = 0  # kills after the last step was committed, while the report was drawn
    results: int = 0
    different: int = 0


class Campaign:
    """Commands run in child processes of one server, which has imported everything before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        write_files(folder)
        os.environ["ECOSYSTEM_CACHE"] = str(folder / "cache")
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["ecosystem.api", "ecosystem.studies.run_study", "ecosystem.report"])

    def kill(self, kind: str, kills: int, number: int) -> Tally:
        """Kill a command of COMMANDS ``kills`` times, half of the times before its last step, and let it end then."""
        chance, command = random.Random(number), self._command(kind)
        self._call(command, f"{kind}-warm-up")
        began = time.time()
        undisturbed = self._folder / f"{kind}-undisturbed"
        self._call(command, undisturbed.name)
        ended = time.time() - began
        committed = max(path.stat().st_mtime for path in undisturbed.rglob("commits/*")) - began
        tally, expected = Tally(), hashes(undisturbed)
        while tally.kills < kills:
            out = f"{kind}-{tally.results}"
            while self._call(command, out, chance.uniform(0, chance.choice([committed, ended]))):
                tally.kills += 1
                tally.reporting += hashes(self._folder / out) == expected
                if chance.random() < 0.5:
                    break
            self._call(command, out)
            tally.results += 1
            tally.different += hashes(self._folder / out) != expected or not self._is_whole(out)
        return tally

    def _is_whole(self, out: str) -> bool:
        """Return whether every run has a report, and no file is damaged, altered or left over."""
        folders = [path.parent for path in (self._folder / out).rglob("commits")]
        runs = [Run.open(folder) for folder in folders]
        reported = len(runs) > 1 or (folders[0] / "report.html").exists()  # the runs of a study have a common one
        return reported and all(run.verify() and not run.notes() for run in runs)

    def _command(self, kind: str) -> list[str]:
        if kind != "branch":
            return COMMANDS[kind]
        if not (self._folder / "parent").exists():
            self._call(RUN, "parent")
        return [word.format(run=run_folder(self._folder / "parent")) for word in COMMANDS[kind]]

    def _call(self, command: list[str], out: str, seconds: float | None = None) -> bool:
        """Run a command until its end, or kill it after some seconds; return whether it was killed."""
        words = [*command, "--out", out]  # the last --out counts
        child = self._server.Process(target=_run, args=(str(self._folder), words))
        child.start()
        child.join(seconds)
        child.kill() if seconds is not None else child.join()
        child.join()
        killed = child.exitcode == -9
        assert killed or child.exitcode == 0, f"{words} ended with exit code {child.exitcode}"
        return killed


def _run(folder: str, words: list[str]) -> None:
    """Call the command line in a folder, in a child process, without output."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    cli.main(words, prog_name="ecosystem", standalone_mode=False)
