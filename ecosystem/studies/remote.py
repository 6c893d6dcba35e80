"""Runs in an object store: any URL that fsspec understands (``s3://``, ``gs://``, ``memory://``, ``file://``).

The law of the run folder holds there too: a step happened if and only if its record exists. A run is made in a scratch
folder on the machine that makes it; after every commit its new files are pushed, the record last. Whoever goes on
with it, on whatever machine, first fetches what records name. A store is asked to put an object in full or not at all,
as object stores do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import BRANCH, PRUNED, Commit, Fork, Store
from ecosystem.scenario.scenario import Scenario

_AT_ONCE = 8  # transfers
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
    return sentence.replace(str(_scratch() / _named(url)), url) if is_url(out) else sentence


def upload(folder: Path, url: str, names: str = "*") -> None:
    """Put the files of a folder, such as a study's report, beside the runs that it tells of, or those so named."""
    mirror = Mirror(url)
    files = [path for path in sorted(folder.rglob(names)) if path.is_file() and not path.name.startswith(".")]
    with _told(url):
        mirror.put({path.relative_to(folder).as_posix(): path for path in files})


class Mirror:
    """The scratch folder of this machine for the runs at one address."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem
        except ImportError:
            raise EcosystemError(
                f'{url}: object stores need the package fsspec: pip install "ecosystem[ray]".'
            ) from None
        self.url = url.rstrip("/")
        try:
            self._fs, root = url_to_fs(self.url)
        except ImportError as problem:
            raise EcosystemError(f"{url}: the package that speaks to this store is missing ({problem}).") from None
        except ValueError as problem:
            raise EcosystemError(f"{url}: no such sort of store is known ({problem}).") from None
        self._root = str(root).rstrip("/")
        self._half_written = isinstance(self._fs, LocalFileSystem)  # a file there grows while it is written
        self.folder = _own(_scratch()) / _named(self.url)
        self._pushed: dict[tuple[Path, str], str] = {}  # hashes of what was pushed and may change

    @classmethod
    def around(cls, place: str) -> Mirror:
        """Return the mirror that has the run at this address."""
        return cls(out_of(place))

    def local(self, place: str) -> Path:
        """Return the scratch folder of the run at an address."""
        return self.folder / place.rstrip("/").removeprefix(f"{self.url}/")

    def place(self, folder: Path) -> str:
        """Return the address of the run in a scratch folder."""
        return f"{self.url}/{folder.relative_to(self.folder).as_posix()}"

    def records(self, folder: Path) -> list[str]:
        """Return the names of the records that the store has of a run, in order."""
        with _told(self.place(folder)):
            return [name for name in self._names(f"{self._at(folder)}/commits") if name[:1].isdigit()]

    # From the store

    def fetch(self, folder: Path, *, tables: Iterable[str] | None = None, weights: int | None = None) -> None:
        """Bring a run's scratch folder to what the store has of it; of models only those of the step ``weights``.

        ``tables`` limits it to some; those of runs that this one branches off are fetched as well. What a killed worker
        of this machine had committed and not yet pushed stays if it goes on from what the store has.
        """
        with _told(self.place(folder)), _patient(Store(folder)):
            at, names = self._at(folder), self._names(f"{self._at(folder)}/commits")
            theirs = dict(zip(names, self._get(f"{at}/commits/{name}" for name in names), strict=True))
            mine = {path.name: path.read_bytes() for path in (folder / "commits").glob("*.json")}
            agree = all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
            if mine and not (theirs and agree):
                _empty(folder)
            known = {path: self._fs.cat_file(f"{at}/{path}") for path in _BESIDE if self._fs.exists(f"{at}/{path}")}
            for path, content in known.items():
                _write(folder / path, content)
                self._pushed[folder, path] = hashlib.sha256(content).hexdigest()
            wanted = _wanted(theirs.values(), tables, weights)
            missing = [name for name, digest in wanted.items() if not _same(folder / name, digest)]
            for name, content in zip(missing, self._get(f"{at}/{name}" for name in missing), strict=True):
                _write(folder / name, content)
            for name, content in theirs.items():  # last, as ever
                _write(folder / "commits" / name, content)
        fork = Fork.read(folder)
        if fork is not None:
            if not fork.parent.is_relative_to(self.folder):
                raise StoreError(f"{self.place(folder)}: branches off a run that is not under {self.url}.")
            self.fetch(fork.parent, tables=tables)

    def resume(self, folder: Path) -> None:
        """Fetch all that a run needs to go on after its last committed step."""
        names = self.records(folder)
        self.fetch(folder, weights=int(names[-1].removesuffix(".json")) if names else None)

    # To the store

    def push(self, folder: Path) -> None:
        """Bring the store to what has been committed in a scratch folder: files first, then their record.

        Raises StoreError where another worker has gone on with this run meanwhile; its steps stay.
        """
        at, place = self._at(folder), self.place(folder)
        with _told(place):
            mine = sorted((folder / "commits").glob("*.json"))
            theirs = self._names(f"{at}/commits")
            both = [path for path in mine if path.name in theirs]
            if len(theirs) > len(both) or (
                both and self._fs.cat_file(f"{at}/commits/{both[-1].name}") != both[-1].read_bytes()
            ):
                raise StoreError(f"{place}: another worker has gone on with this run meanwhile.")
            changed = {}
            for name in _BESIDE:
                path = folder / name
                digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
                if digest is not None and self._pushed.get((folder, name)) != digest:
                    changed[f"{at}/{name}"] = path
                    self._pushed[folder, name] = digest
            self.put(changed, root="")
            for path in mine:
                if path.name not in theirs:
                    files = [folder / name for name in Commit.read(path).files]
                    self.put({f"{at}/{f.relative_to(folder).as_posix()}": f for f in files if f.exists()}, root="")
                    self.put({f"{at}/commits/{path.name}": path}, root="")
            if mine:
                self._prune(folder, at)

    def _prune(self, folder: Path, at: str) -> None:
        """Remove the models that the run folder has pruned."""
        own = {int(path.stem) for path in (folder / "commits").glob("*.json")}
        commits = Store(folder).commits()
        gone = {c.step for c in commits[:-1] if not c.kept and c.step in own}
        for table in PRUNED:
            for name in self._names(f"{at}/{table}"):
                if int(name.split(".")[0]) in gone:
                    self._fs.rm_file(f"{at}/{table}/{name}")

    def put(self, files: dict[str, Path], root: str | None = None) -> None:
        """Put files at these paths below the address (``root`` "": paths of the store itself)."""
        start = f"{self._root}/" if root is None else root
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda item: self._put(f"{start}{item[0]}", item[1].read_bytes()), files.items()):
                pass

    def _put(self, path: str, content: bytes) -> None:
        beside = f"{path}.part" if self._half_written else path
        try:
            self._fs.pipe_file(beside, content)
        except FileNotFoundError:
            bucket = self._root.split("/")[0]
            if bucket and not self._fs.exists(bucket):  # which making a folder would make as well
                raise StoreError(
                    f'{self.url}: there is no bucket "{bucket}"; make it first, or correct --out.'
                ) from None
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(beside, content)
        if beside != path:
            Path(beside).replace(path)

    def _get(self, paths: Iterable[str]) -> Iterator[bytes]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self._fs.cat_file, paths)

    def _names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if name[:1].isdigit() and not name.endswith(".part"))

    def _at(self, folder: Path) -> str:
        return f"{self._root}/{folder.relative_to(self.folder).as_posix()}"


def _wanted(records: Iterable[bytes], tables: Iterable[str] | None, weights: int | None) -> dict[str, str]:
    """Return the files (name → hash) to be fetched of those that records name and that were not pruned."""
    read: list[dict[str, Any]] = [json.loads(record) for record in records]
    chosen = None if tables is None else set(tables)
    wanted = {}
    for record in read:
        for name, told in record["files"].items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StoreError(f'a record names the file "{name}", which lies outside its run: it was tampered with.')
            table = name.split("/")[0]
            pruned = table in PRUNED and not record["kept"] and record is not read[-1]
            left_out = record["step"] != weights if table == "weights" else chosen is not None and table not in chosen
            if not pruned and not left_out:
                wanted[name] = told["sha256"]
    return wanted


def _same(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def _empty(folder: Path) -> None:
    """Empty a scratch folder whose run went on elsewhere; its lock, which is held, stays."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _scratch() -> Path:
    """Return this user's scratch folder on this machine."""
    whose = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()).resolve() / f"ecosystem-{whose}"


def _own(folder: Path) -> Path:
    """Make a folder that nobody else may look into; raise StoreError if it is there and somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise StoreError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own.")
    return folder


def _named(url: str) -> str:
    """Return what the runs at an address are called in the scratch folder."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


@contextmanager
def _patient(store: Store) -> Iterator[None]:
    """Lock a scratch folder, waiting a while for another process that fetches the same run."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        lock = store.lock()
        try:
            lock.__enter__()
            break
        except StoreError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn whatever a store's package raises into a sentence; each has errors of its own."""
    try:
        yield
    except EcosystemError:
        raise
    except Exception as problem:
        raise StoreError(
            f"{place}: the store does not answer as it should ({type(problem).__name__}: {problem})."
        ) from problem
