"""The run folder: a step happened if and only if its commit record exists.

Every file is written beside its place, flushed to disk and renamed; the commit record, which names each file
with its size and hash and the record before it, comes last. A killed process therefore leaves a folder that is
either before or after a step, never between; files that no record names are swept when the folder is opened.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ecosystem.corpus.schema import ARCHIVE, INDEX_CHANGE, LEDGER, METRICS, SEGMENT, Snapshot, empty
from ecosystem.errors import StoreError

FORMAT = 1
TABLES = {"corpus": SEGMENT, "index": INDEX_CHANGE, "ledger": LEDGER, "metrics": METRICS, "archive": ARCHIVE}
_PRUNED = ("weights", "archive")  # kept for some steps only: what a resume needs and what the reader asked for


@dataclass(frozen=True)
class Commit:
    """The record of one step: which files it left (path, relative to the run folder → size and SHA-256)."""

    step: int
    parent: str  # digest of the record before it, "" for step 0
    files: dict[str, dict[str, Any]]
    kept: bool  # whether weights stay when later steps are committed
    seconds: float
    digest: str

    @classmethod
    def read(cls, path: Path) -> Commit:
        """Read a record and check it against its own digest; raise StoreError if it is damaged."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            commit = cls(**data)
        except OSError as error:
            raise StoreError(_damaged(path, error.strerror or "it cannot be read")) from None
        except (ValueError, TypeError):
            raise StoreError(_damaged(path, "it is not a record in JSON")) from None
        if commit.digest != _record_digest(data):
            raise StoreError(_damaged(path, "its contents do not match its digest"))
        return commit


def _damaged(path: Path, why: str) -> str:
    step = int(path.stem) if path.stem.isdigit() else 0
    return f"{path}: this commit record is damaged ({why}). {_way_back(path.parent.parent, step)}"


def _way_back(folder: Path, step: int) -> str:
    """Say how to go on when step ``step`` cannot be used: from the last step before it whose models were kept."""
    kept = [t for t in range(step) if (folder / Store._name("weights", t)).exists()]
    if not kept:
        return "Restore it from a copy, or start afresh with --fresh (the damaged folder is set aside, not deleted)."
    return (
        f"Restore it from a copy, or, to go on from step {kept[-1]}, delete the records of step {kept[-1] + 1} and "
        f"later in {folder / 'commits'}."
    )


