"""The run folder: a step is committed if and only if its commit record exists.

Every file is written under a temporary name, flushed to disk and renamed. The commit record, which names the
step's files with their sizes and hashes and the previous record, is written last. A killed process therefore leaves a
folder either before or after a step, never in between. Files that no record names are deleted when the run is resumed.

The early history of a branch is in another run folder. ``branch.json`` names that folder, the last step to read there,
and the digest of its record. That record is the parent of the first record of the branch itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import ARCHIVE, INDEX_CHANGE, LEDGER, METRICS, SEGMENT, TIMINGS, History, Snapshot, empty
from ecosystem.errors import StoreError, whole_number
from ecosystem.families.tensor_files import ArrayFile, encoded, rounded
from ecosystem.input_files import digest_of
from ecosystem.placement.parts import DividedArrays, Together, held_elsewhere, open_divided
from ecosystem.runs.files import flush_folder, io_errors, locked, relative_path, unreadable, write_atomically
from ecosystem.runs.records import (
    BRANCH,
    COVERED,
    DIGESTS,
    TIMES,
    Commit,
    CommitHistory,
    format_of,
    note_digests,
    record_digest,
    recovery_hint,
    rounded_file,
    table_file,
)

TABLES = {"corpus": SEGMENT, "index": INDEX_CHANGE, "ledger": LEDGER, "metrics": METRICS, "archive": ARCHIVE}


class Store(CommitHistory):
    """One run folder. Reading needs no lock; hold :meth:`lock` while writing."""

    def __init__(self, folder: Path, remote: str = "") -> None:
        """``remote`` is the URL, if the run is in an object store that processes with weights write to themselves."""
        super().__init__(folder)
        self._remote = remote

    # Reading

    def read(self, commit: Commit, name: str) -> bytes:
        """Return the content of a file of a step; raise StoreError if it does not have the recorded size and hash."""
        with self._readable(commit, name) as path:
            content = path.read_bytes()
        self._require_same(commit, name, len(content), hashlib.sha256(content).hexdigest())
        return content

    def check(self, commit: Commit, name: str) -> Path:
        """Check a file of a step as :meth:`read` does, without holding its content in memory; return its path."""
        with self._readable(commit, name) as path:
            size, digest = path.stat().st_size, digest_of(path)
        self._require_same(commit, name, size, digest)
        return path

    @contextmanager
    def _readable(self, commit: Commit, name: str) -> Iterator[Path]:
        """Give the path of a file of a step; raise StoreError if it cannot be read inside."""
        path = self.owning_store(commit.step).folder / name
        try:
            yield path
        except FileNotFoundError:
            raise StoreError(f"{path}: this file of step {commit.step} is missing. {self._remedy(commit)}") from None
        except OSError as error:
            raise unreadable(path, error) from None

    def _require_same(self, commit: Commit, name: str, size: int, digest: str) -> None:
        """Raise StoreError unless a file has the recorded size and hash."""
        path, expected = self.owning_store(commit.step).folder / name, commit.files[name]
        if size != expected["size"]:
            problem = f"is truncated or altered: {size} bytes instead of {expected['size']}"
        elif digest != expected["sha256"]:
            problem = "has been altered (its hash does not match its commit record)"
        else:
            return
        raise StoreError(f"{path}: this file of step {commit.step} {problem}. {self._remedy(commit)}")

    def _remedy(self, commit: Commit) -> str:
        owner = self.owning_store(commit.step)
        if owner is not self:
            return f"Restore it from a copy; the branch {self.folder} reads it."
        return recovery_hint(self.folder, commit.step)

    def table(self, name: str, steps: range | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return one table (a key of TABLES) of all committed steps, or of some, with some or all ``columns``.

        Raises StoreError if a file is missing, truncated or altered.
        """
        frames = list(self.frames(name, steps, columns))
        no_rows = empty(TABLES[name])
        return pl.concat(frames) if frames else no_rows.select(no_rows.columns if columns is None else columns)

    def frames(
        self, name: str, steps: range | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield the files of one table, in order; see :meth:`table`."""
        names = None if columns is None else list(columns)
        for commit in self.commits():
            if steps is None or commit.step in steps:
                for file in commit.table_files(name):
                    frame = pl.read_parquet(self.read(commit, file), columns=names)
                    yield frame if names is not None else _with_missing_columns(frame, TABLES[name])

    def timings(self) -> pl.DataFrame:
        """Return the wall times of all committed steps: step, and the columns of ``schema.TIMINGS``.

        Steps of earlier releases have none. Files that cannot be read are left out: no result depends on them.
        """
        frames = [empty({"step": pl.Int32(), **TIMINGS})]
        for commit in self.commits():
            path = self.owning_store(commit.step).folder / table_file(TIMES, commit.step)
            with suppress(OSError, pl.exceptions.PolarsError):
                frame = pl.read_parquet(path.read_bytes()).select(pl.lit(commit.step, pl.Int32).alias("step"), *TIMINGS)
                frames.append(frame)
        return pl.concat(frames)

    def weights(self, step: int) -> dict[str, ArrayFile] | dict[str, DividedArrays]:
        """Return the weights of a step: model name → parameter name → array, [members, ...].

        An array is read when it is asked for. Those of a past step may be rounded (:meth:`weights_rounded`). Raises
        StoreError if the weights of that step were not kept.
        """
        commit, rounded_only = self.require(step), self.weights_rounded(step)
        files = [self.check(commit, name).absolute() for name in commit.weights(rounded=rounded_only)]
        if table_file("weights", step) in commit.files:
            return ArrayFile.open(files[0]).by_model()
        return open_divided(files)

    def weights_rounded(self, step: int) -> bool:
        """Return whether only rounded weights are left of a step: never of the last one of a folder."""
        return self._only_rounded(self.require(step, weights=False))

    def _only_rounded(self, commit: Commit) -> bool:
        owner, exact, left = self.owning_store(commit.step), commit.weights(), commit.weights(rounded=True)
        return exact != left and not owner.has_files(exact) and owner.has_files(left) and commit.step < owner.last()

    def has_files(self, names: Sequence[str]) -> bool:
        """Return whether all these files are in the folder."""
        return all((self.folder / name).exists() for name in names)

    def require(self, step: int, *, weights: bool = True) -> Commit:
        """Return the record of a step; raise StoreError if it is not committed, or its weights were not kept."""
        commits, step = self.commits(), whole_number(step, "step")
        if not 0 <= step < len(commits):
            last = len(commits) - 1
            raise StoreError(f"{self.folder}: step {step} is not committed; this run has steps 0 to {last}.")
        if weights and self.owning_store(step).weights_deleted(step):
            raise StoreError(f"{self.folder}: the models of step {step} were deleted by `ecosystem prune`.")
        if weights and not commits[step].kept and step not in (kept := self.steps_with_weights()):
            raise StoreError(
                f"{self.folder}: the models of step {step} were not kept (weights_every in the scenario); "
                f"models are kept for steps {', '.join(map(str, kept))}."
            )
        return commits[step]

    def steps_with_weights(self) -> list[int]:
        """Return the steps whose weights are stored."""
        return [
            commit.step
            for commit in self.commits()
            if self.owning_store(commit.step).has_files(commit.weights()) or self._only_rounded(commit)
        ]

    def state(self, step: int) -> dict[str, Any]:
        """Return the JSON state of a step."""
        state: dict[str, Any] = json.loads(self.read(self.require(step, weights=False), table_file("state", step)))
        return state

    def assets(self, folder: str) -> dict[str, bytes]:
        """Return the files, by name, that step 0 left in a folder of the run; raise StoreError as :meth:`read` does."""
        first = self.require(0, weights=False)
        return {Path(name).name: self.read(first, name) for name in first.files if Path(name).parent == Path(folder)}

    def verify(self, *, weights: bool = True, through: int | None = None) -> int:
        """Check every file that a record names and that was not pruned; return their number.

        ``weights=False`` skips the models, which are most of the bytes; ``through`` is the last step to check. Raises
        StoreError for the first file that is missing, truncated or altered.
        """
        commits = self.commits(through)
        last, checked = self.last(), 0
        lasts: dict[Path, int] = {}  # of folders with rounded weights
        for commit in commits:
            owner = self.owning_store(commit.step) if commit.kept and commit.pruned() else self
            later = commit.step < (last if owner is self else lasts.setdefault(owner.folder, owner.last()))
            pruned = commit.pruned() if later else []
            deleted = self.owning_store(commit.step).weights_deleted(commit.step)
            for name in commit.files:
                if name in pruned or (name.startswith("weights/") and (deleted or not weights)):
                    continue
                self.check(commit, name)
                checked += 1
        return checked

    def past(self, step: int | None = None, *, models: bool = True) -> History:
        """Return what a world continues from after a committed step (default: the last).

        ``models=False`` omits weights and archive, which may have been pruned; the web does not depend on them. Raises
        StoreError if a file is missing, truncated or altered, or the models were not kept.
        """
        step = self.last() if step is None else step
        now, so_far = range(step, step + 1), range(step + 1)
        weights = self.weights(step) if models else {}  # first: its error says which steps were kept
        in_batches = len(self.require(step, weights=False).table_files("corpus")) > 1
        latest = Snapshot(
            t=step,
            segment=empty(TABLES["corpus"]) if in_batches else self.table("corpus", now),
            changes=self.table("index", now),
            ledger=self.table("ledger", now),
            metrics=self.table("metrics", now),
            archive=self.table("archive", now) if models else empty(ARCHIVE),
            state=self.state(step),
            weights=weights,
        )
        files = sum(len(commit.table_files("corpus")) for commit in self.commits(step))
        return History(latest, files, self.frames("corpus", so_far), self.table("index", so_far))

    # Writing

    def lock(self, patience: float = 0.0) -> AbstractContextManager[None]:
        """Lock the folder (see :func:`locked`)."""
        return locked(self.folder, patience)

    def write(self, name: str, content: bytes | Iterable[bytes | memoryview]) -> dict[str, Any]:
        """Write a file, or its pieces, in full or not at all, also after a power cut; return its size and SHA-256.

        The digest of a file that belongs to no step is noted first.
        """
        if name in COVERED and isinstance(content, bytes):
            note_digests(self.folder / DIGESTS, {name: content})
        return write_atomically(self.folder / name, content)

    def commit(
        self,
        snapshot: Snapshot,
        *,
        kept: bool,
        seconds: float,
        extra: Mapping[str, dict[str, Any]] | None = None,
        rounds: bool = False,
    ) -> Commit:
        """Write a snapshot as the next step, prune weights that are no longer needed, and return the record.

        ``kept`` says whether the weights of this step stay once later steps are committed, ``rounds`` that they stay in
        bfloat16, and ``seconds`` is its wall time. ``extra`` are further files for the record, already written by
        :meth:`write`.
        """
        commits = self.commits()
        files, together = dict(extra or {}), None
        if held_elsewhere(snapshot.weights):
            together = self._write_together(snapshot, rounds=kept and rounds)
            files |= together.files("weights")
        stored = {file.split("/")[0] for file in files}
        for table, content in _files(snapshot):
            if table in stored:  # the batches of an opening are
                continue
            name = table_file(table, snapshot.t)
            files[name] = self.write(name, content)
        if kept and rounds and together is None:
            files |= self._round(snapshot.t)
        if snapshot.timings is not None:
            self._write_times(snapshot.t, snapshot.timings)
        record: dict[str, Any] = {
            "format": format_of(files),
            "step": snapshot.t,
            "parent": commits[-1].digest if commits else "",
            "files": files,
            "kept": kept,
            "seconds": round(seconds, 3),
        }
        record["digest"] = record_digest(record)
        self.write(f"commits/{snapshot.t:06d}.json", json.dumps(record, indent=1).encode())
        if together is not None:
            together.tell_committed(snapshot.weights)
        for earlier in commits[self.first_own_step() :]:
            if (pruned := earlier.pruned()) and not self._pin(earlier.step).exists():
                for name in pruned:
                    (self.folder / name).unlink(missing_ok=True)
        return Commit(**record)

    def _write_times(self, step: int, timings: pl.DataFrame) -> None:
        """Write the wall times of a step, without a flush, which takes most of the time: nothing needs them."""
        path = self.folder / table_file(TIMES, step)
        with io_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(parquet(timings))

    def _round(self, step: int) -> dict[str, dict[str, Any]]:
        """Write the weights of a step again in bfloat16, if any are in float32; return the file's entry."""
        name = table_file("weights", step)
        exact = ArrayFile.open(self.folder / name)
        if not any(entry.dtype == "float32" for entry in exact.entries.values()):
            return {}
        return {rounded_file(name): self.write(rounded_file(name), rounded(exact, exact.entries))}

    def _write_together(self, snapshot: Snapshot, *, rounds: bool) -> Together:
        """Write weights together with the processes that hold some of them."""
        if self._remote:
            return Together.write(f"{self._remote}/weights", snapshot.t, snapshot.weights, rounds=rounds)
        folder = self.folder.absolute() / "weights"
        with io_errors(folder):
            together = Together.write(folder, snapshot.t, snapshot.weights, rounds=rounds)
            flush_folder(folder)
        return together

    def delete_weights(self, step: int) -> None:
        """Delete the weights of a past step of this folder, and note that they are not missing by mistake."""
        self.write(f"deleted/{step:06d}", b"")
        for name in self.commits()[step].table_files("weights"):
            with io_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def weights_deleted(self, step: int) -> bool:
        """Return whether the weights of a step of this folder were deleted by :meth:`delete_weights`."""
        return (self.folder / "deleted" / f"{step:06d}").exists()

    def pinned(self) -> list[int]:
        """Return the steps whose models are kept because branches were made from them, ascending."""
        return sorted(int(path.name) for path in (self.folder / "pinned").glob("*") if path.name.isdecimal())

    def pin(self, step: int) -> None:
        """Keep the models of a step regardless of ``weights_every``, because a branch needs them."""
        self.write(str(self._pin(step).relative_to(self.folder)), b"")

    def _pin(self, step: int) -> Path:
        return self.folder / "pinned" / f"{step:06d}"

    def branch_off(self, parent: Store, step: int) -> None:
        """Make this folder a branch of ``parent`` after ``step``.

        The path of the parent is stored relative to this folder, so that both can be moved together.
        """
        owner = parent.owning_store(step)
        record = {
            "parent": relative_path(owner.folder, self.folder),
            "step": step,
            "digest": parent.require(step, weights=False).digest,
        }
        self.write(BRANCH, json.dumps(record, indent=1).encode())


def _files(snapshot: Snapshot) -> Iterator[tuple[str, bytes | Iterable[bytes | memoryview]]]:
    """Return the files of a step, without weights that other processes hold."""
    frames = {
        "corpus": snapshot.segment,
        "index": snapshot.changes,
        "ledger": snapshot.ledger,
        "metrics": snapshot.metrics,
        "archive": snapshot.archive,
    }
    for table, frame in frames.items():
        yield table, parquet(frame)
    if not held_elsewhere(snapshot.weights):
        yield "weights", encoded(_Parameters(snapshot.weights))
    yield "state", json.dumps(snapshot.state, indent=1, sort_keys=True).encode()


class _Parameters(Mapping[str, NDArray[Any]]):
    """The arrays of all models as ``<model>/<name>``, each asked of its model when it is needed."""

    def __init__(self, models: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        self._models = models
        self._places = {f"{model}/{name}": (model, name) for model, state in models.items() for name in state}

    def __getitem__(self, key: str) -> NDArray[Any]:
        model, name = self._places[key]
        return self._models[model][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _with_missing_columns(frame: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Add the columns that an earlier release did not write, as nulls."""
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in columns.items() if name not in frame.columns]
    return frame.with_columns(missing) if missing else frame


def parquet(frame: pl.DataFrame) -> bytes:
    """Return a table as the content of a Parquet file."""
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
