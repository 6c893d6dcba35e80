"""The corpus: every document ever published, whether it is on the web, and its content.

The index is one table with a row per document, in order of publication; the id of a document is its row number.
Contents are stored separately and gathered by id. A document that leaves the web is marked as retired, not deleted.
"""

from __future__ import annotations

import polars as pl

from ecosystem.corpus.features import features
from ecosystem.corpus.schema import INDEX, INDEX_CHANGE, empty, segment


class Corpus:
    """All documents of one web, with methods that publish, retire and reweigh them and read their contents."""

    def __init__(self, content: pl.DataType | None = None) -> None:
        """Create an empty corpus; ``content`` is the type of its documents (absent: text)."""
        self.index = empty(INDEX)
        self._contents = pl.Series("content", [], dtype=content or pl.String())
        self._drafts = self._contents  # contents of drafts that are prepared but not published
        self._first_with_hash: dict[int, int] = {}
        self._changed = empty(INDEX_CHANGE)
        self._live: tuple[pl.DataFrame, pl.DataFrame] | None = None  # an index, and its live rows

    def __len__(self) -> int:
        """Return the number of documents ever published, refused drafts included."""
        return self.index.height

    @property
    def content(self) -> pl.DataType:
        """Type of the contents of every document."""
        return self._contents.dtype

    @property
    def last_id(self) -> int:
        """Id of the newest document or draft; -1 if there are none."""
        return len(self) + self._drafts.len() - 1

    def prepare(self, drafts: pl.DataFrame, t: int) -> pl.DataFrame:
        """Turn drafts (site, author, synthetic, depth, model, source, row, content) into a segment at step ``t``.

        Fill in ids, features and earlier exact duplicates, without publishing the drafts.
        """
        observed = features(drafts["content"])
        self._drafts = drafts["content"]
        derived: dict[str, pl.Expr | pl.Series] = {
            "doc": pl.int_range(len(self), len(self) + drafts.height, dtype=pl.Int64),
            "t": pl.lit(t),
            "duplicate_of": self._first_copies(observed["content_hash"]),
            "retired_at": pl.lit(None),
            "weight": pl.lit(1.0),
            "verdict": pl.lit(None),
            "reason": pl.lit(None),
        }
        columns = segment(self._contents.dtype)
        table = pl.concat([drafts, observed], how="horizontal")
        return table.select(derived.get(name, pl.col(name)).cast(dtype).alias(name) for name, dtype in columns.items())

    def _first_copies(self, hashes: pl.Series) -> pl.Series:
        """Return the earliest document with the hash of each draft, or null for the first one; register new hashes."""
        copies: list[int | None] = []
        for doc, digest in enumerate(hashes.to_list(), start=len(self)):
            first = self._first_with_hash.setdefault(digest, doc)
            copies.append(None if first == doc else first)
        return pl.Series(copies, dtype=pl.Int64)

    def publish(self, table: pl.DataFrame) -> None:
        """Append a segment (columns of SEGMENT); rows with a verdict are recorded, but never on the web."""
        self.index = pl.concat([self.index, table.select(INDEX.keys())])
        self._contents = pl.concat([self._contents, table["content"]])
        self._drafts = self._contents.clear()

    def live(self) -> pl.DataFrame:
        """Return the index rows of the documents that are on the web now."""
        if self._live is None or self._live[0] is not self.index:
            self._live = self.index, self.index.filter(pl.col("retired_at").is_null() & pl.col("verdict").is_null())
        return self._live[1]

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents (or of prepared drafts) by id, in the order of ``docs``."""
        available = pl.concat([self._contents, self._drafts], rechunk=False) if self._drafts.len() else self._contents
        return available.gather(docs)

    def retire(self, docs: pl.Series, t: int) -> None:
        """Retire documents from the web at step ``t``."""
        if docs.len():
            rows = self.index.select("doc", "weight")[docs.unique().sort()]
            self._apply(rows.with_columns(retired_at=pl.lit(t, pl.Int32)))

    def reweigh(self, docs: pl.Series, factor: pl.Series) -> None:
        """Multiply the prominence of live documents by ``factor``, one per document."""
        change = pl.DataFrame({"doc": docs, "factor": factor}).filter(pl.col("factor") != 1.0)
        if change.is_empty():
            return
        rows = self.index.select("doc", "weight", "retired_at").join(change, on="doc", how="inner")
        self._apply(rows.with_columns(weight=pl.col("weight") * pl.col("factor")))

    def _apply(self, rows: pl.DataFrame) -> None:
        change = rows.select(pl.col(name).cast(dtype) for name, dtype in INDEX_CHANGE.items())
        # The id of a document is its row number, so no search is needed.
        retired = change.filter(pl.col("retired_at").is_not_null())
        self.index = self.index.with_columns(
            self.index["weight"].scatter(change["doc"], change["weight"]),
            self.index["retired_at"].scatter(retired["doc"], retired["retired_at"]),
        )
        self._changed = pl.concat([self._changed, change]).unique("doc", keep="last", maintain_order=True)

    def take_changes(self) -> pl.DataFrame:
        """Return the rows retired or reweighed since the last call (columns of INDEX_CHANGE), and clear them."""
        changed, self._changed = self._changed.sort("doc"), empty(INDEX_CHANGE)
        return changed

    def restore(self, segments: pl.DataFrame, changes: pl.DataFrame) -> None:
        """Replace the corpus with stored segments and changes, in order of steps."""
        self.index, self._contents, self._first_with_hash = empty(INDEX), self._contents.clear(), {}
        self._changed, self._live = empty(INDEX_CHANGE), None
        self.publish(segments)
        for doc, digest in segments.select("doc", "content_hash").iter_rows():
            self._first_with_hash.setdefault(digest, doc)
        self._apply(changes.unique("doc", keep="last", maintain_order=True))
        self.take_changes()
