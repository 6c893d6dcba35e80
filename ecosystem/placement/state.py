"""States of placed cohorts: their arrays stay in the workers, which write them to files themselves."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.families.tensor_files import ArrayFile, Entry, Shaped
from ecosystem.placement.weights_file import write_arrays
from ecosystem.placement.workers import Base, Call, Part, Workers, forget_later

_tokens = itertools.count()


class PlacedState(Mapping[str, NDArray[Any]]):
    """The state of a placed cohort at one moment; an array is fetched only if it is asked for."""

    def __init__(self, workers: Workers, model: str, members: int, parts: Sequence[Part]) -> None:
        """Let every part keep its present state."""
        self._workers, self._model, self._members, self._parts = workers, model, members, parts
        self._token = next(_tokens)
        self._places: list[tuple[Base, list[Call]]] = [(part.base, list(part.journal)) for part in parts]
        self._layouts: list[dict[str, Shaped]] = workers.run([Call(part, "keep", (self._token,)) for part in parts])
        for part in parts:
            part.kept[self._token] = part.base, list(part.journal)
            forget_later(workers, part, self._token, self)

    def layout(self) -> dict[str, Shaped]:
        """Return the type and shape of every array, with all members."""
        layout: dict[str, Shaped] = {}
        for part, shapes in zip(self._parts, self._layouts, strict=True):
            for name, shape in shapes.items():
                stacked = not _separate(name)
                whole = Shaped(shape.dtype, (self._members, *shape.shape[1:])) if stacked else shape
                layout[_global(name, part)] = whole
        return layout

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Fetch one array."""
        separate, found = _separate(name), []
        for part, layout in zip(self._parts, self._layouts, strict=True):
            own = _local(name, part) if separate else name
            if own in layout:
                found += self._workers.run([Call(part, "arrays", (self._token, own))])
        if not found:
            raise KeyError(name)
        return np.concatenate(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout())

    def __len__(self) -> int:
        return len(self.layout())

    def restore(self) -> None:
        """Bring the cohort back to this state."""
        for part, (base, journal) in zip(self._parts, self._places, strict=True):
            part.base, part.journal = base, list(journal)
        self._workers.run([Call(part, "load_kept", (self._token,)) for part in self._parts])

    def write(self, path: Path, entries: Mapping[str, Entry]) -> None:
        """Let every part write its arrays to an existing file; write those of parts that do not see it."""
        own = [_entries(entries, part) for part in self._parts]
        own = [
            {name: entry for name, entry in mine.items() if name in layout}
            for mine, layout in zip(own, self._layouts, strict=True)
        ]
        calls = [Call(part, "write", (self._token, path, mine)) for part, mine in zip(self._parts, own, strict=True)]
        for mine, unwritten in zip(own, self._workers.run(calls), strict=True):
            if unwritten:
                write_arrays(path, mine, unwritten)

    def digest(self, path: Path) -> str | None:
        """Return the SHA-256 of a file, computed by a worker; None if it does not see the file."""
        [digest] = self._workers.run([Call(self._parts[0], "digest", (path,))])
        sha256: str | None = digest
        return sha256

    def committed(self, arrays: ArrayFile) -> None:
        """Restore lost workers from a committed file of this state from now on."""
        for part, base in zip(self._parts, divided(self._model, self._members, arrays, self._parts), strict=True):
            part.base, part.journal, part.kept[self._token] = base, [], (base, [])


def divided(
    model: str, members: int, state: Mapping[str, NDArray[Any]], parts: Sequence[Part]
) -> list[ArrayFile | dict[str, NDArray[Any]]]:
    """Divide a state of a whole cohort among its parts; raise DataError if it is that of another number of members."""
    shapes: Mapping[str, Any] = state.entries if isinstance(state, ArrayFile) else state
    for name, array in shapes.items():
        count = int(name.partition("/")[0]) + 1 if _separate(name) else array.shape[0] if array.shape else 0
        if count > members or (count < members and not _separate(name)):
            raise DataError(
                f'the stored weights of model "{model}" do not fit: "{name}" is of another number of members than '
                f"{members}."
            )
    if isinstance(state, ArrayFile):
        return [ArrayFile(state.path, _entries(state.entries, part)) for part in parts]
    return [
        {
            _local(name, part): array if _separate(name) else array[part.first : part.first + part.members]
            for name, array in state.items()
            if _in_part(name, part)
        }
        for part in parts
    ]


def place_file(workers: Workers, parts: Sequence[Part], path: Path) -> None:
    """Let every part read its base from a file; send it to those that do not see the folder of the run."""
    # Another machine may have another file of this name, but not a marker that was made just now.
    marker = path.with_name(f".{uuid.uuid4().hex}.part")
    marker.touch()
    try:
        calls = []
        for part in parts:
            assert isinstance(part.base, ArrayFile)
            calls.append(Call(part, "load_file", (path, part.base.entries, marker)))
        seen = workers.run(calls)
    finally:
        marker.unlink(missing_ok=True)
    blind = [part for part, sees in zip(parts, seen, strict=True) if not sees]
    workers.run([Call(part, "load_arrays", (dict(part.base or {}),)) for part in blind])


def _separate(name: str) -> bool:
    """Return whether an array belongs to one member, and does not have members as its leading axis."""
    number, slash, _ = name.partition("/")
    return bool(slash) and number.isdecimal()


def _in_part(name: str, part: Part) -> bool:
    return not _separate(name) or 0 <= int(name.partition("/")[0]) - part.first < part.members


def _local(name: str, part: Part) -> str:
    """Return the name, in a part, of an array of the whole cohort."""
    number, _, rest = name.partition("/")
    return f"{int(number) - part.first}/{rest}" if _separate(name) else name


def _global(name: str, part: Part) -> str:
    """Return the name, in the whole cohort, of an array of a part."""
    number, _, rest = name.partition("/")
    return f"{int(number) + part.first}/{rest}" if _separate(name) else name


def _entries(entries: Mapping[str, Entry], part: Part) -> dict[str, Entry]:
    """Return the entries of a part's arrays in a file of the whole cohort, by their names in the part."""
    return {
        _local(name, part): entry if _separate(name) else entry.rows(part.first, part.members)
        for name, entry in entries.items()
        if _in_part(name, part)
    }
