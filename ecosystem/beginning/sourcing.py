"""Choose the source that reads a folder or file of texts: its kind, its column, and where documents end."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from ecosystem.errors import DataError, nearest
from ecosystem.input_files import COMPRESSED, InputFiles, is_folder, summary
from ecosystem.parsing import parse_json
from ecosystem.sources.base import SOURCES
from ecosystem.sources.files import FileSource

KINDS = {
    **dict.fromkeys((".txt", ".text", ".md", ".tokens", ".raw"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".parquet": "parquet",
}
COLUMNS = ("text", "content", "body", "document", "article", "story", "abstract", "completion", "prompt")
_COMPRESSION = re.compile("(" + "|".join(map(re.escape, COMPRESSED)) + ")$")
_GLOB = re.compile(r"[*?\[]")
_TRIED = 200  # documents that are read to see where documents end, and lines to find the column
_SHORT_FILE = 1500  # words; a folder of files of at most so many words holds one document a file
_NAME = "texts"  # of the source, in errors that are worded for files
_FEWEST = 20  # documents between blank lines, for blank lines to end documents


@dataclass(frozen=True)
class ChosenSource:
    """A source for texts; ``fields`` are its keys in a scenario, and ``notes`` say what was chosen, in sentences."""

    source: FileSource
    fields: dict[str, Any]
    notes: list[str]
    base: Path
    place: Path

    def texts(self) -> Iterator[str | None]:
        """Yield the stored texts; None: missing."""
        with _named(self.place):
            yield from self.source.read(_NAME, self.base)


@contextmanager
def _named(place: Path) -> Iterator[None]:
    """Name the place that the user gave in errors, in place of a source that no file has."""
    try:
        yield
    except DataError as error:
        own = f"sources.{_NAME}"
        raise DataError(str(error).removeprefix(f"{own}: ").replace(f"{own}.path", str(place))) from None


def choose_source(place: Path, base: Path, column: str | None = None) -> ChosenSource:
    """Choose a source for a file or folder; paths are written relative to the folder ``base`` if they are below it.

    ``column`` names the column of the texts (absent: the usual names, or the one with the longest texts). Raises
    DataError if there are no texts in a format that can be read.
    """
    with _named(place):
        return _chosen(place, base, column)


def _chosen(place: Path, base: Path, column: str | None) -> ChosenSource:
    notes: list[str] = []
    if is_folder(place):
        ending, notes = _ending(place)
        path, files = f"{place.as_posix()}/**/*{ending}", sorted(place.rglob(f"*{ending}"))
    else:
        _require_file(place)
        ending, path, files = _plain_ending(place), place.as_posix(), [place]
    kind = _kind(ending) or "text"
    fields: dict[str, Any] = {"kind": kind, "path": _relative(path, place, base)}
    if kind != "text":
        fields["column"] = column or _column(kind, files[0])
    elif column is not None:
        raise DataError(f"--column {column}: {place} holds plain text, which has no columns; leave the option out.")
    source = _source(fields)
    if kind == "text":
        fields["split"], note = _split(fields, files, base)
        notes.append(note)
        source = _source(fields)
    return ChosenSource(source, fields, notes, base, place)


def holds_texts(folder: Path) -> bool:
    """Return whether a folder has files of texts below it, and no runs."""
    if not is_folder(folder) or next(folder.rglob("scenario.toml"), None) is not None:
        return False
    return any(_kind(_plain_ending(file)) for file in folder.rglob("*") if file.is_file())


def _kind(ending: str) -> str | None:
    """Return the kind of source for files with an ending, perhaps with that of a compression."""
    return KINDS.get(_COMPRESSION.sub("", ending).lower())


def _source(fields: dict[str, Any]) -> FileSource:
    values = {key: value for key, value in fields.items() if key != "kind"}
    source = SOURCES.get(fields["kind"]).model_validate(values)
    assert isinstance(source, FileSource)
    return source


def _require_file(place: Path) -> None:
    if not place.exists():
        beside = [file.name for file in place.parent.iterdir()] if is_folder(place.parent) else []
        raise DataError(f"{place}: there is no such file or folder{nearest(place.name, beside)}.")
    if _GLOB.search(place.name):
        raise DataError(f"{place}: the name has a character with a meaning in patterns (*, ?, [); rename the file.")


def _plain_ending(file: Path) -> str:
    """Return the ending of a file, with that of its compression."""
    return "".join(file.suffixes[-2:]) if file.suffix in COMPRESSED else file.suffix


def _ending(folder: Path) -> tuple[str, list[str]]:
    """Return the ending whose files hold most bytes, and a sentence about the other files."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for file in folder.rglob("*"):
        ending = _plain_ending(file)
        if file.is_file() and _kind(ending):
            sizes[ending] += file.stat().st_size
            counts[ending] += 1
    if not sizes:
        raise DataError(
            f"{folder}: has no files of text; give files that end in {', '.join(KINDS)} (perhaps compressed: "
            f"{', '.join(COMPRESSED)})."
        )
    chosen = sizes.most_common(1)[0][0]
    others = ", ".join(f"{count} of {ending}" for ending, count in sorted(counts.items()) if ending != chosen)
    return chosen, [
        f"read: {counts[chosen]:,} files that end in {chosen}" + (f"; not read: {others}" if others else "")
    ]


def _column(kind: str, file: Path) -> str:
    """Return the column with the texts of a file: one with a usual name, or else with the longest texts."""
    places = InputFiles("--text", "--column", file.parent)
    texts: dict[str, int]
    try:
        if kind == "parquet":
            head = pl.read_parquet(file, n_rows=_TRIED)
            texts = {
                name: int(head[name].cast(pl.String).str.len_chars().sum() or 0)
                for name, dtype in head.schema.items()
                if isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
            }
        else:
            texts = {}
            with places.open(file) as stream:
                for line in islice(stream, _TRIED):
                    row = parse_json(line) if line.strip() else {}
                    for name, value in row.items() if isinstance(row, dict) else ():
                        if isinstance(value, str):
                            texts[name] = texts.get(name, 0) + len(value)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as {kind} ({summary(error)}); give another file.") from None
    if not texts:
        raise DataError(f"{file}: has no column of text; name it with --column.")
    usual = [name for name in COLUMNS if texts.get(name)]
    return usual[0] if usual else max(texts, key=lambda name: texts[name])


def _split(fields: dict[str, Any], files: list[Path], base: Path) -> tuple[str, str]:
    """Return where documents of plain text end, and why."""

    def lengths(split: str, most: int = _TRIED) -> list[int]:
        texts = _source({**fields, "split": split}).read(_NAME, base)
        return [len(text.split()) for text in islice(texts, most) if text and text.strip()]

    if len(files) >= _FEWEST and median(lengths("file")) <= _SHORT_FILE:
        return (
            "file",
            f"a document is a file: there are {len(files):,}, of {median(lengths('file')):,.0f} words (median)",
        )
    if len(lengths("blank_line")) >= _FEWEST or len(lengths("line")) < _FEWEST:
        return "blank_line", "a document ends at blank lines"
    return "line", "a document is a line, since there are few blank lines"


def _relative(path: str, place: Path, base: Path) -> str:
    """Return a path relative to ``base`` if the texts are below it, else an absolute one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (a pattern is no path to resolve)
    folder = Path(os.path.abspath(base))  # noqa: PTH100
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else absolute.as_posix()
