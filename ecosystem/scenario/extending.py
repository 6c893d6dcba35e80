"""Read a file that extends another: ``extends = "finite_web.toml"`` at its top, with the keys that differ.

Tables are merged, and all other values replaced. An entry of sources, models or policies whose kind or preset differs
replaces the other one as a whole, since the fields of one kind have no meaning for another. ``without`` beside
``extends`` lists what is not taken over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecosystem.errors import ScenarioError, nearest
from ecosystem.input_files import InputFiles, expanded
from ecosystem.scenario.presets import named_file, read_toml

EXTENDS, WITHOUT = "extends", "without"
_DEFINING = ("kind", "preset")
_KINDS = ("sources", "models", "policies")
_PATHS = re.compile(
    r"sources\.[^.]+\.(path|dataset)|models\.[^.]+\.(init|tokenizer)|web\.path"
    r"|base|worlds\.posterior|scenario|targets"  # of studies, searches and fits
)
_PROBLEM = re.compile(r"([\w-]+(?:\.[\w-]+)*)(: .*)", re.DOTALL)


class FileValues(dict[str, Any]):
    """The values of a file and of those that it extends; ``layers`` are these files with their own values, it first."""

    def __init__(self, values: Mapping[str, Any], layers: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
        super().__init__(values)
        self.layers = layers

    def origin(self, path: str) -> Path:
        """Return the file that sets the value at a dotted path, or else the nearest table around it."""
        keys = path.split(".")
        for count in range(len(keys), 0, -1):
            for file, values in self.layers:
                if _sets(values, keys[:count]):
                    return file
        return self.layers[0][0]

    def explained(self, error: ScenarioError, where: str) -> ScenarioError:
        """Return an error of these values with the file that a key is from, if it is not the first one.

        The lines of the error begin with ``where`` and a dotted path.
        """
        lines = []
        for line in str(error).splitlines():
            problem = _PROBLEM.fullmatch(line.removeprefix(f"{where}: "))
            if problem and (origin := self.origin(problem[1])) != self.layers[0][0]:
                line = f"{where}: {problem[1]} (from {origin}){problem[2]}"
            lines.append(line)
        return ScenarioError("\n".join(lines))


def read_file(file: Path, chain: tuple[Path, ...] = ()) -> FileValues:
    """Read a TOML file and the files that it extends; raise ScenarioError if one is missing, or they form a cycle."""
    own = read_toml(file)
    if EXTENDS not in own:
        if WITHOUT in own:
            raise ScenarioError(
                f"{file}: {WITHOUT}: removes entries of the file that {EXTENDS} names, but this file extends none."
            )
        return FileValues(own, [(file, own)])
    name, removed = own.pop(EXTENDS), own.pop(WITHOUT, [])
    if not isinstance(name, str) or not name:
        raise ScenarioError(
            f"{file}: {EXTENDS}: give the path of one file, or the name of a bundled one, in quotes, not {name!r}."
        )
    chain = (*chain, file)
    try:
        parent = named_file(name, file.parent)
    except ScenarioError as error:
        raise ScenarioError(f"{file}: {EXTENDS}: {error}") from None
    if parent.resolve() in [each.resolve() for each in chain]:
        cycle = " -> ".join(map(str, [*chain, parent]))
        raise ScenarioError(f"{file}: {EXTENDS}: files extend each other in a cycle ({cycle}); remove one of the keys.")
    base = read_file(parent, chain)
    if not isinstance(removed, list) or not all(isinstance(path, str) and path for path in removed):
        raise ScenarioError(f'{file}: {WITHOUT}: give a list of dotted paths, such as ["trainers.naive"].')
    for path in removed:
        if problem := _not_there(base, path):
            raise ScenarioError(f"{file}: {WITHOUT}: {parent} has no {path}{problem}.")
    moved = _remaining(_moved(base, parent.parent, file.parent), removed)
    layers = [(layer, _remaining(values, removed)) for layer, values in base.layers]
    return FileValues(merged(moved, own), [(file, own), *layers])


def merged(base: Mapping[str, Any], own: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of ``base`` with those of ``own`` in their place, table by table."""
    values = dict(base)
    for key, value in own.items():
        inner = values.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping) and not _replaces(inner, value, (*path, key)):
            values[key] = merged(inner, value, (*path, key))
        else:
            values[key] = value
    return values


def _remaining(values: Mapping[str, Any], removed: Sequence[str]) -> dict[str, Any]:
    """Return values without those at dotted paths, and without the knobs that would turn what is removed."""
    kept = _without(values, removed)
    if isinstance(knobs := kept.get("knobs"), list):
        inside = tuple(f"{path}." for path in removed)
        kept["knobs"] = [k for k in knobs if not (isinstance(k, Mapping) and f"{k.get('path')}.".startswith(inside))]
    return kept


def _without(values: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return values without those at dotted paths, where there are such; a key may itself have dots."""
    kept = {}
    for key, value in values.items():
        if key not in paths:
            inner = [path.removeprefix(f"{key}.") for path in paths if path.startswith(f"{key}.")]
            kept[key] = _without(value, inner) if inner and isinstance(value, Mapping) else value
    return kept


def _not_there(values: Mapping[str, Any], path: str, before: str = "") -> str:
    """Return the end of a sentence that says why values have nothing to remove at a dotted path; "" if they have."""
    if path in values:
        return ""
    for key, value in values.items():
        if path.startswith(f"{key}."):
            if isinstance(value, Mapping):
                return _not_there(value, path.removeprefix(f"{key}."), f"{before}{key}.")
            return f": {before}{key} holds no names; remove all of it, or set it anew"
    where = f"in [{before.removesuffix('.')}]" if before else "at its top"
    return f"{nearest(path.partition('.')[0], values)}; {where} it has {', '.join(values) or 'nothing'}"


def _replaces(inner: Mapping[str, Any], value: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Return whether an entry is of another kind or preset than the one it is merged with."""
    is_entry = len(path) == 2 and path[0] in _KINDS
    return is_entry and any(key in value and value[key] != inner.get(key) for key in _DEFINING)


def _sets(values: Any, keys: Sequence[str]) -> bool:
    """Return whether values hold something at a path; positions in lists are numbers."""
    for key in keys:
        if isinstance(values, list):
            if not key.isdigit() or int(key) >= len(values):
                return False
            values = values[int(key)]
        elif isinstance(values, Mapping) and key in values:
            values = values[key]
        else:
            return False
    return True


def _moved(values: Mapping[str, Any], folder: Path, target: Path, path: str = "") -> dict[str, Any]:
    """Return values with the paths that are found only beside their own file given relative to ``target``."""
    moved = {}
    for key, value in values.items():
        place = f"{path}{key}"
        if isinstance(value, Mapping):
            value = _moved(value, folder, target, f"{place}.")
        elif isinstance(value, str) and _PATHS.fullmatch(place) and _only_beside(value, folder, target):
            value = Path(os.path.relpath(folder / value, target)).as_posix()
        moved[key] = value
    return moved


def _only_beside(value: str, folder: Path, target: Path) -> bool:
    """Return whether a relative path or pattern matches something in ``folder``, but not where it is sought first."""
    if expanded(value).is_absolute() or folder.resolve() == target.resolve():
        return False
    here, beside, there = (InputFiles("", "", place).matches(value) for place in (Path.cwd(), target, folder))
    return bool(there) and not here and not beside
