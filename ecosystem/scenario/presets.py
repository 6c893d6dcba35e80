"""Locate and read scenario files and model presets, and resolve presets that build on one another."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ecosystem.errors import ScenarioError, nearest


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; raise ScenarioError that names the file, and the place of a syntax error."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ScenarioError(f"{file}: there is no such file{_scenarios_beside(file)}.") from None
    except IsADirectoryError:
        raise ScenarioError(f"{file}: is a folder, not a scenario file.") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{file}: is not valid TOML: {error}.") from None
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror}.") from None


def _scenarios_beside(file: Path) -> str:
    names = [p.stem for p in file.parent.glob("*.toml")] if file.parent.is_dir() else []
    return nearest(file.stem, names).replace('"?', '.toml"?')  # the endings are all alike and would decide


STUDIES = "studies"  # the folder of scenarios in which studies and frontiers lie


def bundled(folder: Literal["models", "scenarios"], base: Path | None = None) -> list[Path]:
    """Return the folders that are searched for presets or scenarios, nearest first."""
    package = Path(__file__).parent.parent
    places = [Path.cwd() / folder, package.parent / folder, package / "_bundled" / folder]
    if base is not None:
        places[1:1] = [base / folder, base.parent / folder]
    return [place for place in dict.fromkeys(p.resolve() for p in places) if place.is_dir()]


def presets(base: Path | None = None) -> dict[str, Path]:
    """Return every model preset by name; where two share a name, the nearer one."""
    files: dict[str, Path] = {}
    for place in bundled("models", base):
        for file in sorted(place.glob("*.toml")):
            if file.is_file():
                files.setdefault(file.stem, file)
    return files


def with_preset(data: Mapping[str, Any], base: Path | None, chain: tuple[str, ...] = ()) -> dict[str, Any]:
    """Replace ``preset = "name"`` by the contents of that file, overridden by the other keys of ``data``."""
    if "preset" not in data:
        return dict(data)
    name = str(data["preset"])
    files = presets(base)
    if name in chain:
        raise ScenarioError(f"presets refer to one another in a circle: {' -> '.join([*chain, name])}")
    if name not in files:
        raise ScenarioError(
            f'preset: there is no model preset "{name}"{nearest(name, files)}; there are {", ".join(sorted(files))}'
        )
    below = with_preset(read_toml(files[name]), base, (*chain, name))
    own = {key: value for key, value in data.items() if key != "preset"}
    if own.get("kind", below.get("kind")) != below.get("kind"):
        raise ScenarioError(
            f'preset "{name}" is of kind {below.get("kind")}, but kind = "{own["kind"]}" is given too; leave kind out'
        )
    return _merge(below, own)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged
