"""Errors for users: each message says what is wrong, where, and what to do.

The command line prints the message and exits with code 2; it shows the traceback only with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


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


def path_of(value: object, kind: str) -> Path:
    """Return ``value`` as the path of a file of this kind; raise TypeError if it is not a string or Path."""
    if not isinstance(value, str | Path):
        raise TypeError(f"expected a {kind} or the path of its file (see {kind}.load), not {value!r}")
    return Path(value)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the allowed word closest to ``word``, or an empty string."""
    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.55)
    return f' (did you mean "{matches[0]}"?)' if matches else ""
