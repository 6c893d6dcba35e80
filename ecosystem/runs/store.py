"""The run folder: a step happened if and only if its commit record exists.

Every file is written beside its place, flushed to disk and renamed; the commit record, which names each file
with its size and hash and the record before it, comes last. A killed process therefore leaves a folder that is
either before or after a step, never between; files that no record names are swept when the folder is opened.

A branch is a run folder whose history is in another one: ``branch.json`` names that folder, the last step that
is read there, and the digest of its record, which is the parent of the branch's first own record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ecosystem.corpus.schema import ARCHIVE, INDEX_CHANGE, LEDGER, METRICS, SEGMENT, Snapshot, empty
from ecosystem.errors import StoreError
from ecosystem.runs.files import io_errors, relative_path, write_atomically
from ecosystem.runs.records import BRANCH, FORMAT, Commit, History, record_digest, table_file, way_back

TABLES = {"corpus": SEGMENT, "index": INDEX_CHANGE, "ledger": LEDGER, "metrics": METRICS, "archive": ARCHIVE}
PRUNED = ("weights", "archive")  # kept for some steps only: what a resume needs and what the reader asked for


class Store(History):
    """One run folder. Reading needs no lock; :meth:`lock` it before anything is written."""

    # Reading

    def read(self, commit: Commit, name: str) -> bytes:
        """Return a file that a record names after checking its size and hash; raise StoreError naming the file."""
        path = self.owning_store(commit.step).folder / name
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
        owner = self.owning_store(commit.step)
        if owner is not self:
            return f"Restore it from a copy: {self.folder} branches off there and reads it."
        return way_back(self.folder, commit.step)

    def table(self, name: str, steps: range | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return one table (a key of TABLES) of all committed steps, or of some, each file checked.

        ``columns``: only these of it.
        """
        chosen = [c for c in self.commits() if steps is None or c.step in steps]
        read = None if columns is None else list(columns)
        frames = [pl.read_parquet(self.read(c, table_file(name, c.step)), columns=read) for c in chosen]
        parts = [_whole(frame, TABLES[name]) if read is None else frame for frame in frames]
        nothing = empty(TABLES[name])
        return pl.concat(parts) if parts else nothing.select(nothing.columns if read is None else read)

    def weights(self, step: int) -> dict[str, dict[str, NDArray[Any]]]:
        """Return the weights of a step as model name → arrays with a leading member axis."""
        arrays = load(self.read(self.require(step), table_file("weights", step)))
        models: dict[str, dict[str, NDArray[Any]]] = {}
        for key, array in arrays.items():
            model, parameter = key.split("/", 1)
            models.setdefault(model, {})[parameter] = array
        return models

    def require(self, step: int, *, weights: bool = True) -> Commit:
        """Return the record of a step; raise StoreError where it is not committed, or its weights were not kept."""
        commits = self.commits()
        if not 0 <= step < len(commits):
            raise StoreError(f"{self.folder}: there is no step {step}; committed are steps 0 to {len(commits) - 1}.")
        if weights and not commits[step].kept and step not in (there := self.steps_with_weights()):
            raise StoreError(
                f"{self.folder}: the models of step {step} were not kept (weights_every in the scenario); "
                f"kept are those of steps {', '.join(map(str, there))}."
            )
        return commits[step]

    def steps_with_weights(self) -> list[int]:
        """Return the steps whose weights are still in the folder."""
        return [c.step for c in self.commits() if self._path("weights", c.step).exists()]

    def state(self, step: int) -> dict[str, Any]:
        """Return the JSON state of a step."""
        state: dict[str, Any] = json.loads(self.read(self.require(step, weights=False), table_file("state", step)))
        return state

    def assets(self, folder: str) -> dict[str, bytes]:
        """Return the files that were written beside the steps in a folder of the run, by name, each checked."""
        first = self.require(0, weights=False)
        return {Path(name).name: self.read(first, name) for name in first.files if Path(name).parent == Path(folder)}

    def verify(self, *, weights: bool = True, through: int | None = None) -> int:
        """Check every file that a record names and that was not pruned; return how many there are.

        ``weights`` False leaves out the models, which are most of the bytes, and ``through`` all steps after it.
        Raises StoreError naming the first file that is missing, truncated or altered.
        """
        commits = self.commits(through)
        last = self.last()
        checked = 0
        for commit in commits:
            for name in commit.files:
                table = name.split("/")[0]
                pruned = table in PRUNED and commit.step < last and not commit.kept
                if not pruned and (weights or table != "weights"):
                    self.read(commit, name)
                    checked += 1
        return checked

    def past(self, step: int | None = None, *, models: bool = True) -> Snapshot:
        """Return everything a world needs to go on after a committed step (default: the last); all files are checked.

        ``models`` False leaves out what is pruned, the weights and the archive: enough to look at the web of that step.
        """
        step = self.last() if step is None else step
        now, so_far = range(step, step + 1), range(step + 1)
        weights = self.weights(step) if models else {}  # first, since it says which steps have been kept
        return Snapshot(
            t=step,
            segment=self.table("corpus", so_far),
            changes=self.table("index", so_far),
            ledger=self.table("ledger", now),
            metrics=self.table("metrics", now),
            archive=self.table("archive", now) if models else empty(ARCHIVE),
            state=self.state(step),
            weights=weights,
        )

    def _path(self, table: str, step: int) -> Path:
        return self.owning_store(step).folder / table_file(table, step)

    # Writing

    @contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the folder against other processes; raise StoreError if one still has it after ``patience`` seconds.

        Any thread may release it: the one that drops a generator of steps need not be the one that advanced it.
        """
        with io_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=patience, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise StoreError(
                    f"{self.folder}: another process is working on this run; wait for it or stop it."
                ) from None
        try:
            yield
        finally:
            lock.release()

    def write(self, name: str, content: bytes) -> dict[str, Any]:
        """Write a file atomically (in full or not at all, also after a power cut); return its size and hash."""
        write_atomically(self.folder / name, content)
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
            name = table_file(table, snapshot.t)
            files[name] = self.write(name, content)
        record: dict[str, Any] = {
            "format": FORMAT,
            "step": snapshot.t,
            "parent": commits[-1].digest if commits else "",
            "files": files,
            "kept": kept,
            "seconds": round(seconds, 3),
        }
        record["digest"] = record_digest(record)
        self.write(f"commits/{snapshot.t:06d}.json", json.dumps(record, indent=1).encode())
        for earlier in commits[self.first_own_step() :]:
            if not earlier.kept and not self._pin(earlier.step).exists():
                for table in PRUNED:
                    (self.folder / table_file(table, earlier.step)).unlink(missing_ok=True)
        return Commit(**record)

    def pin(self, step: int) -> None:
        """Keep the models of a step in the folder from now on, whatever ``weights_every`` says: a branch needs them."""
        self.write(str(self._pin(step).relative_to(self.folder)), b"")

    def _pin(self, step: int) -> Path:
        return self.folder / "pinned" / f"{step:06d}"

    def branch_off(self, parent: Store, step: int) -> None:
        """Make this folder a branch of another run, which goes on after ``step`` of it.

        The parent is named by its path from here, so that a folder of runs may be moved as a whole.
        """
        owner = parent.owning_store(step)
        record = {
            "parent": relative_path(owner.folder, self.folder),
            "step": step,
            "digest": parent.require(step, weights=False).digest,
        }
        self.write(BRANCH, json.dumps(record, indent=1).encode())

    def sweep(self) -> list[str]:
        """Delete files that no commit record names (left by a process that was killed); return their names."""
        named = {name for commit in self.commits()[self.first_own_step() :] for name in commit.files}
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


def _whole(frame: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return a stored table with the columns that it lacks because it was written before there were any, all null."""
    new = [pl.lit(None, dtype).alias(name) for name, dtype in columns.items() if name not in frame.columns]
    return frame.with_columns(new) if new else frame


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
