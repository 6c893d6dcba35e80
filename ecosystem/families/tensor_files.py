"""Files of arrays in the format of safetensors, written and read one array at a time.

The file of a large model is never in memory as a whole. The bytes are those that the library ``safetensors`` writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "bfloat16": "BF16",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Types of arrays and their names in a file, in the order in which a file stores them."""
_ORDER = {name: place for place, name in enumerate(_NAMES)}
_TYPES = {short: name for name, short in _NAMES.items()}
_STORED = {"bfloat16": "uint16"}
"""Types that NumPy lacks, and those that their bits are read as; such arrays become float32."""


@dataclass(frozen=True)
class Shaped:
    """The type and the shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * np.dtype(_STORED.get(self.dtype, self.dtype)).itemsize


@dataclass(frozen=True)
class Entry(Shaped):
    """An array in a file: its type, its shape, and the position of its first byte."""

    start: int

    def rows(self, first: int, count: int) -> Entry:
        """Return the entry of some rows of this array."""
        size = self.size // max(1, self.shape[0])
        return Entry(self.dtype, (count, *self.shape[1:]), self.start + first * size)


def shapes_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Shaped]:
    """Return the type and shape of every array."""
    return {name: Shaped(str(array.dtype), array.shape) for name, array in arrays.items()}


def arrange(arrays: Mapping[str, Shaped], metadata: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, Entry]]:
    """Return the header of the file with these arrays, and the entry of each, in the order of the file."""
    names = sorted(arrays, key=lambda name: (_ORDER[arrays[name].dtype], name))
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        start, end = end, end + arrays[name].size
        shape = list(arrays[name].shape)
        header[name] = {"dtype": _NAMES[arrays[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, {name: _entry(header[name], 8 + len(text)) for name in names}


def _entry(value: Mapping[str, Any], first: int) -> Entry:
    """Return the entry of an array from the header of a file whose arrays begin at ``first``."""
    return Entry(_TYPES[value["dtype"]], tuple(value["shape"]), first + value["data_offsets"][0])


def encoded(
    arrays: Mapping[str, NDArray[Any]], *, metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview | bytes]:
    """Yield the content of a file of arrays, piece by piece; every array is asked for twice."""
    header, entries = arrange(shapes_of(arrays), metadata)
    yield header
    for name in entries:
        yield np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data


def rounded(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shaped]) -> Iterator[memoryview | bytes]:
    """Yield the content of a file of the same arrays, those in float32 rounded to bfloat16, piece by piece."""
    import torch

    kinds = {name: "bfloat16" if shape.dtype == "float32" else shape.dtype for name, shape in shapes.items()}
    header, entries = arrange({name: Shaped(kinds[name], shape.shape) for name, shape in shapes.items()})
    yield header
    for name in entries:
        values = np.ascontiguousarray(arrays[name]).reshape(-1)
        if kinds[name] == "bfloat16":
            values = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
        yield values.view(np.uint8).data


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return what the header of a file says of every array, and where the first one begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {key: value for key, value in header.items() if key != "__metadata__"}, 8 + length


def matrices_in(path: Path) -> list[str]:
    """Return the names of the matrices in a file; raise OSError or ValueError if its header cannot be read."""
    return [name for name, value in _header(path)[0].items() if len(value["shape"]) == 2]


class ArrayFile(Mapping[str, NDArray[Any]]):
    """Arrays in a file, each read when it is asked for; those in bfloat16 are returned as float32."""

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self.path, self.entries = path, dict(entries)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header of a file and return its arrays; raise OSError or ValueError if that is impossible."""
        header, first = _header(path)
        return cls(path, {key: _entry(value, first) for key, value in header.items()})

    def by_model(self) -> dict[str, ArrayFile]:
        """Return the arrays ``<model>/<name>`` by model and name."""
        models: dict[str, dict[str, Entry]] = {}
        for key, entry in self.entries.items():
            model, name = key.split("/", 1)
            models.setdefault(model, {})[name] = entry
        return {model: self.select(entries) for model, entries in models.items()}

    def select(self, entries: Mapping[str, Entry]) -> ArrayFile:
        """Return other arrays, or parts of arrays, of the same file."""
        return ArrayFile(self.path, entries)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read one array."""
        entry = self.entries[name]
        stored, count = _STORED.get(entry.dtype, entry.dtype), math.prod(entry.shape)
        values = np.fromfile(self.path, stored, count, offset=entry.start).reshape(entry.shape)
        if entry.dtype != "bfloat16":
            return values
        return (values.astype(np.uint32) << 16).view(np.float32)  # the upper half of the bits of a float32

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
