"""Runs in an object store: any URL that fsspec understands (``s3://``, ``gs://``, ``memory://``, ``file://``).

As in a run folder, a step is committed if and only if its record exists. A process writes a run to a scratch folder of
its machine and pushes the new files after every commit, the record last; workers that hold weights have uploaded them
before. A process that resumes the run, on any machine, first fetches the files that the records name. Uploads must be
atomic, as they are in object stores.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.input_files import digest_of, is_url
from ecosystem.placement.parts import file_system, store_errors
from ecosystem.runs.records import (
    BRANCH,
    COVERED,
    DIGESTS,
    PRUNED,
    TIMES,
    Commit,
    Fork,
    check_format,
    is_record,
    record_files,
    table_file,
)
from ecosystem.runs.store import Store

_LOCK_SECONDS = 60.0  # longest wait for another process that fetches the same run
_REWRITTEN = (DIGESTS, *COVERED, BRANCH)  # files without a step


def out_root(place: str) -> str:
    """Return the ``--out`` of a run: the folder or URL above its name and seed."""
    return place.rstrip("/").rsplit("/", 2)[0]


class Mirror:
    """The scratch folder of this machine that mirrors the runs at one URL."""

    def __init__(self, url: str) -> None:
        """Raise EcosystemError if the URL has no path, or the package for its store is missing."""
        from fsspec.implementations.dirfs import DirFileSystem  # slow to import, and most studies run without it
        from fsspec.implementations.local import LocalFileSystem

        self.url = url.rstrip("/")
        if not is_url(self.url):
            raise EcosystemError(f"{url}: this is not the URL of a place in a store; give one like s3://bucket/runs.")
        store, root = file_system(self.url)
        self._fs = DirFileSystem(root, store)  # paths are relative to the URL
        self._is_local = isinstance(store, LocalFileSystem)
        self.folder = _private(_scratch_root()) / scratch_folder(self.url).name
        self._pushed: dict[Path, str] = {}  # rewritten file → its hash at the last push

    @classmethod
    def of_run(cls, place: str) -> Mirror:
        """Return the mirror of the run at a URL."""
        if not is_url(root := out_root(place)):
            raise EcosystemError(f"{place}: this is not the URL of a run, such as s3://bucket/runs/NAME/SEED.")
        return cls(root)

    def local(self, place: str) -> Path:
        """Return the scratch folder of the run at a URL."""
        return self.folder / place.rstrip("/").removeprefix(f"{self.url}/")

    def place(self, folder: Path) -> str:
        """Return the URL of the run in a scratch folder."""
        return f"{self.url}/{self._path(folder)}"

    def records(self, folder: Path) -> list[str]:
        """Return the names of a run's records in the store, ordered by step."""
        with store_errors(self.place(folder)):
            return self._numbered(folder / "commits")

    # From the store

    def fetch(self, folder: Path, *, tables: Iterable[str] | None = None, weights: Container[int] = ()) -> None:
        """Update the scratch folders of a run and of its ancestors from the store.

        ``tables`` limits the tables to fetch; models are fetched of the steps ``weights`` only. Steps that a killed
        process of this machine committed but did not push are kept if they continue those in the store.
        """
        with store_errors(self.place(folder)), Store(folder).lock(_LOCK_SECONDS):
            names = [f"commits/{name}" for name in self._numbered(folder / "commits")]
            rewritten = [name for name in self._names(folder) if name in _REWRITTEN]
            with self._downloaded(folder, names) as records, self._downloaded(folder, rewritten) as metadata:
                stored = {name: path.read_bytes() for name, path in records.items()}
                for name, content in stored.items():
                    check_format(json.loads(content), f"{self.place(folder)}/{name}")
                local = {f"commits/{path.name}": path.read_bytes() for path in record_files(folder)}
                consistent = all(local[name] == stored[name] for name in local.keys() & stored.keys())
                if local and not (stored and consistent):
                    _clear(folder)
                    local = {}
                _move_into(folder, metadata)
                self._pushed |= {folder / name: digest_of(folder / name) for name in rewritten}
                ahead = [local[name] for name in sorted(local.keys() - stored.keys())]
                expected = _files_to_fetch([*stored.values(), *ahead], tables, weights)
                missing = [name for name, digest in expected.items() if not _has_hash(folder / name, digest)]
                with self._downloaded(folder, missing) as files:
                    _move_into(folder, files)
                _move_into(folder, records)  # last: a record commits a step
        fork = Fork.read(folder)
        if fork is not None:
            if not fork.parent.is_relative_to(self.folder):
                raise StoreError(f"{self.place(folder)}: its parent {fork.parent} is not below {self.url}.")
            self.fetch(fork.parent, tables=tables)

    def resume(self, folder: Path) -> None:
        """Fetch the files needed to resume a run after its last committed step."""
        names = {*self.records(folder), *(path.name for path in record_files(folder))}
        self.fetch(folder, weights={int(name.removesuffix(".json")) for name in names})

    @contextmanager
    def _downloaded(self, folder: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
        """Download files of a run into a temporary folder; yield name → path of each."""
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=self.folder) as incoming:
            copies = {name: Path(incoming) / str(number) for number, name in enumerate(names)}
            if copies:
                self._fs.get([self._path(folder / name) for name in copies], [str(copy) for copy in copies.values()])
            yield copies

    # To the store

    def push(self, folder: Path) -> None:
        """Push the committed steps of a scratch folder to the store: files first, then their record.

        Raises StoreError if another worker has continued this run; that worker's steps are kept.
        """
        place = self.place(folder)
        with store_errors(place):
            local = record_files(folder)
            stored = self._numbered(folder / "commits")
            shared = [path for path in local if path.name in stored]
            latest = shared[-1] if shared else None
            diverged = latest is not None and self._fs.cat_file(self._path(latest)) != latest.read_bytes()
            if len(stored) > len(shared) or diverged:
                raise StoreError(f"{place}: another worker has continued this run.")
            hashes = {path: digest_of(path) for path in (folder / name for name in _REWRITTEN) if path.exists()}
            changed = [path for path, digest in hashes.items() if self._pushed.get(path) != digest]
            self.put(path for path in changed if path.name == DIGESTS)  # first: it also covers the versions before
            self.put(path for path in changed if path.name != DIGESTS)
            self._pushed |= hashes
            for path in local:
                if path.name not in stored:
                    commit = Commit.read(path)
                    names = [*commit.files, table_file(TIMES, commit.step)]
                    self.put(file for name in names if (file := folder / name).exists())
                    self.put([path])
            if local:
                self._prune(folder)

    def _prune(self, folder: Path) -> None:
        """Remove from the store the models that no step needs any more."""
        own = {int(path.stem) for path in record_files(folder)}
        commits = [commit for commit in Store(folder).commits() if commit.step in own]
        named = {name for commit in commits[:-1] for name in commit.files.keys() - set(commit.pruned())}
        named |= commits[-1].files.keys()
        for table in PRUNED:
            for name in self._numbered(folder / table):
                # Of later steps, another process may be uploading models; of these, a killed one has left some.
                if int(re.split(r"\D", name)[0]) in own and f"{table}/{name}" not in named:
                    self._fs.rm_file(self._path(folder / table / name))

    def put(self, files: Iterable[Path], start: Path | None = None) -> None:
        """Upload files to their paths relative to ``start`` (default: the scratch folder), below the URL."""
        paths = {path.relative_to(start or self.folder).as_posix(): str(path) for path in files}
        if not paths:
            return
        if self._is_local:  # uploads to a local folder are made atomic by renaming
            for path, file in paths.items():
                self._fs.makedirs(PurePosixPath(path).parent.as_posix(), exist_ok=True)
                self._fs.put_file(file, f"{path}.part")
                self._fs.mv(f"{path}.part", path)
            return
        try:
            self._fs.put(list(paths.values()), list(paths))
        except FileNotFoundError:
            bucket = self._fs.path.split("/")[0]
            if not bucket or self._fs.fs.exists(bucket):
                raise
            raise StoreError(f'{self.url}: there is no bucket "{bucket}"; create it, or correct --out.') from None

    def _numbered(self, folder: Path) -> list[str]:
        """Return the names of a run's files of one table in the store, ordered by step."""
        names = self._names(folder)
        if folder.name == "commits":
            return [name for name in names if is_record(name)]
        return [name for name in names if re.fullmatch(r"\d{6,}(-\w+)*\.\w+", name)]

    def _names(self, folder: Path) -> list[str]:
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(path).name for path in paths if not path.endswith(".part"))

    def _path(self, file: Path) -> str:
        """Return the path in the store of a file or folder below the scratch folder."""
        return file.relative_to(self.folder).as_posix()


