"""The records of a run folder: one commit record per step, the branch point of a branch, and digests of other files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ecosystem.errors import FormatError, StoreError
from ecosystem.parsing import parse_json
from ecosystem.runs.files import unreadable, write_atomically

FORMAT = 3  # newest format of run folders; see format_of
PRUNED = ("weights", "archive")  # kept only for the last step and for those that the scenario or a branch needs
ROUNDED = "-bfloat16.safetensors"
BRANCH = "branch.json"
DIGESTS = "digests.json"
COVERED = ("scenario.toml", "environment.json", "web.graphml", "web.gexf")  # files without a step
DRAWN = ("web.gexf",)  # of these, files that are never read again
OPENING = "opening.json"  # the batches of an opening, until it is committed
SCRATCH = "scratch"  # documents that do not fit into memory, while a run is computed
TIMES = "timings"  # folder of the wall times of steps, which are not reproducible and which no record lists
EVENTS_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"
CHARTS = "charts/digests.json"  # digests of the report and its charts


def table_file(table: str, step: int) -> str:
    """Return the path, in a run folder, of a step's table, weights or state."""
    suffix = {"weights": "safetensors", "state": "json"}.get(table, "parquet")
    return f"{table}/{step:06d}.{suffix}"


def rounded_file(exact: str) -> str:
    """Return the path, in a run folder, of the weights in bfloat16 that belong to a file of exact ones."""
    return exact.removesuffix(".safetensors") + ROUNDED


def format_of(files: Collection[str]) -> int:
    """Return the format of a step with these files.

    2 has the initial documents of a large web in batches, 3 rounded weights or weights in several files.
    """
    if any(re.fullmatch(r"weights/\d+-.*", name) for name in files):
        return 3
    return 2 if sum(name.startswith("corpus/") for name in files) > 1 else 1


def batch_file(batch: int) -> str:
    """Return the path, in a run folder, of a batch of the initial documents of a large web."""
    return f"corpus/000000-{batch:04d}.parquet"


