"""Runs in an object store: any URL that fsspec understands (``s3://``, ``gs://``, ``memory://``, ``file://``).

The law of the run folder holds there too: a step happened if and only if its record exists. A run is made in a scratch
folder on the machine that makes it. After every commit its new files are pushed, the record last. A worker that resumes
the run, on any machine, first fetches the files that records name. A store must put an object in full or not at all, as
object stores do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.runs.records import BRANCH, Commit, Fork, check_format
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import PRUNED, Store
from ecosystem.scenario.scenario import Scenario

_PATIENCE_SECONDS = 60.0  # for another process that fetches the same run
_BESIDE = ("scenario.toml", "environment.json", BRANCH, "web.graphml", "web.gexf")  # rewritten while a run goes on
_READ = ("metrics", "state")  # what a study reads of its runs


def is_url(out: str) -> bool:
    """Return whether this place is an address and not a folder."""
    return "://" in out


def place_of(scenario: Scenario, out: str) -> str:
    """Return where the run of a scenario lives: a folder, or an address."""
    if is_url(out):
        return f"{out.rstrip('/')}/{folder_of(scenario, '').as_posix()}"
    return str(folder_of(scenario, out))


def last_step(place: str) -> int:
    """Return the last committed step of a run by the names of its records alone (-1: none)."""
    if is_url(place):
        mirror = Mirror.around(place)
        names = mirror.records(mirror.local(place))
    else:
        names = [path.name for path in (Path(place) / "commits").glob("[0-9]*.json")]
    return max((int(name.removesuffix(".json")) for name in names), default=-1)


def opened(place: str) -> Run:
    """Open a run for reading; of one in an object store, what it measured is fetched, and not its models."""
    if not is_url(place):
        return Run.open(place)
    mirror = Mirror.around(place)
    folder = mirror.local(place)
    mirror.fetch(folder, tables=_READ)
    if not (folder / "scenario.toml").is_file():
        raise StoreError(f"{place}: there is no run.")
    return Run.open(folder)


def out_of(place: str) -> str:
    """Return the folder or address that a run was sent to, of which it lies below name and seed."""
    return place.rstrip("/").rsplit("/", 2)[0]


def addressed(sentence: str, out: str) -> str:
    """Return what is said of runs at an address with their files named as in the store, not as in the scratch folder.

    What is said of runs in folders stays as it is.
    """
    url = out.rstrip("/")
    return sentence.replace(str(_scratch() / _folder_name(url)), url) if is_url(out) else sentence


def upload(folder: Path, url: str, names: str = "*") -> None:
    """Put the files of a folder, such as a study's report, beside the runs that it tells of, or those so named."""
    files = [path for path in sorted(folder.rglob(names)) if path.is_file() and not path.name.startswith(".")]
    with _store_errors(url):
        Mirror(url).put(files, folder)


