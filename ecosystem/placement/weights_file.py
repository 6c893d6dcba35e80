"""Files of weights that several processes write together, each its own members.

The file is the one that ``safetensors.numpy.save`` makes of all arrays, byte for byte. Its header depends on names,
types and shapes alone, so it is written first, and every process then writes its bytes where they belong.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ecosystem.families.tensor_files import ArrayFile, Entry, Shaped, arrange, shapes_of
from ecosystem.input_files import digest_of


@runtime_checkable
class HeldElsewhere(Protocol):
    """Arrays that other processes hold, which write them to a file themselves."""

    def layout(self) -> Mapping[str, Shaped]:
        """Return the type and shape of every array."""

    def write(self, path: Path, entries: Mapping[str, Entry]) -> None:
        """Write all arrays to an existing file, each where its entry says."""

    def digest(self, path: Path) -> str | None:
        """Return the SHA-256 of a file, computed where the arrays are; None if the file is not seen there."""

    def committed(self, arrays: ArrayFile) -> None:
        """Learn that these arrays are now in a committed file, from which they can be restored."""


Weights = Mapping[str, Mapping[str, NDArray[Any]] | HeldElsewhere]
"""Arrays by model and name, or those who hold them."""


def held_elsewhere(weights: Weights) -> bool:
    """Return whether other processes hold some of these arrays."""
    return any(isinstance(state, HeldElsewhere) for state in weights.values())


def tell_committed(weights: Weights, path: Path) -> None:
    """Tell the processes that hold weights which committed file has them now."""
    if held_elsewhere(weights):
        stored = ArrayFile.open(path).by_model()
        for model, state in weights.items():
            if isinstance(state, HeldElsewhere):
                state.committed(stored.get(model, ArrayFile(path, {})))


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
    layouts = {
        model: state.layout() if isinstance(state, HeldElsewhere) else shapes_of(state)
        for model, state in weights.items()
    }
    shapes = {f"{model}/{name}": shape for model, layout in layouts.items() for name, shape in layout.items()}
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
            own = {name: entries[f"{model}/{name}"] for name in layouts[model]}
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
