"""Weights of a step in several files: every process writes the members that it holds, with a hash of its own.

Arrays have the names that they would have in one file; those with members as their leading axis are divided by member,
and the order of the files is that of the members. A process writes to the run folder, if it sees it, or straight to an
object store. Nothing is overwritten: a file is written under a name that was never used before, so that neither a
worker of a killed run nor one that was given up can change what a commit record names.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.families.tensor_files import ArrayFile, Entry, Shaped, arrange, encoded, rounded, shapes_of
from ecosystem.input_files import is_url

_BLOCK = 1 << 25  # bytes of each part of an upload


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Raise every error of a store's package as a StoreError; the packages have exception classes of their own."""
    try:
        yield
    except EcosystemError:
        raise
    except Exception as problem:
        raise StoreError(f"{place}: the store failed ({type(problem).__name__}: {problem}).") from problem


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path there; raise EcosystemError if its package is missing."""
    from fsspec.core import url_to_fs  # slow to import, and most runs are in folders

    try:
        store, path = url_to_fs(url)
    except ImportError as problem:
        raise EcosystemError(f"{url}: a package for this kind of store is missing ({problem}).") from None
    except ValueError as problem:
        raise EcosystemError(f"{url}: unknown kind of store ({problem}).") from None
    return store, str(path)


class ArrayObject(ArrayFile):
    """Arrays in an object of a store, each read when it is asked for."""

    def __init__(self, url: str, entries: Mapping[str, Entry]) -> None:
        self.url = url
        super().__init__(Path(url.rpartition("/")[2]), entries)

    def select(self, entries: Mapping[str, Entry]) -> ArrayObject:
        """Return other arrays, or parts of arrays, of the same object."""
        return ArrayObject(self.url, entries)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array."""
        entry = self.entries[name]
        with store_errors(self.url):
            store, path = file_system(self.url)
            content = store.cat_file(path, start=entry.start, end=entry.start + entry.size)
        return np.frombuffer(bytearray(content), entry.dtype, math.prod(entry.shape)).reshape(entry.shape)


