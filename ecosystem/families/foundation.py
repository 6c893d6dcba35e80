"""The cache of foundations and from-scratch tokenizers: folders by fingerprint that ``transformers`` can open.

An entry is written to a folder of its own and renamed into place when it is complete, so that a reader never sees half
of one and two processes can build the same one at once. Every file's hash is stored with it; an altered entry is
rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from ecosystem.errors import DataError, StoreError

_HASHES = "hashes.json"
_LAYOUT = 1  # of the entries and of the numbers in them; raised when a change of the engine changes either


def fingerprint(values: Mapping[str, Any], human: pl.Series, **surroundings: Any) -> str:
    """Return 16 hexadecimal digits that change whenever what they name could: values, documents, versions.

    ``values`` and ``surroundings`` (seed, device, threads ...) are plain data.
    """
    documents = hashlib.sha256()
    for text in human.to_list():
        data = text.encode()
        documents.update(len(data).to_bytes(8, "little") + data)
    named = {
        "layout": _LAYOUT,
        "documents": documents.hexdigest(),
        "torch": version("torch"),
        "tokenizers": version("tokenizers"),
        "values": values,
        **surroundings,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def relevant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a family's plain values what its foundation does not depend on."""
    kept = {key: value for key, value in values.items() if key not in ("training", "foundation")}
    if values["init"] == "foundation":
        own = values["foundation"]
        kept["training"] = {key: value for key, value in values["training"].items() if key not in own}
        kept["foundation"] = own
    return kept


def require_documents(name: str, human: pl.Series) -> None:
    """Raise DataError if there is nothing to train a tokenizer and a foundation on."""
    if len(human) == 0:
        raise DataError(
            f'model "{name}" is trained from scratch, but the web begins without human documents; '
            "give web.initial.documents, or start from a checkpoint."
        )


def find(cache: Path, name: str) -> Path | None:
    """Return the entry's folder if it is complete and every file is as it was written, else None."""
    folder = cache / name
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        whole = all(_hash(folder / file) == value for file, value in hashes.items())
    except (OSError, ValueError, AttributeError):
        return None
    return folder if whole else None


def obtain(cache: Path, name: str, make: Callable[[], Callable[[Path], None]]) -> Path:
    """Return the entry's folder, making it if there is none or it was altered.

    ``make()`` does the slow work and returns the function that writes the result into a given folder. Raises StoreError
    if the cache cannot be written.
    """
    found = find(cache, name)
    if found is not None:
        return found
    write = make()
    building = cache / f".{name}-{uuid.uuid4().hex[:8]}"
    try:
        building.mkdir(parents=True)
        try:
            write(building)
            hashes = {path.name: _hash(path) for path in sorted(building.iterdir())}
            (building / _HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
            _move(building, cache, name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"the model cache {cache} cannot be written: {error}. Give another folder with --cache or ECOSYSTEM_CACHE."
        ) from error
    return cache / name


def _move(building: Path, cache: Path, name: str) -> None:
    target = cache / name
    while True:
        try:
            building.rename(target)
            return
        except OSError:
            if find(cache, name) is not None:  # another process was quicker, with the same content
                return
            if not target.exists():
                raise
        # What stands there is damaged: take it away under another name first, so that readers never see half of it.
        damaged = cache / f".{name}-{uuid.uuid4().hex[:8]}"
        try:
            target.rename(damaged)
        except FileNotFoundError:
            continue  # another process took it away
        shutil.rmtree(damaged, ignore_errors=True)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