class Mirror:
    """The scratch folder of this machine for the runs at one address."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # here, since it takes a while and most studies stay on this machine
        from fsspec.implementations.dirfs import DirFileSystem
        from fsspec.implementations.local import LocalFileSystem

        self.url = url.rstrip("/")
        try:
            store, root = url_to_fs(self.url)
        except ImportError as problem:
            raise EcosystemError(f"{url}: the package that speaks to this store is missing ({problem}).") from None
        except ValueError as problem:
            raise EcosystemError(f"{url}: no such sort of store is known ({problem}).") from None
        self._fs = DirFileSystem(root, store)  # paths are relative to the address
        self._is_local = isinstance(store, LocalFileSystem)
        self.folder = _private(_scratch()) / _folder_name(self.url)
        self._pushed: dict[Path, str] = {}  # hashes of what was pushed and may change

    @classmethod
    def around(cls, place: str) -> Mirror:
        """Return the mirror that has the run at this address."""
        return cls(out_of(place))

    def local(self, place: str) -> Path:
        """Return the scratch folder of the run at an address."""
        return self.folder / place.rstrip("/").removeprefix(f"{self.url}/")

    def place(self, folder: Path) -> str:
        """Return the address of the run in a scratch folder."""
        return f"{self.url}/{self._path(folder)}"

    def records(self, folder: Path) -> list[str]:
        """Return the names of the records that the store has of a run, in order."""
        with _store_errors(self.place(folder)):
            return self._numbered(folder / "commits")

    # From the store

    def fetch(self, folder: Path, *, tables: Iterable[str] | None = None, weights: int | None = None) -> None:
        """Bring a run's scratch folder to the state of the store; of models fetch only those of the step ``weights``.

        ``tables`` limits which tables are fetched. Those of the runs that this one branches from are fetched too. Steps
        that a killed worker of this machine committed and did not push stay if they continue those in the store.
        """
        with _store_errors(self.place(folder)), Store(folder).lock(_PATIENCE_SECONDS):
            names = [f"commits/{name}" for name in self._numbered(folder / "commits")]
            beside = [name for name in self._names(folder) if name in _BESIDE]
            with self._downloaded(folder, names) as records, self._downloaded(folder, beside) as changing:
                stored = {name: path.read_bytes() for name, path in records.items()}
                for name, content in stored.items():
                    check_format(json.loads(content), f"{self.place(folder)}/{name}")
                local = {f"commits/{path.name}": path.read_bytes() for path in (folder / "commits").glob("*.json")}
                agree = all(local[name] == stored[name] for name in local.keys() & stored.keys())
                if local and not (stored and agree):
                    _empty(folder)
                _put_in_place(folder, changing)
                self._pushed |= {folder / name: _hash(folder / name) for name in beside}
                wanted = _wanted(stored.values(), tables, weights)
                missing = [name for name, digest in wanted.items() if not _same(folder / name, digest)]
                with self._downloaded(folder, missing) as files:
                    _put_in_place(folder, files)
                _put_in_place(folder, records)  # last, as ever
        fork = Fork.read(folder)
        if fork is not None:
            if not fork.parent.is_relative_to(self.folder):
                raise StoreError(f"{self.place(folder)}: branches off a run that is not under {self.url}.")
            self.fetch(fork.parent, tables=tables)

    def resume(self, folder: Path) -> None:
        """Fetch all that a run needs to go on after its last committed step."""
        names = self.records(folder)
        self.fetch(folder, weights=int(names[-1].removesuffix(".json")) if names else None)

    @contextmanager
    def _downloaded(self, folder: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
        """Download files of a run, and yield where each lies until it is put in its place."""
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=self.folder) as incoming:
            copies = {name: Path(incoming) / str(number) for number, name in enumerate(names)}
            if copies:
                self._fs.get([self._path(folder / name) for name in copies], [str(copy) for copy in copies.values()])
            yield copies

    # To the store

    def push(self, folder: Path) -> None:
        """Bring the store to what has been committed in a scratch folder: files first, then their record.

        Raises StoreError where another worker has gone on with this run meanwhile; its steps stay.
        """
        place = self.place(folder)
        with _store_errors(place):
            local = sorted((folder / "commits").glob("*.json"))
            stored = self._numbered(folder / "commits")
            both = [path for path in local if path.name in stored]
            if len(stored) > len(both) or (both and self._fs.cat_file(self._path(both[-1])) != both[-1].read_bytes()):
                raise StoreError(f"{place}: another worker has gone on with this run meanwhile.")
            hashes = {path: _hash(path) for path in (folder / name for name in _BESIDE) if path.exists()}
            self.put(path for path, digest in hashes.items() if self._pushed.get(path) != digest)
            self._pushed |= hashes
            for path in local:
                if path.name not in stored:
                    self.put(file for name in Commit.read(path).files if (file := folder / name).exists())
                    self.put([path])
            if local:
                self._prune(folder)

    def _prune(self, folder: Path) -> None:
        """Remove the models that the run folder has pruned."""
        own = {int(path.stem) for path in (folder / "commits").glob("*.json")}
        commits = Store(folder).commits()
        gone = {c.step for c in commits[:-1] if not c.kept and c.step in own}
        for table in PRUNED:
            for name in self._numbered(folder / table):
                if int(name.split(".")[0]) in gone:
                    self._fs.rm_file(self._path(folder / table / name))

    def put(self, files: Iterable[Path], start: Path | None = None) -> None:
        """Put files that lie below the scratch folder (or ``start``) at the same paths below the address."""
        paths = {path.relative_to(start or self.folder).as_posix(): str(path) for path in files}
        if not paths:
            return
        if self._is_local:  # a file there grows while it is written
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
            raise StoreError(f'{self.url}: there is no bucket "{bucket}"; make it first, or correct --out.') from None

    def _numbered(self, folder: Path) -> list[str]:
        """Return the names in the store of a run's files of one table, in the order of steps."""
        return [name for name in self._names(folder) if name[:1].isdigit()]

    def _names(self, folder: Path) -> list[str]:
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(path).name for path in paths if not path.endswith(".part"))

    def _path(self, file: Path) -> str:
        """Return the path in the store of a file or folder in the scratch folder."""
        return file.relative_to(self.folder).as_posix()


def _wanted(records: Iterable[bytes], tables: Iterable[str] | None, weights: int | None) -> dict[str, str]:
    """Return the files (name → hash) to be fetched of those that records name and that were not pruned."""
    steps: list[dict[str, Any]] = [json.loads(record) for record in records]
    chosen = None if tables is None else set(tables)
    wanted = {}
    for record in steps:
        for name, file in record["files"].items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StoreError(f'a record names the file "{name}", which lies outside its run: it was tampered with.')
            table = name.split("/")[0]
            pruned = table in PRUNED and not record["kept"] and record is not steps[-1]
            left_out = record["step"] != weights if table == "weights" else chosen is not None and table not in chosen
            if not pruned and not left_out:
                wanted[name] = file["sha256"]
    return wanted


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and _hash(path) == digest


def _put_in_place(folder: Path, files: Mapping[str, Path]) -> None:
    """Move downloaded files to where they belong; each appears in full."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(folder / name)


def _empty(folder: Path) -> None:
    """Empty a scratch folder whose run went on elsewhere; its lock, which is held, stays."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _scratch() -> Path:
    """Return this user's scratch folder on this machine."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()).resolve() / f"ecosystem-{user}"


def _private(folder: Path) -> Path:
    """Make a folder that only this user can read; raise StoreError if it belongs to another user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise StoreError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own.")
    return folder


def _folder_name(url: str) -> str:
    """Return the name in the scratch folder of the runs at an address."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


@contextmanager
def _store_errors(place: str) -> Iterator[None]:
    """Turn whatever a store's package raises into a StoreError; every package has error classes of its own."""
    try:
        yield
    except EcosystemError:
        raise
    except Exception as problem:
        raise StoreError(
            f"{place}: the store does not answer as it should ({type(problem).__name__}: {problem})."
        ) from problem
