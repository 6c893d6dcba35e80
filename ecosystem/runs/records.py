"""The records of a run folder: one per committed step, and where a branch leaves its parent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
