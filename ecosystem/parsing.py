"""Parse TOML and JSON with limits on nesting and digits, so that every failure is a ValueError.

The parsers of Python raise RecursionError for deep nesting. What they do accept may still be too deep to copy, or have
too many digits to print.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

MAX_DEPTH = 40
MAX_DIGITS = 100


class LimitError(ValueError):
    """A value that is nested too deeply or has too many digits."""


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raise TOMLDecodeError for a syntax error, LimitError for a value beyond the limits."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python converts numbers of up to 4,300 digits
        raise _too_long() from None
    _check_limits(values)
    return values


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raise JSONDecodeError or UnicodeDecodeError for malformed text, LimitError beyond the limits."""
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise _too_long() from None
    _check_limits(values)
    return values


def _check_limits(values: Any) -> None:
    level, depth, limit = [values], 0, 10**MAX_DIGITS
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        if any(isinstance(value, int) and abs(value) >= limit for value in level):
            raise _too_long()
        tables = [value.values() for value in level if isinstance(value, dict)]
        lists = [value for value in level if isinstance(value, list)]
        level, depth = [value for values in (*tables, *lists) for value in values], depth + 1


def _too_deep() -> LimitError:
    return LimitError(f"values are nested more than {MAX_DEPTH} deep")


def _too_long() -> LimitError:
    return LimitError(f"a whole number has more than {MAX_DIGITS} digits")
