"""The source ``python_docs``: English prose that is part of every Python installation.

It has two parts: the docstrings of the running interpreter's standard library, read from its ``.py`` files with
:mod:`ast` (never imported), and the language reference that ``help()`` shows, ``pydoc_data.topics``. Both are cleaned
into plain paragraphs, so that a small model learns English from them, not newlines, rulers and tables.

The text differs slightly between versions of Python; a run records its digest.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

import polars as pl
from pydantic import Field, model_validator

from ecosystem.cache import cache_folder, keep
from ecosystem.errors import DataError, nearest
from ecosystem.sources.base import SOURCES, FiniteReservoir, Source
from ecosystem.streams import Streams

# Tests are code rather than prose; idlelib and lib2to3 are missing from some installations; site-packages would make
# the text depend on installed packages.
EXCLUDED = frozenset(
    {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
)

REPEATABLE = 60  # characters: shorter paragraphs ("For example:") may occur in many documents


@SOURCES.register("python_docs")
class PythonDocs(Source):
    """Docstrings of Python's standard library and the topics of ``help()``, cleaned, without exact duplicates.

    The topic of a document is its package or module, or "language" for the topics of ``help()``.
    """

    has_topics: ClassVar[bool] = True
    shipped: ClassVar[str] = "PSF License Agreement (the text is part of Python)"
    language: ClassVar[str] = "en"

    min_chars: Annotated[int, Field(ge=1)] = Field(
        40, description="fewest characters of a document; shorter ones are left out"
    )
    max_chars: Annotated[int, Field(ge=1)] = Field(
        1500, description="most characters of a document; longer texts are split, between paragraphs where possible"
    )

    topics: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description='packages and modules whose documents are used, or "language"; absent: all'
    )

    @model_validator(mode="after")
    def _order(self) -> PythonDocs:
        if self.min_chars >= self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) must be below max_chars ({self.max_chars})")
        return self

    def open(self, name: str, streams: Streams, base: Path) -> FiniteReservoir:
        """Read the standard library once per process; raise DataError if it has no source files."""
        docs = documents(self.min_chars, self.max_chars)
        if not docs:
            raise DataError(
                f"sources.{name}: no docstrings in {stdlib()}: this Python seems to lack the source files of its "
                "standard library; use another interpreter or a source of kind text."
            )
        if self.topics is not None:
            unknown = [topic for topic in self.topics if topic not in docs.values()]
            if unknown:
                raise DataError(
                    f'sources.{name}.topics: no documents are of the topic "{unknown[0]}"'
                    f"{nearest(unknown[0], set(docs.values()))}; name packages or modules of the standard library."
                )
            docs = {text: topic for text, topic in docs.items() if topic in self.topics}
        texts, topics = (pl.Series(list(part), dtype=pl.String) for part in (docs.keys(), docs.values()))
        return FiniteReservoir(name, texts.alias("text"), self.held_out, streams, topics)


def stdlib() -> Path:
    """Return the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


@lru_cache(maxsize=8)
def documents(min_chars: int, max_chars: int) -> Mapping[str, str]:
    """Return cleaned documents and their topics, in the order of files and lines, without repetition.

    Some topics contain other topics, and docstrings are copied between classes. So a paragraph of at least
    ``REPEATABLE`` characters is kept only once; otherwise parts of held-out documents would be published.
    """
    seen: set[str] = set()
    pieces: dict[str, str] = {}
    for topic, text in raw_texts():
        paragraphs = dict.fromkeys(clean(text).split("\n\n"))
        new = [p for p in paragraphs if len(p) < REPEATABLE or p not in seen]
        seen.update(new)
        for piece in split("\n\n".join(new), max_chars):
            pieces.setdefault(piece, topic)
    return MappingProxyType({piece: topic for piece, topic in pieces.items() if len(piece) >= min_chars})


@lru_cache(maxsize=1)
def raw_texts() -> tuple[tuple[str, str], ...]:
    """Return (topic, text) of every docstring of the standard library, then of every topic of ``help()``, as written.

    Parsing takes seconds, so the texts are cached in a file. Its name depends on the names, sizes and times of all
    files read, and on this module. If the cache cannot be written, the texts are parsed again next time.
    """
    root = stdlib()
    files = _source_files(root)
    stats = [(str(file.relative_to(root)), (s := file.stat()).st_size, s.st_mtime_ns) for file in files]
    key = json.dumps([sys.version, stats, hashlib.sha256(Path(__file__).read_bytes()).hexdigest()])
    cached = cache_folder() / f"python-docs-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        return tuple((str(topic), str(text)) for topic, text in json.loads(cached.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        texts = (*_docstrings(root, files), *(("language", text) for text in _topics()))
    keep(cached, json.dumps(texts))
    return texts


def _topics() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some Linux distributions ship it as a separate package
        return
    for _, text in sorted(topics.items()):
        yield text


