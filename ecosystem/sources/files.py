"""Sources of the user's own texts: plain text files, JSON lines, Parquet, and Hugging Face datasets."""

from __future__ import annotations

import io
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.corpus.storage.documents import Documents
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.storage.sorted_runs import FirstCopies
from ecosystem.errors import DataError, nearest
from ecosystem.input_files import InputFiles, is_folder, summary
from ecosystem.sources.base import SOURCES, FiniteReservoir, Source
from ecosystem.sources.json_lines import no_column, not_text, read_json_lines
from ecosystem.streams import Streams

MinChars = Annotated[int, Field(ge=1)]
Column = Annotated[str, Field(min_length=1)]

_HUB_ID = re.compile(r"[\w.-]*\w[\w.-]*(/[\w.-]*\w[\w.-]*)?", re.ASCII)
_BATCH = 1 << 16  # texts read at a time
_BYTES = pl.col("content").str.len_bytes().cast(pl.Int32)
_QUICK = 1 << 25  # bytes that are read in a fraction of a second: 32 MiB
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # categories of Unicode
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_EMPTY_LINES = re.compile(r"\n(?:[^\S\n]*\n)+[^\S\n]*")  # also with other white space, such as no-break spaces


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
        """Read all texts, those that exceed memory into files; raise DataError if there are none, or none long enough.

        Only the first of exact duplicates is kept, so that no copy of a held-out document is published.
        """
        scratch = Scratch()
        docs, first_copies = Documents({"content": pl.String(), "size": pl.Int32()}, scratch), FirstCopies(scratch)
        counts = dict.fromkeys(("texts", "missing", "blank", "short", "copies"), 0)
        texts = self._cleaned(name, base)
        while batch := list(islice(texts, _BATCH)):
            present = [text for text in batch if text is not None]
            long = pl.Series("content", [text for text in present if len(text) >= self.min_chars], dtype=pl.String)
            copies = first_copies.register(_hashes(long), counts["texts"])
            docs.append(long.filter(pl.Series(copies < 0)).to_frame().with_columns(size=_BYTES))
            counts["texts"] += len(batch)
            counts["missing"] += len(batch) - len(present)
            counts["blank"] += present.count("")
            counts["short"] += len(present) - long.len()
            counts["copies"] += int((copies >= 0).sum())
        self._require_documents(name, len(docs), counts)
        reservoir = FiniteReservoir(name, docs, self.held_out, streams)
        reservoir.omissions = self._omissions(name, counts)
        return reservoir

    def _require_documents(self, name: str, documents: int, counts: Mapping[str, int]) -> None:
        present = counts["texts"] - counts["missing"]
        if not documents:
            problem = (
                f"all {present:,} texts are shorter than min_chars = {self.min_chars}; lower min_chars"
                if present > counts["blank"]
                else "contains no text; give a file that does"
            )
            raise DataError(f"sources.{name}: {self.origin()}: {problem}.")
        if documents == 1 < present and not counts["short"]:
            raise DataError(f"sources.{name}: {self.origin()}: all {present:,} texts are equal; give different texts.")

    def _omissions(self, name: str, counts: Mapping[str, int]) -> str:
        """Return a sentence that counts the texts that are missing, too short, or copies; "" if there are none."""
        short = "empty" if self.min_chars == 1 else f"shorter than min_chars = {self.min_chars}"
        omitted = {
            "missing": counts["missing"],
            short: counts["short"],
            "equal to an earlier one": counts["copies"],
        }
        total = sum(omitted.values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in omitted.items() if count)
        return f"sources.{name}: {total:,} of {counts['texts']:,} texts are left out: {reasons}" if total else ""

    def _cleaned(self, name: str, base: Path) -> Iterator[str | None]:
        return (tidy(text) if text is not None and self.clean else text for text in self.read(name, base))


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
        pattern = f'"{self.path.rstrip("/")}/*{self.suffix()}"'
        return input_files(name, base).find(self.path, f"is a folder; give a file or a pattern such as {pattern}")

    def check_files(self, name: str, base: Path) -> None:
        """Raise DataError if no file matches ``path``, or one cannot be opened."""
        input_files(name, base).require_readable(self.files(name, base))

    def quick_to_count(self, name: str, base: Path, asked: int) -> bool:
        """Return whether the files are small enough to read all."""
        return sum(file.stat().st_size for file in self.files(name, base)) <= _QUICK

    def suffix(self) -> str:
        """Return the usual ending of these files, for error messages."""
        return ""


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
        """Yield the documents of every file in order; raise DataError if a file is not UTF-8.

        Nothing between two separators, such as after the last line, is no document.
        """
        for file in self.files(name, base):
            text = input_files(name, base).read_text(file)
            if self.split == "file":
                yield text
            else:
                parts = text.split("\n") if self.split == "line" else _EMPTY_LINES.split(text)
                yield from (part for part in parts if part)


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
            yield from read_json_lines(file, self.column, input_files(name, base))


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
            places = input_files(name, base)
            with places.open(file) as stream:
                compressed = None if isinstance(stream, io.BufferedReader) else io.BytesIO(stream.read())
            try:
                lazy = pl.scan_parquet(compressed or file, glob=False)
                schema = lazy.collect_schema()
                if self.column not in schema:
                    raise no_column(places, file, self.column, schema.names())
                dtype = schema[self.column]
                if not isinstance(dtype, pl.String | pl.Null | pl.Categorical | pl.Enum):
                    raise not_text(places, file, self.column, dtype.base_type().__name__)
                column = lazy.select(pl.col(self.column).cast(pl.String))
                rows = int(lazy.select(pl.len()).collect().item())
                for first in range(0, rows, _BATCH):
                    yield from column.slice(first, _BATCH).collect()[self.column]
            except (pl.exceptions.PolarsError, OSError) as error:
                raise places.unreadable(file, error, "a complete Parquet file") from None


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

    def check_files(self, name: str, base: Path) -> None:
        """Raise DataError if ``dataset`` is the path of a folder, not an id of the Hub, and there is no such folder."""
        if self._folder(base) is None and not _HUB_ID.fullmatch(self.dataset):
            raise DataError(
                f"sources.{name}: {self.dataset}: no such folder, neither in the current folder nor beside the "
                f'scenario, and an id of the Hub has the form "owner/name"; correct sources.{name}.dataset.'
            )

    def quick_to_count(self, name: str, base: Path, asked: int) -> bool:
        """Return false: the library takes seconds to import, and may need a network."""
        return False

    def downloads(self, base: Path) -> dict[str, str]:
        """Return the id of the dataset, unless it is a local folder."""
        return {} if self._folder(base) else {"dataset": self.dataset}

    def _folder(self, base: Path) -> Path | None:
        places = InputFiles("", "", base)
        return next((folder for folder in places.locations(self.dataset) if is_folder(folder)), None)

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
        local = self._folder(base)
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
                f"{where}: cannot be loaded: {summary(error)}. The first use of a dataset id needs a network "
                f"connection; check sources.{name}.dataset, config and split, or give a local folder."
            ) from None
        if self.column not in table.column_names:
            raise no_column(input_files(name, base), self.dataset, self.column, table.column_names)
        values: Sequence[Any] = table[self.column]
        for value in values:
            if value is not None and not isinstance(value, str):
                raise not_text(input_files(name, base), self.dataset, self.column, type(value).__name__)
            yield value


def input_files(name: str, base: Path) -> InputFiles:
    """Return the lookup of the files of a source."""
    return InputFiles(f"sources.{name}", f"sources.{name}.path", base)


def _hashes(texts: pl.Series) -> NDArray[np.uint64]:
    """Return a 64-bit hash of every text; of ten million texts, two have the same once in 370,000 sources."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def tidy(text: str) -> str:
    """Strip surrounding white space and collapse runs of blank lines into one; text without visible characters is "".

    Formatting characters, such as the zero-width space U+200B, are not visible.
    """
    tidied = _BLANK_LINES.sub("\n\n", text.replace("\r\n", "\n")).strip()
    return tidied if any(unicodedata.category(char) not in _INVISIBLE for char in tidied) else ""


def _saved_split(saved: Any, split: str, where: str, name: str) -> Any:
    """Return a split or slice of a result of ``load_from_disk``, which is a dataset or a dictionary of datasets."""
    from datasets import ReadInstruction, concatenate_datasets

    splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    for part in re.findall(r"(?:^|\+)\s*(\w+(?:\.\w+)*)", split):
        if part not in splits:
            known = ", ".join(sorted(splits))
            raise DataError(
                f'{where}: unknown split "{part}"{nearest(part, splits)}; sources.{name}.split can be: {known}, '
                'or a slice such as "train[:100]".'
            )
    parts = ReadInstruction.from_spec(split).to_absolute({key: len(rows) for key, rows in splits.items()})
    return concatenate_datasets([splits[part.splitname].select(range(part.from_, part.to)) for part in parts])
