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


def editor_schema(what: str) -> dict[str, Any]:
    """Return the schema of a sort of files, in which a file that extends another needs no key.

    Tables of such a file are checked by `ecosystem check` only, since what they lack may be in the other file.
    """
    if what == MODEL:
        models = json_schema("scenario")
        options = [{"$ref": f"#/$defs/{name}"} for name in models["$defs"] if name.startswith("models_")]
        return {"$schema": models["$schema"], "$defs": models["$defs"], "anyOf": options}
    whole = json_schema(what)  # type: ignore[arg-type]
    head: dict[str, Any] = {key: whole.pop(key) for key in ("$schema", "$defs") if key in whole}
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
    return {**head, "anyOf": [whole, extended]}


def write_schemas(folder: Path, kinds: tuple[str, ...] = KINDS) -> list[Path]:
    """Write the schemas of some sorts of files into a folder, one ``<kind>.json`` each; return the files."""
    files = [folder / f"{kind}.json" for kind in kinds]
    for file, kind in zip(files, kinds, strict=True):
        write_atomically(file, json.dumps(editor_schema(kind)).encode())
    return files
