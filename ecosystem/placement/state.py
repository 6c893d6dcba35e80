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
from ecosystem.families.tensor_files import ArrayFile, Shaped
from ecosystem.placement.parts import DividedArrays, Target, Written, member_of, renumbered
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

    def _names(self) -> list[str]:
        """Return the names of the arrays of the whole cohort."""
        shapes = zip(self._parts, self._layouts, strict=True)
        return list(dict.fromkeys(renumbered(name, part.first) for part, layout in shapes for name in layout))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Fetch one array."""
        found = []
        for part, layout in zip(self._parts, self._layouts, strict=True):
            own = renumbered(name, -part.first)
            if own in layout:
                found += self._workers.run([Call(part, "arrays", (self._token, own))])
        if not found:
            raise KeyError(name)
        return np.concatenate(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def restore(self) -> None:
        """Bring the cohort back to this state."""
        for part, (base, journal) in zip(self._parts, self._places, strict=True):
            part.base, part.journal = base, list(journal)
        self._workers.run([Call(part, "load_kept", (self._token,)) for part in self._parts])

    def write(self, target: Target, number: int) -> list[Written]:
        """Let every part write its arrays to a file; write those of parts that do not see the folder."""
        calls = [Call(part, "write", (self._token, target, number + i)) for i, part in enumerate(self._parts)]
        found = self._workers.run(calls)
        return [one if isinstance(one, Written) else target.write(number + i, one) for i, one in enumerate(found)]

    def committed(self, arrays: DividedArrays) -> None:
        """Restore lost workers from committed files of this state from now on."""
        for part, base in zip(self._parts, divided(self._model, self._members, arrays, self._parts), strict=True):
            part.base, part.journal, part.kept[self._token] = base, [], (base, [])


def divided(
    model: str, members: int, state: Mapping[str, NDArray[Any]], parts: Sequence[Part]
) -> list[DividedArrays | dict[str, NDArray[Any]]]:
    """Divide a state of a whole cohort among its parts; raise DataError if it is that of another number of members."""
    stored = DividedArrays([state]) if isinstance(state, ArrayFile) else state
    shapes: Mapping[str, Any] = stored.shapes() if isinstance(stored, DividedArrays) else state
    for name, array in shapes.items():
        member = member_of(name)
        count = (array.shape[0] if array.shape else 0) if member is None else member + 1
        if count > members or (count < members and member is None):
            raise DataError(
                f'the stored weights of model "{model}" do not fit: "{name}" is of another number of members than '
                f"{members}."
            )
    if isinstance(stored, DividedArrays):
        return [stored.members(part.first, part.members) for part in parts]
    return [
        {
            renumbered(name, -part.first): array[part.first : part.first + part.members]
            if member_of(name) is None
            else array
            for name, array in state.items()
            if _in_part(name, part)
        }
        for part in parts
    ]


def folder_with(state: Mapping[str, NDArray[Any]]) -> Path | None:
    """Return the folder of the files that hold a state; None if it is in memory."""
    files = state.files if isinstance(state, DividedArrays) else [state] if isinstance(state, ArrayFile) else []
    return files[0].path.parent if files else None


def place_files(workers: Workers, parts: Sequence[Part], folder: Path) -> None:
    """Let every part read its base from files in a folder; send it to those that do not see the folder of the run."""
    # Another machine may have other files of these names, but not a marker that was made just now.
    marker = folder / f".{uuid.uuid4().hex}.part"
    marker.touch()
    try:
        seen = workers.run([Call(part, "load_files", (part.base, marker)) for part in parts])
    finally:
        marker.unlink(missing_ok=True)
    blind = [part for part, sees in zip(parts, seen, strict=True) if not sees]
    workers.run([Call(part, "load_arrays", (dict(part.base or {}),)) for part in blind])


def _in_part(name: str, part: Part) -> bool:
    member = member_of(name)
    return member is None or 0 <= member - part.first < part.members