class DividedArrays(Mapping[str, NDArray[Any]]):
    """Arrays of a model that are divided among files, in the order of its members."""

    def __init__(self, files: Sequence[ArrayFile]) -> None:
        self.files = list(files)

    def shapes(self) -> dict[str, Shaped]:
        """Return the type and shape of every array, with all members."""
        rows: Counter[str] = Counter()
        for file in self.files:
            rows.update({name: entry.shape[0] if entry.shape else 0 for name, entry in file.entries.items()})
        found = {name: entry for file in self.files for name, entry in file.entries.items()}
        return {
            name: Shaped(entry.dtype, (rows[name], *entry.shape[1:]) if entry.shape else ())
            for name, entry in found.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array."""
        found = [file[name] for file in self.files if name in file.entries]
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes())

    def __len__(self) -> int:
        return len(self.shapes())

    def members(self, first: int, count: int) -> DividedArrays:
        """Return the arrays of some members, with the names that they have in a part that begins with ``first``."""
        files, passed = [], Counter[str]()
        for file in self.files:
            own: dict[str, Entry] = {}
            for name, entry in file.entries.items():
                if (number := member_of(name)) is not None:
                    if first <= number < first + count:
                        own[renumbered(name, -first)] = entry
                    continue
                begins, rows = passed[name], entry.shape[0]
                passed[name] += rows
                low, high = max(first, begins), min(first + count, begins + rows)
                if low < high:
                    own[name] = entry.rows(low - begins, high - low)
            if own:
                files.append(file.select(own))
        return DividedArrays(files)


def open_divided(files: Sequence[Path]) -> dict[str, DividedArrays]:
    """Return the arrays of a step that is stored in several files, by model."""
    models: dict[str, list[ArrayFile]] = {}
    for file in files:
        for model, arrays in ArrayFile.open(file).by_model().items():
            models.setdefault(model, []).append(arrays)
    return {model: DividedArrays(found) for model, found in models.items()}


def sendable(arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Return arrays for another machine, which reads those in an object store itself."""
    if isinstance(arrays, DividedArrays) and all(isinstance(file, ArrayObject) for file in arrays.files):
        return arrays
    return dict(arrays)


def member_of(name: str) -> int | None:
    """Return the member whose array this is; None if members are its leading axis."""
    number, slash, _ = name.partition("/")
    return int(number) if slash and number.isdecimal() else None


def renumbered(name: str, by: int) -> str:
    """Return the name of the array of a member whose number is ``by`` higher; other names do not change."""
    number = member_of(name)
    return name if number is None else f"{number + by}/{name.partition('/')[2]}"


@dataclass(frozen=True)
class Written:
    """A file of weights as it was written."""

    place: str  # its path or URL
    size: int
    sha256: str
    entries: dict[str, Entry]
    rounded: Written | None = None  # the same arrays in bfloat16

    def arrays(self) -> ArrayFile:
        """Return its arrays."""
        return (
            ArrayObject(self.place, self.entries) if is_url(self.place) else ArrayFile(Path(self.place), self.entries)
        )


@dataclass(frozen=True)
class Target:
    """Where the weights of a step go: a folder, or a URL."""

    place: str
    step: int
    rounds: bool = False  # whether arrays in float32 are also stored in bfloat16
    marker: str = ""  # a file that shows that a machine sees the folder

    @property
    def seen(self) -> bool:
        """Whether this process can write there."""
        return is_url(self.place) or Path(self.place, self.marker).exists()

    def write(self, number: int, arrays: Mapping[str, NDArray[Any]]) -> Written:
        """Write a file, and flush it; its name in a folder begins with a dot until all are complete."""
        name, shapes = f"{self.step:06d}-{number:06d}-{uuid.uuid4().hex}", shapes_of(arrays)
        exact = self._write(f"{name}.safetensors", encoded(arrays), arrange(shapes)[1])
        if not self.rounds or all(shape.dtype != "float32" for shape in shapes.values()):
            return exact
        return replace(exact, rounded=self._write(f"{name}-bfloat16.safetensors", rounded(arrays, shapes), {}))

    def _write(self, name: str, pieces: Iterable[bytes | memoryview], entries: dict[str, Entry]) -> Written:
        place = f"{self.place}/{name}" if is_url(self.place) else str(Path(self.place, f".{name}.part"))
        size, digest = 0, hashlib.sha256()
        with _opened(place) as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        return Written(place, size, digest.hexdigest(), entries)


@contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    if not is_url(place):
        with Path(place).open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        return
    from fsspec.implementations.local import LocalFileSystem

    with store_errors(place):
        store, path = file_system(place)
        if isinstance(store, LocalFileSystem):  # others have no folders
            store.makedirs(str(Path(path).parent), exist_ok=True)
        with store.open(path, "wb", block_size=_BLOCK) as upload:
            yield upload


@runtime_checkable
class HeldElsewhere(Protocol):
    """Arrays that other processes hold, which write them to files themselves."""

    def write(self, target: Target, number: int) -> list[Written]:
        """Write all arrays, to files numbered from ``number``, in the order of the members."""

    def committed(self, arrays: DividedArrays) -> None:
        """Learn that these arrays are now in committed files, from which they can be restored."""


Weights = Mapping[str, Mapping[str, NDArray[Any]] | HeldElsewhere]
"""Arrays by model and name, or those who hold them."""


def held_elsewhere(weights: Weights) -> bool:
    """Return whether other processes hold some of these arrays."""
    return any(isinstance(state, HeldElsewhere) for state in weights.values())


class Together:
    """The files of a step's weights, once every process has written its own."""

    def __init__(self, written: Mapping[str, Sequence[Written]]) -> None:
        self._written = dict(written)

    @classmethod
    def write(cls, place: Path | str, step: int, weights: Weights, *, rounds: bool = False) -> Self:
        """Write weights to a folder or URL, with ``rounds`` also in bfloat16.

        In a folder, files appear under their names only when all are complete.
        """
        if is_url(place):
            return cls(_written(Target(str(place), step, rounds), weights))
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / f".{uuid.uuid4().hex}.part"
        marker.touch()
        try:
            written = _written(Target(str(folder), step, rounds, marker.name), weights)
        finally:
            marker.unlink(missing_ok=True)
        return cls({model: [_renamed(file) for file in files] for model, files in written.items()})

    def files(self, table: str) -> dict[str, dict[str, Any]]:
        """Return size and hash of every file, by its path in the run folder."""
        exact = [file for files in self._written.values() for file in files]
        written = [*exact, *(file.rounded for file in exact if file.rounded is not None)]
        return {
            f"{table}/{file.place.replace(os.sep, '/').rpartition('/')[2]}": {"size": file.size, "sha256": file.sha256}
            for file in written
        }

    def tell_committed(self, weights: Weights) -> None:
        """Tell the processes that hold weights which committed files have them now."""
        for model, state in weights.items():
            if isinstance(state, HeldElsewhere):
                files = [file.arrays().by_model().get(model) for file in self._written[model]]
                state.committed(DividedArrays([file for file in files if file is not None]))


def _written(target: Target, weights: Weights) -> dict[str, list[Written]]:
    written: dict[str, list[Written]] = {}
    number = 0
    for model, state in weights.items():
        if isinstance(state, HeldElsewhere):
            written[model] = state.write(target, number)
        else:
            written[model] = [target.write(number, {f"{model}/{name}": array for name, array in state.items()})]
        number += len(written[model])
    return written


def _renamed(file: Written) -> Written:
    """Give a complete file in a folder its name."""
    path = Path(file.place)
    step, number, rest = path.name.removeprefix(".").removesuffix(".part").split("-", 2)
    complete = path.with_name(f"{step}-{number}{rest[len(uuid.uuid4().hex) :]}")
    path.replace(complete)
    return replace(file, place=str(complete), rounded=None if file.rounded is None else _renamed(file.rounded))
