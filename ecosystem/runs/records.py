"""The records of a run folder: one per committed step, where a branch leaves its parent, and the chain of both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ecosystem.errors import FormatError, StoreError

FORMAT = 1  # of the run folders that this release writes; it reads all formats up to this one
BRANCH = "branch.json"


def table_file(table: str, step: int) -> str:
    """Return the path of a table, of the weights or of the state of a step in a run folder."""
    suffix = {"weights": "safetensors", "state": "json"}.get(table, "parquet")
    return f"{table}/{step:06d}.{suffix}"


@dataclass(frozen=True)
class Fork:
    """Where a branch begins: the last step whose files are read in the parent's folder."""

    parent: Path
    step: int
    digest: str  # of the parent's record of that step, so that the parent cannot be mistaken wherever it lies

    @classmethod
    def read(cls, folder: Path) -> Fork | None:
        """Return where the run in ``folder`` branches off, None if it is no branch; raise StoreError if damaged."""
        path = folder / BRANCH
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            parent, step, digest = (data[key] for key in ("parent", "step", "digest"))
            if not (isinstance(parent, str) and isinstance(step, int) and isinstance(digest, str)):
                raise TypeError
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, KeyError):
            raise StoreError(
                f"{path}: is damaged; it says where this branch begins (parent, step, digest). Restore it from a copy, "
                "or branch again with --fresh (the damaged folder is set aside, not deleted)."
            ) from None
        return cls((folder / parent).resolve(), step, digest)


@dataclass(frozen=True)
class Commit:
    """The record of one step: which files it left (path, relative to the run folder → size and SHA-256)."""

    step: int
    parent: str  # digest of the record before it, "" for step 0
    files: dict[str, dict[str, Any]]
    kept: bool  # whether weights stay when later steps are committed
    seconds: float
    digest: str  # of everything else in the record
    format: int = 1  # of the run folder; the first records named none

    @classmethod
    def read(cls, path: Path) -> Commit:
        """Read a record and check it against its own digest.

        Raises StoreError if it is damaged, FormatError if it is in a newer format than this release reads.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            check_format(data, path)
            commit = cls(**data)
        except OSError as error:
            raise StoreError(damaged(path, error.strerror or "it cannot be read")) from None
        except (ValueError, TypeError):
            raise StoreError(damaged(path, "it is not a record in JSON")) from None
        if commit.digest != record_digest(data):
            raise StoreError(damaged(path, "its contents do not match its digest"))
        return commit


def check_format(record: Any, file: Path | str) -> None:
    """Raise FormatError for a commit record, as read from ``file``, in a newer format than this release reads."""
    written = record.get("format") if isinstance(record, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise FormatError(
            f"{file}: this run is in format {written}, and this release of ecosystem reads formats up to {FORMAT}. "
            "Install a newer ecosystem to open it."
        )


def damaged(path: Path, why: str) -> str:
    """Return the sentence that says what is wrong with a commit record and how to go on."""
    step = int(path.stem) if path.stem.isdigit() else 0
    return f"{path}: this commit record is damaged ({why}). {way_back(path.parent.parent, step)}"


def way_back(folder: Path, step: int) -> str:
    """Say how to go on when step ``step`` cannot be used: from the last step before it whose models were kept."""
    kept = [t for t in range(step) if (folder / table_file("weights", t)).exists()]
    if not kept:
        return "Restore it from a copy, or start afresh with --fresh (the damaged folder is set aside, not deleted)."
    return (
        f"Restore it from a copy, or, to go on from step {kept[-1]}, delete the records of step {kept[-1] + 1} and "
        f"later in {folder / 'commits'}."
    )


def record_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a record but its own digest."""
    body = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class History:
    """The committed steps of one run folder; those of a branch begin with its parent's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, tuple[tuple[int, ...], Commit]] = {}  # records as they were when last read
        self._above: Self | None = None

    @property
    def fork(self) -> Fork | None:
        """Where this run branches off another one, None if it is no branch; raise StoreError if that is damaged."""
        return Fork.read(self.folder)

    def commits(self, through: int | None = None) -> list[Commit]:
        """Return the records of all committed steps in order, or of those up to ``through``.

        Those of a branch begin with its parent's. Raises StoreError where one is damaged or missing.
        """
        fork = self.fork
        records = [] if fork is None else self._inherited(fork, through)
        folder = self.folder / "commits"
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 (speed)
        for name in sorted(name for name in names if name.endswith(".json")):
            number = len(records)
            if through is not None and number > through:
                break
            record = self._record(folder, name)
            if record.step != number:
                gap = f"the record of step {number} is missing, but that of step {record.step} is there"
                raise StoreError(f"{folder}: {gap}. {way_back(self.folder, number)}")
            if record.parent != (records[-1].digest if records else ""):
                raise StoreError(damaged(folder / name, "it does not follow from the record before it"))
            records.append(record)
        return records

    def _record(self, folder: Path, name: str) -> Commit:
        """Read a record, again only if the file is not the one that was read before."""
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 (speed)
        except OSError as error:
            raise StoreError(damaged(folder / name, error.strerror or "it cannot be read")) from None
        mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        stored = self._records.get(name)
        if stored is None or stored[0] != mark:
            stored = self._records[name] = mark, Commit.read(folder / name)
        return stored[1]

    def _inherited(self, fork: Fork, through: int | None) -> list[Commit]:
        """Return the records that a branch has from its parent, checked to be those that it began from."""
        story = f"{self.folder}: this run branches off {fork.parent} after step {fork.step} and reads its history there"
        parent, above = self._parent(fork), Fork.read(fork.parent)
        if not (fork.parent / "commits").is_dir():
            raise StoreError(
                f"{story}, but there is no run. Put it back, or, if it has moved, correct parent in "
                f"{self.folder / BRANCH}."
            )
        if above is not None and above.step >= fork.step:
            raise StoreError(f"{story}, but that step is in another folder: {BRANCH} has been altered.")
        try:
            records = parent.commits(through=fork.step)
        except StoreError as error:
            raise StoreError(f"{story}. {error}") from None
        if len(records) <= fork.step or records[-1].digest != fork.digest:
            raise StoreError(
                f"{story}, but the run there is not, or no longer, the one that it began from. Restore that run, or, "
                f"if it has moved, correct parent in {self.folder / BRANCH}."
            )
        return records if through is None else records[: through + 1]

    def _parent(self, fork: Fork) -> Self:
        if self._above is None or self._above.folder != fork.parent:
            self._above = type(self)(fork.parent)
        return self._above

    def owning_store(self, step: int) -> Self:
        """Return the run folder in which the files of a step lie: this one, or one that it branches off."""
        fork = self.fork
        return self if fork is None or step > fork.step else self._parent(fork).owning_store(step)

    def first_own_step(self) -> int:
        """Return the first step whose files lie, or will lie, in this folder."""
        fork = self.fork
        return 0 if fork is None else fork.step + 1

    def ancestry(self) -> list[Path]:
        """Return this run's folder and all that it branches off, the nearest first."""
        fork = self.fork
        return [self.folder, *([] if fork is None else self._parent(fork).ancestry())]

    def last(self) -> int:
        """Return the number of the last committed step, -1 if there is none."""
        return len(self.commits()) - 1
