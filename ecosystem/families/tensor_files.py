"""Files of arrays in the format of safetensors, written and read one array at a time.

The file of a large model is never in memory as a whole. The bytes are those that the library ``safetensors`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
    "F32": np.float32,
    "U32": np.uint32,
    "I32": np.int32,
    "F16": np.float16,
    "U16": np.uint16,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""In the order in which the library writes arrays."""
_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items()}


def encoded(
    arrays: Mapping[str, NDArray[Any]], *, metadata: Mapping[str, str] | None = None
) -> Iterator[memoryview | bytes]:
    """Yield the content of a file of arrays, piece by piece; every array is asked for twice."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    kinds = {name: (array.dtype, array.shape, array.nbytes) for name, array in arrays.items()}
    places = {kind: place for place, kind in enumerate(_TYPES)}
    order = sorted(kinds, key=lambda name: (places[_NAMES[kinds[name][0]]], name))
    offset = 0
    for name in order:
        dtype, shape, size = kinds[name]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data


class ArrayFile(Mapping[str, NDArray[Any]]):
    """The arrays of a file whose names begin with a prefix, each read when it is asked for."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        """Read the header; raise OSError or ValueError if that is impossible."""
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        self._start = 8 + length
        self._entries = {
            name.removeprefix(prefix): entry
            for name, entry in header.items()
            if name.startswith(prefix) and name != "__metadata__"
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        dtype, (first, last) = np.dtype(_TYPES[entry["dtype"]]), entry["data_offsets"]
        count = (last - first) // dtype.itemsize
        return np.fromfile(self._path, dtype, count, offset=self._start + first).reshape(entry["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