def _files_to_fetch(records: Iterable[bytes], tables: Iterable[str] | None, weights: Container[int]) -> dict[str, str]:
    """Return the files of these records to fetch (name → SHA-256), without pruned ones."""
    commits = [Commit(**json.loads(record)) for record in records]
    selected = None if tables is None else set(tables)
    expected = {}
    for commit in commits:
        for name, file in commit.files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StoreError(f'a record names the file "{name}", which is outside its run; do not use this run.')
            table = name.split("/")[0]
            pruned = commit is not commits[-1] and name in commit.pruned()
            needed = commit.step in weights if table == "weights" else selected is None or table in selected
            if needed and not pruned:
                expected[name] = file["sha256"]
    return expected


def _has_hash(path: Path, digest: str) -> bool:
    return path.is_file() and digest_of(path) == digest


def _move_into(folder: Path, files: Mapping[str, Path]) -> None:
    """Move downloaded files into a run folder, each atomically."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(folder / name)


def _clear(folder: Path) -> None:
    """Delete everything in a scratch folder except its lock, which is held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _scratch_root() -> Path:
    """Return the user's folder for all scratch folders of this machine."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()).resolve() / f"ecosystem-{user}"


def _private(folder: Path) -> Path:
    """Create a folder that only this user can read; raise StoreError if it belongs to another user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise StoreError(f"{folder}: belongs to another user; set TMPDIR to a folder that you own.")
    return folder


def scratch_folder(url: str) -> Path:
    """Return the scratch folder for a URL."""
    return _scratch_root() / hashlib.sha256(url.encode()).hexdigest()[:16]
