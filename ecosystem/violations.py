"""Say in a plain sentence which rule a value violates: the only place that words the errors of pydantic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ecosystem.errors import nearest

_LONGEST = 60  # characters of a value that are printed


def sentence(problem: Any, path: str) -> str:
    """Return what is wrong with the value at a dotted path, as the end of a sentence that begins with the path.

    ``problem`` is an entry of ``ValidationError.errors()``.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _TABLES:
        return f"must be a table{_header(path)}{_but(problem)}"
    if kind in _RULES:
        return f"{_RULES[kind]}{_but(problem)}"
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"must be {word} {_number(context[limit])}{_but(problem)}"
    if kind in _SPECIAL:
        return _SPECIAL[kind](problem, context)
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return str(message)
    return f"{re.sub('^input should be', 'must be', message[:1].lower() + message[1:])}{_but(problem)}"


def merged_alternatives(problems: Sequence[Any]) -> list[Any]:
    """Return the problems with one entry for a value that may be a number or a word, instead of one for each.

    ``problems`` is ``ValidationError.errors()``, where the last part of the location of such an entry is no key.
    """
    merged: dict[Any, Any] = {}
    for place, problem in enumerate(problems):
        *location, last = problem["loc"] or [""]
        if not _ALTERNATIVE.fullmatch(str(last)):
            merged[place] = problem
        elif (key := tuple(location)) not in merged:
            merged[key] = {**problem, "loc": key}
        else:
            rules = [sentence(each, "").partition(_BUT) for each in (merged[key], problem)]
            words = f"{rules[0][0]}, or {rules[1][0].removeprefix('must be ')}"
            found = _BUT + max((rule[2] for rule in rules), key=len)  # the longer one suggests a word
            merged[key] = {"type": "value_error", "loc": key, "msg": words + found, "input": problem["input"]}
    return list(merged.values())


_ALTERNATIVE = re.compile(r"constrained-\w+|literal\[.*\]")
_BUT = ", not "
_TABLES = ("dict_type", "model_type", "model_attributes_type", "mapping_type")
_RULES = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list in square brackets",
    "invalid_key": "the name of a key must be text",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _too_short(problem: Any, context: Mapping[str, Any]) -> str:
    return f"needs at least {_entries(context['min_length'])}, but has {context['actual_length'] or 'none'}"


def _too_long(problem: Any, context: Mapping[str, Any]) -> str:
    return f"may have at most {_entries(context['max_length'])}, but has {context['actual_length'] or 'more'}"


def _literal(problem: Any, context: Mapping[str, Any]) -> str:
    allowed = re.findall(r"'([^']*)'", str(context["expected"]))
    value = problem["input"]
    hint = nearest(value, allowed) if isinstance(value, str) else ""
    return f"must be {str(context['expected']).replace(chr(39), chr(34))}{_but(problem)}{hint}"


_SPECIAL: dict[str, Callable[[Any, Mapping[str, Any]], str]] = {
    "missing": lambda problem, context: "this key is required and missing",
    "too_short": _too_short,
    "too_long": _too_long,
    "literal_error": _literal,
    "string_too_short": lambda problem, context: "must not be empty",
}


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _header(path: str) -> str:
    """Return how the file opens a table at this path, in parentheses; empty for the whole file."""
    *before, last = path.split(".")
    if last.isdigit():
        return f" ([[{'.'.join(before)}]])" if before and not any(map(str.isdigit, before)) else ""
    if any(map(str.isdigit, before)):
        return f" ({last} = {{ … }})"
    return f" ([{path}])" if path else ""


def _but(problem: Any) -> str:
    """Return the end of a sentence that says what was found instead."""
    value = problem.get("input")
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, Mapping):
        return ", not a table"
    if isinstance(value, list | tuple):
        return ", not a list"
    text = "nothing" if value is None else repr(value)
    return f", not {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…'}"


def _number(limit: float) -> str:
    return f"{int(limit):,}" if float(limit).is_integer() else f"{limit:g}"
