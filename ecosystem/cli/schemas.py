"""JSON Schemas for editors: they complete and check files, also files that extend others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from ecosystem.cli.listing import json_schema
from ecosystem.runs.files import write_atomically
from ecosystem.scenario.extending import EXTENDS, WITHOUT
from ecosystem.scenario.presets import FileKind

FOLDER = "schemas"  # beside shipped files, whose first lines (#:schema) name the schemas in it
MODEL = "model"  # the schema of presets of models
KINDS = (*get_args(FileKind), MODEL)
KINDED = ("sources", "models", "policies")  # sections whose entries have a kind
ANYTHING: dict[str, Any] = {}  # of an anyOf that only lists what an editor may complete


def editor_schema(what: str) -> dict[str, Any]:
    """Return the schema of a sort of files, in which a file that extends another needs no key. Stories extend nothing.

    Tables of such a file are checked by `ecosystem check` only, since what they lack may be in the other file. A choice
    is decided by the key that makes it, so that an editor marks the value that is wrong rather than the whole file.
    """
    if what == MODEL:
        models = json_schema("scenario")
        entry = models["properties"]["models"]["additionalProperties"]
        definitions = _reached(entry, models["$defs"])
        return {"$schema": models["$schema"], "$defs": definitions, **_by_kind(entry, definitions)}
    whole = json_schema(what)  # type: ignore[arg-type]
    if what == "story":
        return whole
    definitions = whole.pop("$defs", {})
    for section in KINDED if what == "scenario" else ():
        table = whole["properties"][section]
        table["additionalProperties"] = _by_kind(table["additionalProperties"], definitions)
    extended = {
        "type": "object",
        "properties": {
            EXTENDS: {"type": "string", "description": "the file that this one extends: a path, or a bundled name"},
            WITHOUT: {
                "type": "array",
                "items": {"type": "string"},
                "description": "dotted paths of what is not taken over from it, such as trainers.naive",
            },
            **{key: {"description": value.get("description", "")} for key, value in whole["properties"].items()},
        },
        "required": [EXTENDS],
        "additionalProperties": False,
    }
    draft = whole.pop("$schema")
    definitions = {**definitions, "whole": whole, "extended": extended}
    whole_file, extension = {"$ref": "#/$defs/whole"}, {"$ref": "#/$defs/extended"}
    return {
        "$schema": draft,
        "$defs": definitions,
        "if": {"type": "object", "required": [EXTENDS]},
        "then": extension,
        "else": whole_file,
        "anyOf": [whole_file, extension, ANYTHING],
    }


def _by_kind(entry: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts what ``entry``, an ``anyOf`` of kinds, accepts, and names what is wrong with one."""
    kinds = {definitions[_name(option)]["properties"]["kind"]["const"]: option for option in _referring(entry)}
    chosen: dict[str, Any] = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(kinds)}},
        "allOf": [
            {"if": {"required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": option}
            for kind, option in kinds.items()
        ],
    }
    for preset in [option for option in entry["anyOf"] if option not in kinds.values()]:
        chosen = {"if": {"type": "object", "required": preset["required"]}, "then": preset, "else": chosen}
    return {**chosen, "anyOf": [*entry["anyOf"], ANYTHING]}


def _referring(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [option for option in entry["anyOf"] if "$ref" in option]


def write_schemas(folder: Path, kinds: tuple[str, ...] = KINDS) -> list[Path]:
    """Write the schemas of some sorts of files into a folder, one ``<kind>.json`` each; return the files."""
    files = [folder / f"{kind}.json" for kind in kinds]
    for file, kind in zip(files, kinds, strict=True):
        write_atomically(file, schema_text(kind).encode())
    return files


def schema_text(what: str) -> str:
    """Return the schema of a sort of files as text with a line for each value, so that changes to it can be read."""
    return json.dumps(editor_schema(what), indent=1, ensure_ascii=False) + "\n"


def _reached(start: object, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions that ``start`` refers to, directly or through others."""
    found: set[str] = set()
    new = _references(start)
    while new:
        found |= new
        new = {name for each in new for name in _references(definitions[each])} - found
    return {name: definition for name, definition in definitions.items() if name in found}


def _references(part: object) -> set[str]:
    if isinstance(part, dict):
        own = {_name(part)} if "$ref" in part else set()
        return own.union(*map(_references, part.values()))
    return set().union(*map(_references, part)) if isinstance(part, list) else set()


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