def read_opening(folder: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the identity of an opening that was cut off, and size and hash of its batches; empty if there is none.

    A damaged record is ignored: the opening then starts again.
    """
    try:
        record = parse_json((folder / OPENING).read_text(encoding="utf-8"))
        if record["digest"] != record_digest(record):
            return "", {}
        return str(record["identity"]), {name: dict(entry) for name, entry in record["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "", {}


def is_record(name: str) -> bool:
    """Return whether a file in ``commits`` is a record by its name; other files there are ignored."""
    return re.fullmatch(r"\d{6,}\.json", name) is not None


def record_files(folder: Path) -> list[Path]:
    """Return the commit records in a run folder, ordered by step; raise StoreError if it cannot be read."""
    commits = folder / "commits"
    try:
        names = os.listdir(commits)  # noqa: PTH208 (speed)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(commits, error) from None
    return [commits / name for name in sorted(filter(is_record, names), key=lambda name: (len(name), name))]


@dataclass(frozen=True)
class Fork:
    """Where a branch begins: the parent's folder, and the last step that is read there."""

    parent: Path
    step: int
    digest: str  # of the parent's record of that step; identifies the parent even if it has moved

    @classmethod
    def read(cls, folder: Path) -> Fork | None:
        """Return where the run in ``folder`` branches off, None if it is not a branch.

        Raises StoreError if the file that says so is damaged.
        """
        path = folder / BRANCH
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            parent, step, digest = (data[key] for key in ("parent", "step", "digest"))
            if not (isinstance(parent, str) and isinstance(step, int) and isinstance(digest, str)):
                raise TypeError
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(path, error) from None
        except (ValueError, TypeError, KeyError):
            raise StoreError(
                f"{path}: is damaged; it must say where this branch begins (parent, step, digest). Restore it from a "
                "copy, or branch again with --fresh (the damaged folder is moved aside, not deleted)."
            ) from None
        return cls((folder / parent).resolve(), step, digest)


@dataclass(frozen=True)
class Commit:
    """The commit record of one step; ``files`` maps paths in the run folder to their size and SHA-256."""

    step: int
    parent: str  # digest of the record before it, "" for step 0
    files: dict[str, dict[str, Any]]
    kept: bool  # whether weights and archive stay once later steps are committed
    seconds: float  # wall time of the step
    digest: str  # of all other keys
    format: int = 1  # of the run folder; the earliest records do not state it

    def table_files(self, table: str) -> list[str]:
        """Return the files of a table: one, or those of the batches of an opening, in order."""
        return sorted(name for name in self.files if name.startswith(f"{table}/"))

    def pruned(self) -> list[str]:
        """Return the files that are deleted once later steps are committed, unless a branch needs them.

        Of a step that is kept, these are the exact weights, if there are rounded ones.
        """
        if not self.kept:
            return [name for name in self.files if name.split("/")[0] in PRUNED]
        return [name for name in self.weights() if rounded_file(name) in self.files]

    def weights(self, *, rounded: bool = False) -> list[str]:
        """Return the files with the weights, exact or, those that there are, rounded, in the order of the members."""
        exact = [name for name in self.table_files("weights") if not name.endswith(ROUNDED)]
        return [name if not rounded or rounded_file(name) not in self.files else rounded_file(name) for name in exact]

    @classmethod
    def read(cls, path: Path) -> Commit:
        """Read a record and check it against its own digest.

        Raises StoreError if it is damaged, FormatError if it is in a newer format than this release reads.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            check_format(data, path)
            commit = cls(**data)
        except OSError as error:
            raise unreadable(path, error) from None
        except (ValueError, TypeError):
            raise StoreError(damage_message(path, "it is not a JSON commit record")) from None
        if commit.digest != record_digest(data):
            raise StoreError(damage_message(path, "its contents do not match its digest"))
        if type(commit.format) is not int or commit.format < 1:  # a bool would be an int too
            raise StoreError(damage_message(path, f"its format is {commit.format!r}, not a whole number from 1"))
        return commit


def check_format(record: Any, file: Path | str) -> None:
    """Raise FormatError if a record read from ``file`` is in a newer format than this release reads."""
    version = record.get("format") if isinstance(record, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise FormatError(
            f"{file}: this run is in format {version}, but this release of ecosystem reads formats up to {FORMAT}. "
            "Install a newer ecosystem to open it."
        )


def damage_message(path: Path, reason: str) -> str:
    """Return an error message for a damaged commit record, with how to recover."""
    step = int(path.stem) if path.stem.isdigit() else 0
    return f"{path}: this commit record is damaged ({reason}). {recovery_hint(path.parent.parent, step)}"


def recovery_hint(folder: Path, step: int) -> str:
    """Say how to recover if ``step`` is unusable: resume from the latest earlier step whose models were kept."""
    kept = [t for t in range(step) if _has_weights(folder, t)]
    if not kept:
        return "Restore it from a copy, or start again with --fresh (the damaged folder is moved aside, not deleted)."
    return (
        f"Restore it from a copy, or, to continue from step {kept[-1]}, make a copy of {folder} and delete the records "
        f"of step {kept[-1] + 1} and later in {folder / 'commits'}."
    )


def _has_weights(folder: Path, step: int) -> bool:
    return (folder / table_file("weights", step)).exists() or any(
        not path.name.endswith(ROUNDED) for path in (folder / "weights").glob(f"{step:06d}-*")
    )


def _misnamed(folder: Path) -> str:
    """Name the files in ``commits`` that are no records by their names, or return an empty string."""
    names = [path.name for path in sorted(folder.iterdir()) if not (is_record(path.name) or path.name.startswith("."))]
    if not names:
        return ""
    listed = ", ".join(f'"{name}"' for name in names[:3])
    return f"The folder also contains {listed}: if a program that copies files has renamed a record, rename it back. "


def record_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record without its own digest."""
    body = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def note_digests(file: Path, contents: Mapping[str, bytes]) -> None:
    """Note, in a record of digests, that files beside it are about to get these contents.

    The digest of the present content is kept too: a process killed between the note and the file leaves both valid.
    """
    digests = read_digests(file)
    for name, content in contents.items():
        present = file.parent / name
        before = hashlib.sha256(present.read_bytes()).hexdigest() if present.is_file() else ""
        digests[name] = {"sha256": hashlib.sha256(content).hexdigest(), "previous": before}
    record: dict[str, Any] = {"files": digests}
    record["digest"] = record_digest(record)
    write_atomically(file, json.dumps(record, indent=1).encode())


def read_digests(file: Path) -> dict[str, dict[str, str]]:
    """Return a record of digests, empty if the run is older than they; raise StoreError if damaged."""
    try:
        record = parse_json(file.read_text(encoding="utf-8"))
        if record["digest"] != record_digest(record):
            raise ValueError("its contents do not match its digest")
        files: dict[str, dict[str, str]] = {name: dict(entry) for name, entry in record["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(file, error) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StoreError(
            f"{file}: this record of digests is damaged. Restore it from a copy, or delete it; the files that it "
            "covers are then no longer checked."
        ) from None
    return files


def is_altered(file: Path, name: str) -> bool:
    """Return whether a file differs from the record of digests ``file`` beside it; missing and unnoted files do not."""
    noted = None
    while (digests := read_digests(file)) != noted:  # again, if a process has just written both
        noted = digests
        try:
            content = (file.parent / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unreadable(file.parent / name, error) from None
        entry = digests.get(name)
        if entry is None or hashlib.sha256(content).hexdigest() in (entry["sha256"], entry["previous"]):
            return False
    return True


def require_unaltered(folder: Path, name: str) -> None:
    """Raise StoreError if a file of a run, without a step, differs from its digest."""
    if is_altered(folder / DIGESTS, name):
        raise StoreError(
            f"{folder / name}: has been altered (its hash does not match {DIGESTS}). Restore it from a copy, or start "
            "again with --fresh (nothing is deleted)."
        )


class CommitHistory:
    """The committed steps of one run folder; the history of a branch starts with its parent's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, tuple[tuple[int, ...], Commit]] = {}  # by file name, with the file's identity
        self._parent_history: Self | None = None

    @property
    def fork(self) -> Fork | None:
        """Where this run branches off, None if it is not a branch; raises StoreError if its record is damaged."""
        return Fork.read(self.folder)

    def commits(self, through: int | None = None) -> list[Commit]:
        """Return the records of all committed steps, or of those up to ``through``, in order.

        Those of a branch start with its parent's. Raises StoreError if one is damaged or missing.
        """
        fork = self.fork
        records = [] if fork is None else self._inherited(fork, through)
        folder = self.folder / "commits"
        for name in [path.name for path in record_files(self.folder)]:
            number = len(records)
            if through is not None and number > through:
                break
            record = self._record(folder, name)
            if record.step != number:
                gap = f"the record of step {number} is missing, but that of step {record.step} exists"
                raise StoreError(f"{folder}: {gap}. {_misnamed(folder)}{recovery_hint(self.folder, number)}")
            if record.parent != (records[-1].digest if records else ""):
                raise StoreError(damage_message(folder / name, "it does not follow from the record before it"))
            records.append(record)
        return records

    def _record(self, folder: Path, name: str) -> Commit:
        """Return a record, read again only if its file has changed."""
        try:
            status = os.stat(f"{folder}/{name}")  # noqa: PTH116 (speed)
        except OSError as error:
            raise unreadable(folder / name, error) from None
        identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        cached = self._records.get(name)
        if cached is None or cached[0] != identity:
            cached = self._records[name] = identity, Commit.read(folder / name)
        return cached[1]

    def _inherited(self, fork: Fork, through: int | None) -> list[Commit]:
        """Return the records that a branch inherits; raise StoreError if they are not those that it began from."""
        origin = f"branches off {fork.parent} after step {fork.step}"
        context = f"{self.folder}: this run {origin} and reads its earlier steps there"
        parent, parent_fork = self._parent(fork), Fork.read(fork.parent)
        if not (fork.parent / "commits").is_dir():
            raise StoreError(
                f"{context}, but that folder contains no run. Restore it, or, if it has moved, correct parent in "
                f"{self.folder / BRANCH}."
            )
        if parent_fork is not None and parent_fork.step >= fork.step:
            raise StoreError(f"{context}, but that step is in another folder: {BRANCH} has been altered.")
        try:
            records = parent.commits(through=fork.step)
        except StoreError as error:
            raise StoreError(f"{context}. {error}") from None
        if len(records) <= fork.step or records[-1].digest != fork.digest:
            raise StoreError(
                f"{context}, but the run there is not the one that it began from. Restore that run, or, if it has "
                f"moved, correct parent in {self.folder / BRANCH}."
            )
        return records if through is None else records[: through + 1]

    def _parent(self, fork: Fork) -> Self:
        if self._parent_history is None or self._parent_history.folder != fork.parent:
            self._parent_history = type(self)(fork.parent)
        return self._parent_history

    def owning_store(self, step: int) -> Self:
        """Return the run that holds the files of a step: this one, or an ancestor."""
        fork = self.fork
        return self if fork is None or step > fork.step else self._parent(fork).owning_store(step)

    def first_own_step(self) -> int:
        """Return the first step whose files belong to this folder."""
        fork = self.fork
        return 0 if fork is None else fork.step + 1

    def ancestry(self) -> list[Path]:
        """Return the folders of this run and of its ancestors, the nearest first."""
        fork = self.fork
        return [self.folder, *([] if fork is None else self._parent(fork).ancestry())]

    def last(self) -> int:
        """Return the number of the last committed step, -1 if there is none."""
        return len(self.commits()) - 1
