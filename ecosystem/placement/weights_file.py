"""Files of weights (safetensors) that several processes write together, each its own members, and read in part.

The file is the one that ``safetensors.numpy.save`` makes of all arrays, byte for byte. Its header depends on names,
types and shapes alone, so it is written first, and every process then writes its bytes where they belong.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Types of arrays and their names in a file, in the order in which a file stores them."""
_ORDER = {name: place for place, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class Shaped:
    """The type and the shape of an array that is elsewhere."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Entry(Shaped):
    """An array in a file: its type, its shape, and the position of its first byte."""

    start: int

    def rows(self, first: int, count: int) -> Entry:
        """Return the entry of some rows of this array."""
        size = self.size // max(1, self.shape[0])
        return Entry(self.dtype, (count, *self.shape[1:]), self.start + first * size)


@runtime_checkable
class HeldElsewhere(Protocol):
    """Arrays that other processes hold, which write them to a file themselves."""

    def layout(self) -> Mapping[str, Shaped]:
        """Return the type and shape of every array."""

    def write(self, path: Path, entries: Mapping[str, Entry]) -> None:
        """Write all arrays to an existing file, each where its entry says."""

    def digest(self, path: Path) -> str | None:
        """Return the SHA-256 of a file, computed where the arrays are; None if the file is not seen there."""

    def committed(self, arrays: StoredArrays) -> None:
        """Learn that these arrays are now in a committed file, from which they can be restored."""


class StoredArrays(Mapping[str, NDArray[Any]]):
    """The arrays of one model in a file of weights, read when they are asked for."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self.path, self.entries = path, dict(entries)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array."""
        return read_arrays(self.path, {name: self.entries[name]})[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


Weights = Mapping[str, Mapping[str, NDArray[Any]] | HeldElsewhere]
"""Arrays by model and name, or those who hold them."""


def held_elsewhere(weights: Weights) -> bool:
    """Return whether other processes hold some of these arrays."""
    return any(isinstance(state, HeldElsewhere) for state in weights.values())


def tell_committed(weights: Weights, path: Path) -> None:
    """Tell the processes that hold weights which committed file has them now."""
    if held_elsewhere(weights):
        stored = stored_weights(path)
        for model, state in weights.items():
            if isinstance(state, HeldElsewhere):
                state.committed(stored.get(model, StoredArrays(path, {})))


def arrange(arrays: Mapping[str, Shaped]) -> tuple[bytes, dict[str, Entry]]:
    """Return the header of the file with these arrays, and the entry of each."""
    names = sorted(arrays, key=lambda name: (_ORDER[arrays[name].dtype], name))
    header, places, end = {}, {}, 0
    for name in names:
        start, end = end, end + arrays[name].size
        shape = list(arrays[name].shape)
        header[name] = {"dtype": _NAMES[arrays[name].dtype], "shape": shape, "data_offsets": [start, end]}
        places[name] = start
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    entries = {name: Entry(arrays[name].dtype, arrays[name].shape, first + places[name]) for name in names}
    return struct.pack("<Q", len(text)) + text, entries


def stored_weights(path: Path) -> dict[str, StoredArrays]:
    """Return the arrays in a file of weights, by model and name; only its header is read."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    types = {short: name for name, short in _NAMES.items()}
    models: dict[str, dict[str, Entry]] = {}
    for key, value in header.items():
        model, name = key.split("/", 1)
        start = 8 + length + value["data_offsets"][0]
        models.setdefault(model, {})[name] = Entry(types[value["dtype"]], tuple(value["shape"]), start)
    return {model: StoredArrays(path, entries) for model, entries in models.items()}


def read_arrays(path: Path, entries: Mapping[str, Entry]) -> dict[str, NDArray[Any]]:
    """Read some arrays of a file."""
    arrays = {}
    with path.open("rb") as file:
        for name, entry in entries.items():
            file.seek(entry.start)
            arrays[name] = np.fromfile(file, entry.dtype, math.prod(entry.shape)).reshape(entry.shape)
    return arrays


def write_arrays(path: Path, entries: Mapping[str, Entry], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write some arrays to an existing file and flush it; raise FileNotFoundError if there is no such file."""
    handle = os.open(path, os.O_WRONLY)
    try:
        for name, entry in entries.items():
            data, place = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data, entry.start
            while len(data):
                written = os.pwrite(handle, data, place)
                data, place = data[written:], place + written
        os.fsync(handle)
    finally:
        os.close(handle)


def write_together(path: Path, weights: Weights) -> dict[str, Any]:
    """Write a file of weights, by model, some of which are elsewhere; return its size and SHA-256.

    The file appears under its name only when it is complete and flushed.
    """
    shapes: dict[str, Shaped] = {}
    for model, state in weights.items():
        layout = state.layout() if isinstance(state, HeldElsewhere) else _shapes(state)
        shapes |= {f"{model}/{name}": shape for name, shape in layout.items()}
    header, entries = arrange(shapes)
    size = len(header) + sum(shape.size for shape in shapes.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that was never used before: a worker of a killed run cannot write to it, nor to a file of another machine.
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}.part")
    try:
        with partial.open("wb") as file:
            file.write(header)
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
        digests = []
        for model, state in weights.items():
            own = {name: entries[f"{model}/{name}"] for name in _names(state)}
            if isinstance(state, HeldElsewhere):
                state.write(partial, own)
                digests.append(state.digest)
            else:
                write_arrays(partial, own, state)
        sha256 = next((found for digest in digests if (found := digest(partial))), None) or digest_of(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return {"size": size, "sha256": sha256}


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(state: Mapping[str, NDArray[Any]] | HeldElsewhere) -> Sequence[str]:
    return list(state.layout() if isinstance(state, HeldElsewhere) else state)


def _shapes(state: Mapping[str, NDArray[Any]]) -> dict[str, Shaped]:
    return {name: Shaped(str(array.dtype), array.shape) for name, array in state.items()}
