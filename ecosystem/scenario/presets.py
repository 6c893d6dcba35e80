"""Locate and read scenario files and model presets, tell kinds of files apart, and resolve presets of presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ecosystem.errors import ScenarioError, nearest
from ecosystem.parsing import parse_toml


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; raise ScenarioError with the file and the position of a syntax error."""
    try:
        return parse_toml(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ScenarioError(f"{file}: there is no such file{_similar_scenarios(file)}.") from None
    except IsADirectoryError:
        raise ScenarioError(f"{file}: is a folder, not a scenario file.") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    except ValueError as error:
        raise ScenarioError(f"{file}: is not valid TOML: {error}.") from None
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror}.") from None


FileKind = Literal["scenario", "study", "frontier", "fit"]
_RUN_WITH: dict[FileKind, tuple[str, str]] = {  # the command and the function that run each kind of file
    "scenario": ("run", "run"),
    "study": ("study", "study"),
    "frontier": ("threshold", "frontier"),
    "fit": ("fit", "fit"),
}


def file_kind(data: Mapping[str, Any]) -> FileKind:
    """Return the kind of file that these TOML data are from."""
    if {"sources", "web", "models", "trainers"} & data.keys():  # also with a key mistyped as one of a study
        return "scenario"
    if {"targets", "parameters"} & data.keys():
        return "fit"
    if "path" in data or "limit" in data:
        return "frontier"
    return "study" if {"base", "arms", "axes", "measures", "seeds"} & data.keys() else "scenario"


def require_kind(data: Mapping[str, Any], file: Path, kind: FileKind) -> None:
    """Raise ScenarioError, naming the right command and function, if a file is of another kind."""
    actual = file_kind(data)
    if actual != kind:
        command, function = _RUN_WITH[actual]
        raise ScenarioError(
            f"{file}: is a {actual}, not a {kind}; run it with: ecosystem {command} {file} "
            f"(in Python: ecosystem.{function})"
        )


def _similar_scenarios(file: Path) -> str:
    """Suggest the bundled file of the same name, or a similarly named file in the same folder, if there is one."""
    for folder in bundled("scenarios"):
        for candidate in (folder / file.name, folder / STUDIES / file.name, folder / FITS / file.name):
            if candidate.is_file():
                return f"; a file of this name comes with ecosystem: {candidate}"
    names = [p.stem for p in file.parent.glob("*.toml")] if file.parent.is_dir() else []
    return nearest(file.stem, names).replace(
        '"?', '.toml"?'
    )  # compared without the common suffix, which would dominate


STUDIES = "studies"  # the subfolder of scenarios that holds studies and frontiers
FITS = "fits"  # the subfolder of scenarios that holds fits and their targets


def bundled(folder: Literal["models", "scenarios"], base: Path | None = None) -> list[Path]:
    """Return the folders that are searched for presets or scenarios, nearest first."""
    package = Path(__file__).parent.parent
    candidates = [Path.cwd() / folder, package.parent / folder, package / "_bundled" / folder]
    if base is not None:
        candidates[1:1] = [base / folder, base.parent / folder]
    return [path for path in dict.fromkeys(p.resolve() for p in candidates) if path.is_dir()]


def presets(base: Path | None = None) -> dict[str, Path]:
    """Return every model preset by name; if two share a name, the nearer one wins."""
    files: dict[str, Path] = {}
    for folder in bundled("models", base):
        for file in sorted(folder.glob("*.toml")):
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
        raise ScenarioError(f"presets form a cycle: {' -> '.join([*chain, name])}")
    if not files:
        raise ScenarioError(
            f'preset: there is no model preset "{name}", nor any other, since ecosystem does not find its own files; '
            "install it with pip (it does not run from a zip archive)"
        )
    if name not in files:
        raise ScenarioError(
            f'preset: there is no model preset "{name}"{nearest(name, files)}; available: {", ".join(sorted(files))}'
        )
    preset = with_preset(read_toml(files[name]), base, (*chain, name))
    overrides = {key: value for key, value in data.items() if key != "preset"}
    if overrides.get("kind", preset.get("kind")) != preset.get("kind"):
        raise ScenarioError(
            f'preset "{name}" is of kind {preset.get("kind")}, but kind = "{overrides["kind"]}" is set too; remove kind'
        )
    return _merge(preset, overrides)


def _merge(base: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` updated with ``overrides``, table by table."""
    merged = dict(base)
    for key, value in overrides.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged
