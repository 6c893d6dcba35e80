"""Sources of the user's own texts: plain text files, JSON lines, Parquet, and Hugging Face datasets."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from ecosystem.errors import DataError, nearest
from ecosystem.sources.base import SOURCES, FiniteReservoir, Source
from ecosystem.streams import Streams

MinChars = Annotated[int, Field(ge=1)]
Column = Annotated[str, Field(min_length=1)]

_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


class TextSource(Source):
    """Base of all sources of stored texts: clean texts lightly and drop short ones and exact duplicates."""

    min_chars: MinChars = Field(1, description="fewest characters of a document; shorter ones are left out")
    clean: bool = Field(
        True, description="true: strip surrounding white space and collapse runs of blank lines into one"
    )

    @abstractmethod
    def read(self, name: str, base: Path) -> Iterable[str | None]:
        """Yield the stored texts (None: missing); raise DataError if they cannot be read."""

    @abstractmethod
    def origin(self) -> str:
        """Return the path or dataset of the texts, for error messages."""

    def open(self, name: str, streams: Streams, base: Path) -> FiniteReservoir:
        """Read all texts into memory; raise DataError if there are none, or none long enough.

        Only the first of exact duplicates is kept, so that no copy of a held-out document is published.
        """
        stored = [text for text in self.read(name, base) if text is not None]
        cleaned = [tidy(text) if self.clean else text for text in stored]
        docs = list(dict.fromkeys(text for text in cleaned if len(text) >= self.min_chars))
        if not docs:
            problem = (
                f"all {len(stored):,} texts are shorter than min_chars = {self.min_chars}; lower min_chars"
                if any(cleaned)
                else "contains no text; give a file that does"
            )
            raise DataError(f"sources.{name}: {self.origin()}: {problem}.")
        return FiniteReservoir(name, pl.Series("text", docs, dtype=pl.String), self.held_out, streams)


class FileSource(TextSource):
    """Base of sources that read files: one path, or a pattern such as ``data/**/*.txt``."""

    path: str = Field(
        min_length=1,
        description="path of a file or a pattern (*, ?, **), relative to the current folder or the scenario's",
    )

    def origin(self) -> str:
        """Return the path as written in the scenario."""
        return self.path

    def files(self, name: str, base: Path) -> list[Path]:
        """Return the files that match ``path``, sorted by name; raise DataError if there are none.

        Relative paths are resolved in the current folder and, if nothing matches there, in ``base``.
        """
        for root in (Path.cwd(), base):
            file = root / Path(self.path).expanduser()
            matches = [file] if file.exists() else [Path(f) for f in glob(str(file), recursive=True)]  # noqa: PTH207
            files = sorted(f for f in matches if f.is_file())
            if files:
                return files
            if matches:
                suggestion = f'"{self.path.rstrip("/")}/*{self.suffix()}"'
                raise DataError(
                    f"sources.{name}: {self.path}: is a folder; give a file or a pattern such as {suggestion}."
                )
        problem = "no file matches this pattern" if re.search(r"[*?\[]", self.path) else "no such file"
        siblings = {str(Path(self.path).with_name(f.name)) for f in _siblings(base, self.path)}
        raise DataError(
            f"sources.{name}: {self.path}: {problem}, neither in the current folder nor in the scenario's"
            f"{nearest(self.path, siblings)}; correct sources.{name}.path."
        )

    def suffix(self) -> str:
        """Return the usual ending of these files, for error messages."""
        return ""


def _siblings(base: Path, path: str) -> list[Path]:
    folders = [(root / Path(path).expanduser()).parent for root in (Path.cwd(), base)]
    return [file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.is_file()]


@SOURCES.register("text")
class TextFiles(FileSource):
    """Plain text files in UTF-8, split into documents at blank lines, at line ends, or not at all."""

    split: Literal["blank_line", "line", "file"] = Field(
        "blank_line", description="end of a document: blank lines, the end of a line, or the end of the file"
    )

    def suffix(self) -> str:
        """Return ``.txt``."""
        return ".txt"

    def read(self, name: str, base: Path) -> Iterable[str]:
        """Yield the documents of every file in order; raise DataError if a file is not UTF-8."""
        for file in self.files(name, base):
            try:
                text = file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"sources.{name}: {file}: is not UTF-8 text ({error.reason} at byte {error.start:,}); convert it, "
                    f'for instance with "iconv -t UTF-8", or leave it out of sources.{name}.path.'
                ) from None
            except OSError as error:
                raise _unreadable(name, file, error) from None
            if self.split == "file":
                yield text
            else:
                yield from text.split("\n") if self.split == "line" else _BLANK_LINES.split(text)


@SOURCES.register("jsonl")
class JsonLines(FileSource):
    """Files with one JSON object per line, of which one field contains the text."""

    column: Column = Field("text", description="name of the field that contains the text")

    def suffix(self) -> str:
        """Return ``.jsonl``."""
        return ".jsonl"

    def read(self, name: str, base: Path) -> Iterable[str | None]:
        """Yield the field of every object; raise DataError if a file is not JSON lines or lacks the field."""
        for file in self.files(name, base):
            if not _has_content(name, file):
                continue
            try:
                table = pl.read_ndjson(file, infer_schema_length=None)
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _unreadable(name, file, _bad_line(file) or error, "one JSON object per line") from None
            yield from _column(name, str(file), table.schema, self.column, table)


@SOURCES.register("parquet")
class Parquet(FileSource):
    """Parquet files, of which one column contains the text."""

    column: Column = Field("text", description="name of the column that contains the text")

    def suffix(self) -> str:
        """Return ``.parquet``."""
        return ".parquet"

    def read(self, name: str, base: Path) -> Iterable[str | None]:
        """Yield the column of every file; raise DataError if a file is not Parquet or lacks the column."""
        for file in self.files(name, base):
            try:
                lazy = pl.scan_parquet(file, glob=False)
                schema = lazy.collect_schema()
                table = lazy.select(self.column).collect() if self.column in schema else None
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _unreadable(name, file, error, "a complete Parquet file") from None
            yield from _column(name, str(file), schema, self.column, table)


@SOURCES.register("hub")
class HubDataset(TextSource):
    """A dataset of the Hugging Face Hub or a local dataset folder, read with the optional library ``datasets``."""

    dataset: str = Field(
        min_length=1, description='id of the dataset such as "roneneldan/TinyStories", or path of a local folder'
    )
    config: str | None = Field(None, description="name of the configuration, if the dataset has several")
    split: str = Field(
        "train",
        min_length=1,
        description='part of the dataset: a split such as "train", or a slice such as "train[:10000]"',
    )
    column: Column = Field("text", description="name of the column that contains the text")
    revision: str | None = Field(None, description="commit or tag of the dataset, for reproducible runs")

    def origin(self) -> str:
        """Return the dataset as written in the scenario."""
        return self.dataset

    def read(self, name: str, base: Path) -> Iterable[str | None]:
        """Yield the column of the split; raise DataError if the library, the dataset or the column is missing."""
        try:
            import datasets
        except ImportError:
            raise DataError(
                f'sources.{name}: a source of kind hub needs the library "datasets", which is not installed; '
                'install it with: pip install "ecosystem[hub]".'
            ) from None
        where = f"sources.{name}: {self.dataset}"
        local = _local_folder(self.dataset, base)
        try:
            if local is not None and any((local / mark).exists() for mark in ("dataset_dict.json", "state.json")):
                table = _saved_split(datasets.load_from_disk(str(local)), self.split, where, name)
            else:
                table = datasets.load_dataset(
                    str(local or self.dataset), self.config, split=self.split, revision=self.revision
                )
        except DataError:
            raise
        # The library's errors (network, cache, parsing, names) have no common base class.
        except Exception as error:
            raise DataError(
                f"{where}: cannot be loaded: {_first_line(error)} The first use of a dataset id needs a network "
                f"connection; check sources.{name}.dataset, config and split, or give a local folder."
            ) from None
        if self.column not in table.column_names:
            raise _no_column(name, self.dataset, self.column, table.column_names)
        values: Sequence[Any] = table[self.column]
        for value in values:
            if value is not None and not isinstance(value, str):
                raise _not_text(name, self.dataset, self.column, type(value).__name__)
            yield value


def tidy(text: str) -> str:
    """Strip surrounding white space and collapse runs of blank lines into one."""
    return _BLANK_LINES.sub("\n\n", text.replace("\r\n", "\n")).strip()


def _local_folder(dataset: str, base: Path) -> Path | None:
    candidates = [root / Path(dataset).expanduser() for root in (Path.cwd(), base)]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _saved_split(saved: Any, split: str, where: str, name: str) -> Any:
    """Return one split of a result of ``load_from_disk``, which is a dataset or a dictionary of datasets."""
    if hasattr(saved, "column_names") and isinstance(saved.column_names, list):
        return saved
    if split not in saved:
        splits = ", ".join(sorted(saved))
        raise DataError(
            f'{where}: unknown split "{split}"{nearest(split, saved)}; sources.{name}.split can be: {splits}.'
        )
    return saved[split]


def _column(name: str, origin: str, schema: pl.Schema, column: str, table: pl.DataFrame | None) -> Iterable[str | None]:
    """Yield a column of text; raise DataError if it is missing or does not contain text."""
    if column not in schema:
        raise _no_column(name, origin, column, schema.names())
    if schema[column] not in (pl.String, pl.Null, pl.Categorical):
        raise _not_text(name, origin, column, str(schema[column]))
    assert table is not None
    yield from table[column].cast(pl.String)


def _no_column(name: str, origin: str, column: str, columns: Sequence[str]) -> DataError:
    return DataError(
        f'sources.{name}: {origin}: unknown column "{column}"{nearest(column, columns)}; '
        f"sources.{name}.column can be: {', '.join(columns) or 'nothing, since it has no columns'}."
    )


def _not_text(name: str, origin: str, column: str, dtype: str) -> DataError:
    return DataError(
        f'sources.{name}: {origin}: the column "{column}" contains {dtype}, not text; '
        f"choose another sources.{name}.column."
    )


def _bad_line(file: Path) -> Exception | None:
    """Return the error of the first line that is not a JSON object, since polars does not report the line."""
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip() and not isinstance(json.loads(line), dict):
                return ValueError(f"line {number:,} is JSON, but not an object")
    except json.JSONDecodeError as error:
        return ValueError(f"line {number:,} is not JSON: {error.msg}")
    except (UnicodeDecodeError, OSError):
        return None
    return None


def _has_content(name: str, file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError as error:
        raise _unreadable(name, file, error) from None


def _unreadable(name: str, file: Path, error: Exception, expected: str = "a file that can be read") -> DataError:
    return DataError(
        f"sources.{name}: {file}: cannot be read ({_first_line(error).rstrip('.')}); give {expected} in "
        f"sources.{name}.path."
    )


def _first_line(error: Exception) -> str:
    """Return the first line of an error as a short sentence, since messages of libraries may be pages long."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return f"{str(text)[:200].rstrip('.')}."