def _docstrings(root: Path, files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        topic = file.relative_to(root).parts[0].removesuffix(".py")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in the library do not matter here
                tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # a few files of the library are templates or samples of bad syntax
        yield from ((topic, text) for text in _docstrings_in(tree))


def _source_files(root: Path) -> list[Path]:
    paths: list[str] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED]
        paths += [os.path.join(folder, name) for name in files if name.endswith(".py")]  # noqa: PTH118 (speed)
    # Sorted by parts, for the same order on every platform with the files of a folder together.
    return sorted(map(Path, paths), key=lambda file: file.relative_to(root).parts)


def _docstrings_in(node: ast.AST) -> Iterator[str]:
    """Yield docstrings in the order of the file, from statements only, which is twice as fast as ast.walk."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=True)
        if text:
            yield text
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        children = getattr(node, part, None)
        if isinstance(children, list):
            for child in children:
                if not isinstance(child, ast.Expr):
                    yield from _docstrings_in(child)


_ROLE = re.compile(r":[a-z][a-z:+-]*:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :class:`Name` and :ref:`text <target>`
_DIRECTIVE = re.compile(r"\.\. [a-z-]+::\s*")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(\w(?:[^*\n]*\w)?)\1(?![\w*])")
_LITERAL = re.compile(r"::$", re.MULTILINE)  # "as follows::" announces a block of code
_FOOTNOTE = re.compile(r"\s\[\d+\](?=[\s.,;:)]|$)")
_RUN = re.compile(r"([^\w\s])\1{3,}")  # four or more of the same punctuation mark
_ITEM = re.compile(r"[-*+•o]\s|\(?(?:\d{1,2}|[a-z])[.)]\s|[:@]\w|\S+(?:, \S+)* (?:--|-|:|=) |[\w.*]+:\s|\|")
_SENTENCE = re.compile(r"(?<=[.!?:;]) ")


def clean(text: str) -> str:
    """Turn ``text`` into plain paragraphs: unwrap lines, and separate paragraphs with a blank line.

    Tables, rulers, doctests, grammar productions and all other paragraphs that are not mainly letters are left out.
    Indentation, reStructuredText roles, back quotes, emphasis and footnote marks are removed.
    """
    text = _ROLE.sub(r"\1", text.expandtabs().replace("\r\n", "\n"))
    text = _EMPHASIS.sub(r"\2", _LITERAL.sub(":", text.replace("``", "")))
    paragraphs = (_paragraph(block) for block in re.split(r"\n\s*\n", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _paragraph(block: str) -> str:
    """Clean one paragraph; return an empty string if it is not prose."""
    lines: list[str] = []
    for line in block.split("\n"):
        if line.lstrip().startswith(">>>"):
            break  # a doctest and its output run to the next blank line
        bare = " ".join(_DIRECTIVE.sub("", _RUN.sub(" ", line)).split())
        table = bare.startswith("|") and bare.endswith("|")
        if table or "::=" in bare or not any(map(str.isalpha, bare)):
            continue
        lines.append(_FOOTNOTE.sub("", bare))
    joined = _unwrap(lines)
    prose = sum(map(str.isalpha, joined)) + joined.count(" ")
    return joined if prose >= 0.75 * len(joined) else ""


def _unwrap(lines: list[str]) -> str:
    """Join lines that were wrapped at the margin.

    A line counts as wrapped if the next word would have made it the longest of its paragraph, or nearly. Paragraphs of
    short lines are lists or code and are not changed; neither are lines that begin like a list item.
    """
    margin = max((len(line) for line in lines), default=0) - 12
    result = ""
    for number, line in enumerate(lines):
        previous = lines[number - 1] if number else ""
        word = line.split(" ", 1)[0]
        wrapped = margin >= 34 and len(previous) + 1 + len(word) > margin and not _ITEM.match(line)
        result += (" " if wrapped else "\n") + line if number else line
    return result


def split(text: str, limit: int) -> list[str]:
    """Split ``text`` into pieces of at most ``limit`` characters, at the coarsest possible breaks.

    Breaks are between paragraphs, then lines, sentences and words; a word longer than ``limit`` is split.
    """
    return _split(text, limit, ("\n\n", "\n", _SENTENCE, " "))


def _split(text: str, limit: int, breaks: tuple[str | re.Pattern[str], ...]) -> list[str]:
    if len(text) <= limit:
        return [text] if text else []
    if not breaks:
        return [text[i : i + limit] for i in range(0, len(text), limit)]
    first, *finer = breaks
    parts = first.split(text) if isinstance(first, re.Pattern) else text.split(first)
    glue = first if isinstance(first, str) else " "
    pieces: list[str] = []
    for part in parts:
        if pieces and len(pieces[-1]) + len(glue) + len(part) <= limit:
            pieces[-1] += glue + part
        else:
            pieces += _split(part, limit, tuple(finer))
    return pieces
