"""Foundations: pre-trained weights and from-scratch tokenizers, cached as folders that ``transformers`` can open.

A cached folder is named after the fingerprint of everything that its content depends on. It is written under a
temporary name and renamed once complete, so readers never see an incomplete folder, and two processes can build the
same one at once. The hash of every file is stored in it; an altered folder is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import DataError, StoreError, is_full_disk
from ecosystem.families.base import BuildContext, Cohort
from ecosystem.families.requests import Budget, FitRequest
from ecosystem.families.training_spec import NOT_OF_FOUNDATIONS
from ecosystem.input_files import digest_of
from ecosystem.parsing import parse_json
from ecosystem.streams import Stream

_HASHES = "hashes.json"
_used: list[str] | None = None  # names of the folders returned by obtain(), while somebody asks for them
_LAYOUT = 1  # version of the files and of the numbers in them; raise it when a change to the code alters either


def fingerprint(values: Mapping[str, Any], human: pl.Series, **environment: Any) -> str:
    """Return 16 hexadecimal digits that depend on a family's fields, the human documents and library versions.

    ``values`` (the fields) and ``environment`` (seed, device, threads, …) are plain data.
    """
    documents = hashlib.sha256()
    for text in human.to_list():
        data = text.encode()
        documents.update(len(data).to_bytes(8, "little") + data)
    inputs = {
        "layout": _LAYOUT,
        "documents": documents.hexdigest(),
        "torch": version("torch"),
        "tokenizers": version("tokenizers"),
        "values": values,
        **environment,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def relevant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a family's plain values that its foundation depends on."""
    fields = {key: value for key, value in values.items() if key not in ("training", "foundation")}
    if values["init"] == "foundation":
        overrides = values["foundation"]
        without = {*overrides, *NOT_OF_FOUNDATIONS}
        fields["training"] = {key: value for key, value in values["training"].items() if key not in without}
        fields["foundation"] = overrides
    return fields


def require_documents(name: str, human: pl.Series) -> None:
    """Raise DataError if there are no documents to train a tokenizer or a foundation on."""
    if len(human) == 0:
        raise DataError(
            f'model "{name}" is trained from scratch, but the web begins without human documents; '
            "set web.initial.documents, or start from a checkpoint."
        )


def pretrain(cohort: Cohort, budget: Budget, stream: Stream, context: BuildContext) -> dict[str, NDArray[Any]]:
    """Train the only member of a cohort on the human documents; return its weights, without the member axis."""
    request = FitRequest(0, context.human, np.ones(len(context.human)), budget, None, "foundation", stream)
    cohort.fit([request], lambda _, done, total: context.progress("foundation", done, total))
    return {name: values[0] for name, values in cohort.state().items()}


def find(cache: Path, name: str) -> Path | None:
    """Return a cached folder if it is complete and unaltered, else None."""
    folder = cache / name
    try:
        hashes = parse_json((folder / _HASHES).read_text(encoding="utf-8"))
        intact = all(digest_of(folder / file) == value for file, value in hashes.items())
    except (OSError, ValueError, AttributeError):
        return None
    return folder if intact else None


def obtain(cache: Path, name: str, make: Callable[[], Callable[[Path], None]]) -> Path:
    """Return a cached folder; make it first if it is missing or altered.

    ``make()`` does the slow work and returns a function that writes the result to a folder. Raises StoreError if the
    cache cannot be written.
    """
    if _used is not None:
        _used.append(name)
    cached = find(cache, name)
    if cached is not None:
        return cached
    write = make()
    temporary = cache / f".{name}-{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            hashes = {path.name: digest_of(path) for path in sorted(temporary.iterdir())}
            (temporary / _HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
            _move(temporary, cache, name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except Exception as error:
        if not isinstance(error, OSError) and not is_full_disk(error):
            raise
        raise StoreError(
            f"the model cache {cache} cannot be written: {error}. Set another folder with --cache or ECOSYSTEM_CACHE."
        ) from error
    return cache / name


@contextmanager
def folders_used() -> Iterator[list[str]]:
    """Collect the names of the folders that :func:`obtain` returns in this context."""
    global _used
    outer, _used = _used, []
    try:
        yield _used
    finally:
        _used = outer


def contents(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the files of a cached folder, by name, for :func:`obtain` to write on another machine."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != _HASHES]
    return {path.name: np.fromfile(path, np.uint8) for path in paths}


def _move(temporary: Path, cache: Path, name: str) -> None:
    target = cache / name
    while True:
        try:
            temporary.rename(target)
            return
        except OSError:
            if find(cache, name) is not None:  # another process was first to write the same content
                return
            if not target.exists():
                raise
        # The existing folder is damaged. Rename it before deleting it, so that readers never see part of it.
        damaged = cache / f".{name}-{uuid.uuid4().hex[:8]}"
        try:
            target.rename(damaged)
        except FileNotFoundError:
            continue  # another process has renamed it
        shutil.rmtree(damaged, ignore_errors=True)
