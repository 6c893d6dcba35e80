"""Errors for users: each message says what is wrong, where, and what to do.

The command line prints the message and exits with code 2; it shows the traceback only with ``--debug``.
"""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal


class EcosystemError(Exception):
    """An error that the user can correct; its message is a complete sentence."""

    exit_code = 2


class ScenarioError(EcosystemError):
    """An invalid scenario, study or frontier file, or an invalid override; the message names file and dotted path."""


class DataError(EcosystemError):
    """A source of documents, a checkpoint or a graph file that is missing, empty or malformed."""


class TrainingError(EcosystemError):
    """A model that cannot be trained or sampled further, for instance because its loss is not finite."""


class StoreError(EcosystemError):
    """A run folder that cannot be written, or a stored file that is missing, truncated or altered."""


class FormatError(StoreError):
    """A run folder in a newer format than this release reads."""


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error is that of a full disk or an exhausted quota, also if a compiled library raised it."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return any(f"(os error {number})" in str(error) for number in numbers)  # as libraries in Rust say it


def each_line(start: str, problem: object) -> str:
    """Return the lines of a message, each after ``start``, such as the name of a file, and a colon."""
    return "\n".join(f"{start}: {line}" for line in str(problem).splitlines())


def path_of(value: object, kind: str, place: Literal["file", "folder"] = "file") -> Path:
    """Return ``value`` as the path of the file or folder of a ``kind``; raise EcosystemError if it is no path."""
    if not isinstance(value, str | os.PathLike):
        opener = f"{kind}.{'load' if place == 'file' else 'open'}"
        raise EcosystemError(f"expected a {kind} or the path of its {place} (see {opener}), not {_shown(value)}.")
    return Path(value)


def path_argument(value: object, name: str) -> str | Path:
    """Return a path or URL passed as the argument ``name``; raise EcosystemError for a value of another type."""
    if isinstance(value, str):
        return value
    if not isinstance(value, os.PathLike):
        raise EcosystemError(f"{name}: give a path, as text or a Path, not {_shown(value)}.")
    return Path(value)


def whole_number(value: object, name: str, least: int = 0) -> int:
    """Return a whole number passed as the argument ``name``, also if it is NumPy's; raise EcosystemError for others."""
    if not isinstance(value, bool | str) and hasattr(value, "__index__"):
        number = operator.index(value)
        if number >= least:
            return number
    raise EcosystemError(f"{name}: give a whole number of at least {least}, not {_shown(value)}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a value of type {type(value).__name__}"


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the allowed word closest to ``word``, or an empty string."""
    matches = get_close_matches(str(word), list(allowed), n=1, cutoff=0.55)
    return f' (did you mean "{matches[0]}"?)' if matches else ""
