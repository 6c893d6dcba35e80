"""Turn docstrings and values into Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(?::[a-z]+:)?``?~?(.+?)``?", re.DOTALL)
_SPECIAL = re.compile(r"([*_<>|\[\]])")


def markdown(docstring: str) -> str:
    """Turn a docstring into Markdown: roles and double backquotes become code, Markdown characters are escaped."""
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n[ ]*\n", inspect.cleandoc(docstring)))


def _paragraph(text: str) -> str:
    if text.startswith("    "):  # an example
        return text
    pieces = _CODE.split(text.replace("::\n", ":\n").removesuffix("::"))
    escaped = [f"`{piece}`" if place % 2 else _SPECIAL.sub(r"\\\1", piece) for place, piece in enumerate(pieces)]
    return "".join(escaped) + (":" if text.endswith("::") and text != "::" else "")


def line(docstring: str) -> str:
    """Turn a docstring or a description into Markdown on one line, for a cell of a table."""
    return " ".join(markdown(docstring or "").split())


def code(value: object) -> str:
    """Show a value as code in a cell of a table."""
    return f"`{str(value).replace('|', chr(92) + '|')}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
