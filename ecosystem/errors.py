"""The errors that users see: each message is one clear sentence that says what is wrong, where, and what to do.

The command line prints the sentence and exits with code 2. It shows a traceback for these errors only with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class EcosystemError(Exception):
    """An error that a user can understand and correct; the message is a whole sentence."""

    exit_code = 2


class ScenarioError(EcosystemError):
    """A scenario file (or an override of it) that cannot be run; the message names file and dotted path."""


class DataError(EcosystemError):
    """A source of documents, a checkpoint or a graph file that is missing, empty or malformed."""


class TrainingError(EcosystemError):
    """A model that cannot be trained or sampled any further, for instance because its loss is not finite."""


class StoreError(EcosystemError):
    """A run folder that cannot be written, or a stored file that is missing, truncated or altered."""


class FormatError(StoreError):
    """A run folder in a newer format than this release reads; a newer release opens it."""


def path_of(given: object, kind: str) -> Path:
    """Return ``given`` as the path of a file that holds a value of this kind; raise TypeError if it is not one."""
    if not isinstance(given, str | Path):
        raise TypeError(f"give the path of a file, or a {kind} ({kind}.load reads one), not {given!r}")
    return Path(given)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return ``' (did you mean "x"?)'`` for the allowed word closest to ``word``, or an empty string."""
    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.55)
    return f' (did you mean "{matches[0]}"?)' if matches else ""
