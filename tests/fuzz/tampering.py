"""Alter a file of a stored run, branch or study at random, read it again, and ask whether the file is named."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError
from tests.fuzz.commands import BRANCH, RUN, STUDY_RUN, hashes, run_folder, write_files


@dataclass(frozen=True)
class Reader:
    """A command that reads stored files again: its arguments, the folder that is altered, and its result."""

    arguments: list[str]
    altered: str
    result: Callable[[Path], Any] | None = None  # compared where the altered file is not named; None: all is read
    only: str = ".*"  # pattern of the names of the files that are altered


READERS = {
    "check of a run": Reader(["check", "{run}"], "run"),
    "check of a branch": Reader(["check", "{branch}"], "branch"),
    "check of a branch, its parent altered": Reader(["check", "{branch}"], "run", only=r"00000[0-2]\.[^.]+"),
    "resume": Reader([*RUN, "--steps", "5"], "run", lambda folder: hashes(folder / "run")),
    "report": Reader(["report", "{run}"], "run", lambda folder: _report(folder / "run")),
    "study": Reader(STUDY_RUN, "study", lambda folder: _table(folder / "study")),
}
_UNREAD = ("pinned", ".lock", ".lock-owner", "timings")  # only their names matter; times have no recorded hash


@dataclass
class Tally:
    """How altered files were answered; ``missed`` describes each that was used without a word."""

    outcomes: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


class Campaign:
    """A finished run, a branch of it and a study, each made when first needed; every alteration gets a copy."""

    def __init__(self, folder: Path) -> None:
        self._stored, self._copy = folder / "stored", folder / "copy"
        write_files(self._stored)
        self._store(RUN)

    def alter(self, name: str, count: int, number: int) -> Tally:
        """Alter a file ``count`` times, each read by the command ``name``; ``number`` seeds the alterations."""
        chance, tally, reader = random.Random(number), Tally(), READERS[name]
        if not (self._stored / reader.altered).exists():
            self._store(BRANCH if reader.altered == "branch" else STUDY_RUN)
        expected = self._expected(reader)
        files = [path.relative_to(self._stored) for path in sorted((self._stored / reader.altered).rglob("*"))]
        files = [path for path in files if (self._stored / path).is_file() and not {*path.parts} & {*_UNREAD}]
        files = [path for path in files if re.fullmatch(reader.only, path.name)]
        while tally.outcomes.total() < count:
            file = chance.choice(files)
            before = (self._stored / file).read_bytes()
            after, description = _altered(before, chance)
            if after == before:
                continue
            self._renew_copy()
            (self._copy / file).write_bytes(after)
            code, output = _call(self._words(reader.arguments, self._copy), self._copy)
            if file.name in output:
                outcome = "named"
            elif file.suffix == ".json" and _equal_json(before, after):
                outcome = "same content"
            elif reader.result is not None and code == 0 and reader.result(self._copy) == expected:
                outcome = "not read"
            else:
                outcome = "missed"
                tally.missed.append(f"{name}, {file}: {description}; exit code {code}: {output[-300:]}")
            tally.outcomes[outcome] += 1
        return tally

    def _store(self, command: list[str]) -> None:
        code, output = _call(self._words(command, self._stored), self._stored)
        assert code == 0, output

    def _expected(self, reader: Reader) -> Any:
        """Return what a command results in when nothing is altered."""
        self._renew_copy()
        code, output = _call(self._words(reader.arguments, self._copy), self._copy)
        assert code == 0, output
        return reader.result(self._copy) if reader.result else None

    def _renew_copy(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._stored, self._copy)

    def _words(self, command: list[str], folder: Path) -> list[str]:
        """Fill in the folders of the run and of the branch."""
        places = {key: str(run_folder(folder / key)) for key in ("run", "branch") if f"{{{key}}}" in " ".join(command)}
        return [word.format(**places) for word in command]


def _altered(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Flip a bit, replace, remove or insert a byte, or cut the end off; return the content and what was done."""
    at = chance.randrange(len(content) + 1)
    action = chance.choice(["flip", "replace", "remove", "insert", "cut"])
    inserted = {
        "flip": bytes(byte ^ 1 << chance.randrange(8) for byte in content[at : at + 1]),
        "replace": chance.randbytes(1),
        "remove": b"",
        "insert": chance.randbytes(1) + content[at : at + 1],
        "cut": b"",
    }[action]
    rest = b"" if action == "cut" else content[at + 1 :]
    return content[:at] + inserted + rest, f"{action} at byte {at} of {len(content)}"


def _equal_json(before: bytes, after: bytes) -> bool:
    """Return whether two contents are the same as JSON, as where white space was altered."""
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


def _report(out: Path) -> dict[str, str]:
    """Return a report, without the names of clipping areas, which count from one report to the next."""
    files = [*out.rglob("report.html"), *sorted(out.rglob("charts/*.svg"))]
    return {path.name: re.sub(r"\b(clip|gradient_)\d+", "", path.read_text()) for path in files}


def _table(out: Path) -> dict[str, bytes]:
    """Return a study's tables."""
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*.csv"))}


def _call(words: list[str], folder: Path) -> tuple[int, str]:
    """Call the command line in this process and a folder; return its exit code and all output."""
    output = io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            cli.main(words, prog_name="ecosystem", standalone_mode=False)
        return 0, output.getvalue()
    except (EcosystemError, click.ClickException) as error:
        return 2, f"{output.getvalue()}{error}"
    except SystemExit as stop:
        return int(stop.code or 0), output.getvalue()
