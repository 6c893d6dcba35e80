"""Locate and read scenario files and model presets, tell kinds of files apart, and resolve presets of presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ecosystem.errors import ScenarioError, nearest
from ecosystem.input_files import is_folder
from ecosystem.parsing import parse_toml


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file; raise ScenarioError with the file and the position of a syntax error."""
    try:
        return parse_toml(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ScenarioError(f"{file}: there is no such file{_similar_scenarios(file)}.") from None
    except IsADirectoryError:
        if (file / "scenario.toml").exists():
            way = "is the folder of a run; to resume it, give the file that began it; see also: ecosystem report, view"
        else:
            way = f"is a folder, not a scenario file; to write one for texts in it: ecosystem new NAME --text {file}"
        raise ScenarioError(f"{file}: {way}.") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from None
    except ValueError as error:
        raise ScenarioError(f"{file}: is not valid TOML: {error}.") from None
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror}.") from None


FileKind = Literal["scenario", "study", "frontier", "fit", "story"]
_RUN_WITH: dict[FileKind, tuple[str, str]] = {  # the command and the function that run each kind of file
    "scenario": ("run", "run"),
    "study": ("study", "study"),
    "frontier": ("threshold", "frontier"),
    "fit": ("fit", "fit"),
    "story": ("view --story", ""),
}


def file_kind(data: Mapping[str, Any]) -> FileKind:
    """Return the kind of file that these TOML data are from."""
    if {"sources", "web", "models", "trainers"} & data.keys():  # also with a key mistyped as one of a study
        return "scenario"
    if {"targets", "parameters"} & data.keys():
        return "fit"
    if "scenes" in data:
        return "story"
    if "path" in data or "limit" in data:
        return "frontier"
    return "study" if {"base", "arms", "axes", "measures", "seeds"} & data.keys() else "scenario"


def require_kind(data: Mapping[str, Any], file: Path, kind: FileKind) -> None:
    """Raise ScenarioError, naming the right command and function, if a file is of another kind."""
    actual = file_kind(data)
    if actual != kind:
        command, function = _RUN_WITH[actual]
        from_python = f" (in Python: ecosystem.{function})" if function else ""
        raise ScenarioError(
            f"{file}: is a {actual}, not a {kind}; run it with: ecosystem {command} {file}{from_python}"
        )


def _similar_scenarios(file: Path) -> str:
    """Suggest a bundled file of the same or a similar name, or a similarly named file in the same folder, if any."""
    shipped = bundled_files()
    if file.suffix and (candidate := shipped.get(file.stem)):
        return f"; a file of this name comes with ecosystem: {candidate}"
    names = [p.stem for p in file.parent.glob("*.toml")] if is_folder(file.parent) else []
    if hint := nearest(file.stem, names):
        return hint.replace('"?', '.toml"?')  # compared without the common suffix, which would dominate
    if not is_name(file):
        return ""
    return nearest(file.stem, shipped) or "; `ecosystem list scenarios` and `list studies` name those that come with it"


STUDIES = "studies"  # the subfolder of scenarios that holds studies and frontiers
FITS = "fits"  # the subfolder of scenarios that holds fits and their targets
STORIES = "stories"  # the subfolder of scenarios that holds stories for a class; their worlds are below it


def located(place: str | Path, *, prefer: str = "", runs: bool = False) -> Path:
    """Return the file that a path or the name of a bundled file means; with ``runs`` also a run folder.

    A path that exists is itself. Otherwise ``finite_web``, ``papers/vu_gpt2`` or ``vu_gpt2`` is a file of this name
    with the ending ``.toml``, in the current folder or else one that comes with ecosystem, first in the subfolder
    ``prefer``. A name without such a file is returned as it is; reading it reports the error.
    """
    path = Path(place)
    if is_folder(path):
        if (runs and (path / "scenario.toml").exists()) or not is_name(path):
            return path
    elif _exists(path) or not is_name(path):
        return path
    beside = path.with_name(f"{path.name}.toml")
    shipped, name = bundled_files(), path.as_posix()
    return beside if _exists(beside) else shipped.get(f"{prefer}/{name}", shipped.get(name, path))


def named_file(name: str, folder: Path) -> Path:
    """Return the file that a file in ``folder`` names: a path relative to ``folder`` or the current one, or a name.

    A name is that of a file in ``folder`` without ``.toml``, or of a bundled scenario. Raises ScenarioError if there
    is none.
    """
    for place in (folder / name, Path(name), folder / f"{name}.toml"):
        if _exists(place) and not is_folder(place):
            return place
    files = bundled_files(folder)
    if name in files:
        return files[name]
    scenarios = sorted(file for file in files if (STUDIES not in files[file].parts) and "/" not in file)
    top = [file for file in scenarios if files[file].parent.name == "scenarios"]
    raise ScenarioError(
        f'there is no scenario "{name}"{nearest(name, scenarios)}; give a path or one of {", ".join(top)}.'
    )


def is_name(path: Path) -> bool:
    """Return whether a path may be the name of a bundled file: it is relative, has no ending, and does not go up."""
    return not path.is_absolute() and not path.suffix and bool(path.parts) and ".." not in path.parts


def bundled_files(base: Path | None = None) -> dict[str, Path]:
    """Return the scenarios, studies and other files that come with ecosystem, by stem and by path without ending.

    If two share a name, the one in the nearer folder wins, in a folder the one less deep. Files below the current
    folder are given relative to it.
    """
    files: dict[str, Path] = {}
    for folder in bundled("scenarios", base):
        inside = sorted(folder.rglob("*.toml"), key=lambda file: (len(file.parts), file))
        for file in inside:
            shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            files.setdefault(file.relative_to(folder).with_suffix("").as_posix(), shown)
        for file in inside:
            shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            files.setdefault(file.stem, shown)
    return files


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder around it that cannot be entered
        return False


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
