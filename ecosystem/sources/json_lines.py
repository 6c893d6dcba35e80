"""Read one column of a file of JSON lines, whatever the other columns contain."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ecosystem.errors import DataError, nearest
from ecosystem.input_files import InputFiles

_TYPES: dict[type, str] = {bool: "true or false", float: "a number", list: "a list"}
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of a JSON object, with repeated keys."""


# Numbers are read as floats because integers of thousands of digits cannot be converted.
_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=float)


def read_json_lines(file: Path, column: str, places: InputFiles) -> Iterator[str | None]:
    """Yield the column of every line, None if it is missing or null; raise DataError for a line with another value."""
    others: dict[str, None] = {}
    found = empty = False
    with places.open(file) as stream:
        for number, data in enumerate(stream, start=1):
            if number == 1:
                places.require_text(file, data)
            pairs = _parse(data.removeprefix(codecs.BOM_UTF8) if number == 1 else data, number, file, places)
            if pairs is None:
                continue
            values = [value for key, value in pairs if key == column]
            if not values and not found:
                others.update(dict.fromkeys(key for key, _ in pairs))
                empty = True
            found = found or bool(values)
            yield _text(values, number, file, column, places)
    if empty and not found:
        raise no_column(places, file, column, list(others))


def _parse(data: bytes, number: int, file: Path, places: InputFiles) -> _Pairs | None:
    """Return the object on a line, None if the line is blank."""
    try:
        line = data.decode("utf-8").strip()
        if not line:
            return None
        value = _DECODER.decode(line)
    except UnicodeDecodeError as error:
        raise places.not_utf8(file, error, f" of line {number:,}") from None
    except json.JSONDecodeError as error:
        hint = "; if the file is one JSON value, convert it to JSON lines" if number == 1 and line[0] in "[{" else ""
        raise _bad_line(places, file, f"line {number:,} is not JSON: {error.msg}{hint}") from None
    except RecursionError:
        raise _bad_line(places, file, f"line {number:,} is nested too deeply") from None
    if not isinstance(value, _Pairs):
        raise _bad_line(places, file, f"line {number:,} is JSON, but not an object")
    return value


def _text(values: list[Any], number: int, file: Path, column: str, places: InputFiles) -> str | None:
    if len(values) > 1:
        raise DataError(
            f'{places.subject}: {file}: line {number:,} contains the key "{column}" {len(values)} times; leave one.'
        )
    value = values[0] if values else None
    if value is not None and not isinstance(value, str):
        sort = "an object" if isinstance(value, _Pairs) else _TYPES[type(value)]
        raise not_text(places, file, column, f"{sort} in line {number:,}")
    if value is not None and _SURROGATE.search(value):
        raise DataError(
            f'{places.subject}: {file}: the column "{column}" contains half of a surrogate pair in line {number:,}, '
            "which is not a character; write the text again as UTF-8."
        )
    return value


def _bad_line(places: InputFiles, file: Path, problem: str) -> DataError:
    return places.unreadable(file, ValueError(problem), "one JSON object per line")


def no_column(places: InputFiles, origin: Path | str, column: str, columns: Sequence[str]) -> DataError:
    """Return the error of a column that does not exist."""
    names = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
    return DataError(
        f'{places.subject}: {origin}: unknown column "{column}"{nearest(column, columns)}; '
        f"{places.subject}.column can be: {names or 'nothing, since it has no columns'}."
    )


def not_text(places: InputFiles, origin: Path | str, column: str, found: str) -> DataError:
    """Return the error of a column with values that are not text."""
    return DataError(
        f'{places.subject}: {origin}: the column "{column}" contains {found}, not text; '
        f"choose another {places.subject}.column."
    )