def _record_digest(data: Mapping[str, Any]) -> str:
    body = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class Store:
    """One run folder. Reading needs no lock; :meth:`lock` it before anything is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Reading

    def commits(self) -> list[Commit]:
        """Return the records of all committed steps in order; raise StoreError where one is damaged or missing."""
        records: list[Commit] = []
        for number, path in enumerate(sorted((self.folder / "commits").glob("*.json"))):
            record = Commit.read(path)
            if record.step != number:
                there = f"the record of step {number} is missing, but that of step {record.step} is there"
                raise StoreError(f"{path.parent}: {there}. {_way_back(self.folder, number)}")
            if record.parent != (records[-1].digest if records else ""):
                raise StoreError(_damaged(path, "it does not follow from the record before it"))
            records.append(record)
        return records

    def last(self) -> int:
        """Return the number of the last committed step, -1 if there is none."""
        return len(self.commits()) - 1

    def read(self, commit: Commit, name: str) -> bytes:
        """Return a file that a record names after checking its size and hash; raise StoreError naming the file."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"{path}: this file of step {commit.step} is missing. {self._remedy(commit)}") from None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror}).") from None
        expected = commit.files[name]
        if len(content) != expected["size"]:
            problem = f"is truncated or altered: {len(content)} bytes instead of {expected['size']}"
            raise StoreError(f"{path}: this file of step {commit.step} {problem}. {self._remedy(commit)}")
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise StoreError(
                f"{path}: this file of step {commit.step} has been altered (its hash does not match its commit "
                f"record). {self._remedy(commit)}"
            )
        return content

    def _remedy(self, commit: Commit) -> str:
        return _way_back(self.folder, commit.step)

    def table(self, name: str, steps: range | None = None) -> pl.DataFrame:
        """Return one table (a key of TABLES) of all committed steps, or of some, each file checked."""
        chosen = [c for c in self.commits() if steps is None or c.step in steps]
        parts = [pl.read_parquet(self.read(c, self._name(name, c.step))) for c in chosen]
        return pl.concat(parts) if parts else empty(TABLES[name])

    def weights(self, step: int) -> dict[str, dict[str, NDArray[Any]]]:
        """Return the weights of a step as model name → arrays with a leading member axis."""
        commit = self._commit(step)
        there = self.steps_with_weights()
        if step not in there and not commit.kept:
            raise StoreError(
                f"{self.folder}: the models of step {step} were not kept (weights_every in the scenario); "
                f"kept are those of steps {', '.join(map(str, there))}."
            )
        arrays = load(self.read(commit, self._name("weights", step)))
        models: dict[str, dict[str, NDArray[Any]]] = {}
        for key, array in arrays.items():
            model, parameter = key.split("/", 1)
            models.setdefault(model, {})[parameter] = array
        return models

    def steps_with_weights(self) -> list[int]:
        """Return the steps whose weights are still in the folder."""
        return [c.step for c in self.commits() if (self.folder / self._name("weights", c.step)).exists()]

    def state(self, step: int) -> dict[str, Any]:
        """Return the JSON state of a step."""
        state: dict[str, Any] = json.loads(self.read(self._commit(step), self._name("state", step)))
        return state

    def assets(self, folder: str) -> dict[str, bytes]:
        """Return the files that were written beside the steps in a folder of the run, by name, each checked."""
        first = self._commit(0)
        return {Path(name).name: self.read(first, name) for name in first.files if Path(name).parent == Path(folder)}

    def verify(self, *, weights: bool = True) -> int:
        """Check every file that a record names and that was not pruned; return how many there are.

        ``weights`` False leaves out the models, which are most of the bytes. Raises StoreError naming the first file
        that is missing, truncated or altered.
        """
        commits = self.commits()
        last = len(commits) - 1
        checked = 0
        for commit in commits:
            for name in commit.files:
                table = name.split("/")[0]
                pruned = table in _PRUNED and commit.step < last and not commit.kept
                if not pruned and (weights or table != "weights"):
                    self.read(commit, name)
                    checked += 1
        return checked

    def past(self) -> Snapshot:
        """Return everything a world needs to go on after the last committed step; every file is checked."""
        step = self.last()
        return Snapshot(
            t=step,
            segment=self.table("corpus"),
            changes=self.table("index"),
            ledger=self.table("ledger", range(step, step + 1)),
            metrics=self.table("metrics", range(step, step + 1)),
            archive=self.table("archive", range(step, step + 1)),
            state=self.state(step),
            weights=self.weights(step),
        )

    def _commit(self, step: int) -> Commit:
        commits = self.commits()
        if not 0 <= step < len(commits):
            raise StoreError(f"{self.folder}: there is no step {step}; committed are steps 0 to {len(commits) - 1}.")
        return commits[step]

    @staticmethod
    def _name(table: str, step: int) -> str:
        suffix = {"weights": "safetensors", "state": "json"}.get(table, "parquet")
        return f"{table}/{step:06d}.{suffix}"

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; raise StoreError if one is writing to it."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / ".lock").open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.folder}: another process is working on this run; wait for it or stop it."
                ) from None
            yield

    def write(self, name: str, content: bytes) -> dict[str, Any]:
        """Write a file atomically (in full or not at all, also after a power cut); return its size and hash."""
        path = self.folder / name
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.part")
            with beside.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(path)
            _flush_folder(path.parent)
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def commit(
        self, snapshot: Snapshot, *, kept: bool, seconds: float, beside: Mapping[str, dict[str, Any]] | None = None
    ) -> Commit:
        """Write a snapshot as the next step and return its record; then prune weights that nothing needs.

        ``beside`` are files that :meth:`write` has already written and that belong to the record too.
        """
        commits = self.commits()
        files = dict(beside or {})
        for table, content in _files(snapshot):
            name = self._name(table, snapshot.t)
            files[name] = self.write(name, content)
        record: dict[str, Any] = {
            "step": snapshot.t,
            "parent": commits[-1].digest if commits else "",
            "files": files,
            "kept": kept,
            "seconds": round(seconds, 3),
        }
        record["digest"] = _record_digest(record)
        self.write(f"commits/{snapshot.t:06d}.json", json.dumps(record, indent=1).encode())
        for earlier in commits:
            if not earlier.kept:
                for table in _PRUNED:
                    (self.folder / self._name(table, earlier.step)).unlink(missing_ok=True)
        return Commit(**record)

    def sweep(self) -> list[str]:
        """Delete files that no commit record names (left by a process that was killed); return their names."""
        named = {name for commit in self.commits() for name in commit.files}
        swept = []
        for table in (*TABLES, "weights", "state", "commits"):
            for path in sorted((self.folder / table).glob("*")):
                name = f"{table}/{path.name}"
                finished_record = table == "commits" and not path.name.startswith(".")
                if name not in named and not finished_record:
                    path.unlink()
                    swept.append(name)
        return swept


def _files(snapshot: Snapshot) -> Iterator[tuple[str, bytes]]:
    frames = {
        "corpus": snapshot.segment,
        "index": snapshot.changes,
        "ledger": snapshot.ledger,
        "metrics": snapshot.metrics,
        "archive": snapshot.archive,
    }
    for table, frame in frames.items():
        yield table, _parquet(frame)
    arrays = {f"{model}/{key}": array for model, state in snapshot.weights.items() for key, array in state.items()}
    yield "weights", save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
    yield "state", json.dumps(snapshot.state, indent=1, sort_keys=True).encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an I/O error into a sentence that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "Make room and run the same command again: it goes on after the last committed step"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            remedy = "Choose another folder with --out, or change its permissions"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            remedy = "A file stands where a folder is needed: choose another folder with --out"
        else:
            remedy = "Run the same command again once it is mended: it goes on after the last committed step"
        raise StoreError(f"{path}: cannot be written ({error.strerror}). {remedy}.") from error


def set_aside(folder: Path) -> Path | None:
    """Move an existing run folder out of the way, never deleting it; return where it went."""
    if not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    with explained(target):
        folder.rename(target)
    return target
