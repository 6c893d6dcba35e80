"""The corpus: every document ever published, whether it is on the web, and its content.

The id of a document is its row number, in order of publication. What every step needs of all documents is kept as
compact arrays; everything else is read by row (:mod:`ecosystem.corpus.storage.documents`). A document that leaves the
web is marked as retired, not deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ecosystem.corpus.features import features
from ecosystem.corpus.schema import INDEX, INDEX_CHANGE, LEFT, empty, segment
from ecosystem.corpus.storage.documents import Documents
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.storage.sorted_runs import FirstCopies
from ecosystem.corpus.storage.stored_arrays import GrowingArray

_ARRAYS: dict[str, Any] = {
    "t": np.int32,
    "site": np.int32,
    "synthetic": np.bool_,
    "depth": np.float64,
    "weight": np.float64,
    "retired_at": np.int32,  # _NEVER: it has not left the web
    "published": np.bool_,  # False: refused at the publish gate
}
_NEVER = -1
_UNSORTED = 4  # documents are sorted by site again when this share of them (1 in 4) is new


class Corpus:
    """All documents of one web, with methods that publish, retire and reweigh them and read their contents."""

    def __init__(
        self,
        content: pl.DataType | None = None,
        scratch: Scratch | None = None,
        assisted: bool = False,
        *,
        explained: bool = False,
    ) -> None:
        """Create an empty corpus; ``content`` is the type of its documents (absent: text).

        ``scratch`` takes the files of documents that do not fit into memory (absent: a temporary folder). If writers
        are ``assisted`` by models, the share of AI in every document and its trainer are recorded too; and if its
        departures are ``explained``, the reason for which each document left the web.
        """
        self.assisted, self.explained = assisted, explained
        self._change_schema = {**INDEX_CHANGE, **(LEFT if explained else {})}
        self._schema = segment(content or pl.String(), assisted)
        self._scratch = scratch or Scratch()
        self._clear()

    def _clear(self) -> None:
        self._documents = Documents(self._schema, self._scratch)
        self._drafts = pl.Series("content", [], dtype=self.content)  # contents of drafts that are not published
        arrays = _ARRAYS | ({"ai_share": np.float64} if self.assisted else {})
        arrays |= {"left_by": np.int16} if self.explained else {}
        self.reasons: list[str] = []  # for which documents left the web; the array left_by holds places in it
        self._arrays = {name: GrowingArray(dtype) for name, dtype in arrays.items()}
        self._copies = FirstCopies(self._scratch)
        self._drawn: dict[tuple[str | None, int], int] = {}  # number of documents of each source at each step
        self._changed = empty(self._change_schema)
        self._live: Live | None = None
        self._by_site = np.zeros(0, np.int64)  # the first documents, sorted by site
        self._site_starts = np.zeros(1, np.int64)

    def __len__(self) -> int:
        """Return the number of documents ever published, refused drafts included."""
        return len(self._documents)

    @property
    def content(self) -> pl.DataType:
        """Type of the contents of every document."""
        return self._schema["content"]

    @property
    def columns(self) -> list[str]:
        """Names of the columns of a segment."""
        return list(self._schema)

    @property
    def last_id(self) -> int:
        """Id of the newest document or draft; -1 if there are none."""
        return len(self) + self._drafts.len() - 1

    # Publishing.

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
        if self.assisted:
            share = pl.col("ai_share") if "ai_share" in drafts.columns else pl.lit(None, pl.Float64)
            derived["ai_share"] = share.fill_null(pl.col("synthetic").cast(pl.Float64))
            derived |= {} if "assistant" in drafts.columns else {"assistant": pl.lit(None)}
        table = pl.concat([drafts, observed], how="horizontal")
        return table.select(
            derived.get(name, pl.col(name)).cast(dtype).alias(name) for name, dtype in self._schema.items()
        )

    def _first_copies(self, hashes: pl.Series) -> pl.Series:
        """Return the earliest document with the hash of each draft, or null for the first one; register new hashes."""
        copies = self._copies.register(hashes.to_numpy(), len(self))
        return pl.Series(copies).set(pl.Series(copies < 0), None)

    def publish(self, table: pl.DataFrame) -> None:
        """Append a segment (columns of SEGMENT); rows with a verdict are recorded, but never on the web."""
        derived = {"retired_at": table["retired_at"].fill_null(_NEVER), "published": table["verdict"].is_null()}
        derived["left_by"] = pl.repeat(_NEVER, table.height, dtype=pl.Int16, eager=True)
        for name, array in self._arrays.items():
            array.append((derived[name] if name in derived else table[name]).to_numpy())
        for source, t, count in table.group_by("source", "t").len().iter_rows():
            self._drawn[source, t] = self._drawn.get((source, t), 0) + count
        self._documents.append(table)
        self._drafts = self._drafts.clear()
        self._live = None

    # Reading.

    @property
    def index(self) -> pl.DataFrame:
        """All documents, with every column but their contents."""
        return self.table(list(INDEX))

    def array(self, name: str) -> NDArray[Any]:
        """Return t, site, synthetic, ai_share, depth, weight, retired_at, published or left_by, [documents].

        The array must not be changed. Of documents that have not left the web, retired_at is -1. The values of
        left_by, where departures are explained, are places in ``reasons``, or -1. Where writers are not assisted,
        ai_share equals synthetic.
        """
        return self._arrays["synthetic" if name == "ai_share" and not self.assisted else name].array

    def table(self, names: Sequence[str]) -> pl.DataFrame:
        """Return these columns of all documents; a large web takes one pass over its files."""
        return self._current(self._documents.columns(names), slice(None))

    def rows(self, docs: ArrayLike | pl.Series, names: Sequence[str] = tuple(INDEX)) -> pl.DataFrame:
        """Return documents by id, in the order of ``docs``, with these columns."""
        ids = np.asarray(docs, dtype=np.int64)
        return self._current(self._documents.rows(ids, names), ids)

    def _current(self, frame: pl.DataFrame, at: NDArray[np.int64] | slice) -> pl.DataFrame:
        """Replace the columns of a new frame that have changed since publication, in place; return the frame."""
        for name, changed in (("weight", pl.Series), ("retired_at", _retired_at)):
            if name in frame.columns:
                frame.replace_column(frame.get_column_index(name), changed(name, self.array(name)[at]))
        return frame

    def contents(self, docs: ArrayLike | pl.Series) -> pl.Series:
        """Return the contents of documents (or of prepared drafts) by id, in the order of ``docs``."""
        ids = np.asarray(docs, dtype=np.int64)
        draft = ids >= len(self)
        if not draft.any():
            return self._documents.rows(ids, ["content"])["content"]
        drafts = self._drafts.gather(ids[draft] - len(self))
        if draft.all():
            return drafts
        published = self._documents.rows(ids[~draft], ["content"])["content"]
        place = np.empty_like(ids)
        place[np.concatenate([np.flatnonzero(~draft), np.flatnonzero(draft)])] = np.arange(ids.size)
        return pl.concat([published, drafts]).gather(place)

    def drawn(self, source: str, t: int) -> int:
        """Return the number of documents of a source that people had written by the end of step ``t``."""
        return sum(count for (of, step), count in self._drawn.items() if of == source and step <= t)

    def live(self) -> Live:
        """Return the documents that are on the web now."""
        if self._live is None:
            self._live = Live(self, np.flatnonzero(self._is_live()))
        return self._live

    def live_on(self, sites: Iterable[int]) -> NDArray[np.int64]:
        """Return the ids of the documents that are on the web now, on these sites, ascending."""
        site = self.array("site")
        if (site.size - self._by_site.size) * _UNSORTED > site.size:
            self._by_site = np.argsort(site, kind="stable")
            self._site_starts = np.searchsorted(site[self._by_site], np.arange(site.max() + 2))
        chosen = np.fromiter(sites, np.int64)
        known = chosen[chosen + 1 < self._site_starts.size]
        spans = zip(self._site_starts[known].tolist(), self._site_starts[known + 1].tolist(), strict=True)
        new = self._by_site.size + np.flatnonzero(np.isin(site[self._by_site.size :], chosen))
        docs = np.sort(np.concatenate([*(self._by_site[a:b] for a, b in spans), new]))
        return docs[self._is_live(docs)]

    def _is_live(self, docs: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.bool_]:
        return np.asarray(self.array("published")[docs] & (self.array("retired_at")[docs] == _NEVER))

    # Changing.

    def retire(self, docs: pl.Series, t: int, by: str | pl.Series) -> None:
        """Retire documents from the web at step ``t``; ``by`` is the reason, or that of each document."""
        ids, first = np.unique(docs.to_numpy(), return_index=True)
        if self.explained:
            self._explain(ids, pl.repeat(by, ids.size, eager=True) if isinstance(by, str) else by.gather(first))
        self._change(ids, self.array("weight")[ids], np.full(ids.size, t, np.int32))

    def reweigh(self, docs: ArrayLike | pl.Series, factor: pl.Series) -> None:
        """Multiply the prominence of live documents by ``factor``, one per document."""
        ids, factors = np.asarray(docs, dtype=np.int64), factor.to_numpy()
        ids, factors = ids[factors != 1.0], factors[factors != 1.0]
        self._change(ids, self.array("weight")[ids] * factors, self.array("retired_at")[ids])

    def _explain(self, docs: NDArray[np.int64], reasons: pl.Series) -> None:
        """Note why documents leave the web; one that has left before keeps its first reason."""
        staying = self.array("retired_at")[docs] == _NEVER
        for reason in reasons.filter(pl.Series(staying)).unique(maintain_order=True).drop_nulls():
            if reason not in self.reasons:
                self.reasons.append(reason)
            own = staying & (reasons == reason).fill_null(value=False).to_numpy()
            self.array("left_by")[docs[own]] = self.reasons.index(reason)

    def _reason(self, docs: NDArray[np.int64]) -> pl.Series:
        """Return why each document has left the web, or null."""
        place = pl.Series(self.array("left_by")[docs], dtype=pl.Int64)
        return pl.Series(self.reasons, dtype=pl.String).gather(place.set(place == _NEVER, None))

    def _change(self, docs: NDArray[np.int64], weight: NDArray[np.float64], retired_at: NDArray[np.int32]) -> None:
        if not docs.size:
            return
        self.array("weight")[docs], self.array("retired_at")[docs] = weight, retired_at
        columns = {"doc": docs, "retired_at": _retired_at("retired_at", retired_at), "weight": weight}
        columns |= {"left_by": self._reason(docs)} if self.explained else {}
        change = pl.DataFrame(columns, schema=self._change_schema)
        self._changed = pl.concat([self._changed, change]).unique("doc", keep="last", maintain_order=True)
        self._live = None

    def take_changes(self) -> pl.DataFrame:
        """Return the rows retired or reweighed since the last call (columns of INDEX_CHANGE), and clear them."""
        changed, self._changed = self._changed.sort("doc"), empty(self._change_schema)
        return changed

    def restore_segment(self, table: pl.DataFrame) -> None:
        """Append a stored segment."""
        self._first_copies(table["content_hash"])
        self.publish(table)

    def restore(self, segments: Iterable[pl.DataFrame], changes: pl.DataFrame) -> None:
        """Replace the corpus with stored segments and changes, in order of steps."""
        self._clear()
        for table in segments:
            self.restore_segment(table)
        last = changes.unique("doc", keep="last", maintain_order=True)
        retired_at = last["retired_at"].fill_null(_NEVER).to_numpy()
        if self.explained:
            self._explain(last["doc"].to_numpy(), last["left_by"])
        self._change(last["doc"].to_numpy(), last["weight"].to_numpy(), retired_at)
        self.take_changes()


def _retired_at(name: str, values: NDArray[np.int32]) -> pl.Series:
    """Return steps of retirement as a column, in which documents that have not left the web are null."""
    return pl.Series(name, values).set(pl.Series(values == _NEVER), None)


class Live:
    """The documents that are on the web at one moment; ``doc`` [documents] holds their ids, ascending."""

    def __init__(self, corpus: Corpus, doc: NDArray[np.int64]) -> None:
        self._corpus = corpus
        self.doc = doc

    def __len__(self) -> int:
        """Return the number of documents."""
        return self.doc.size

    def array(self, name: str) -> NDArray[Any]:
        """Return t, site, synthetic, ai_share, depth or weight of the documents, [documents]."""
        every = self._corpus.array(name)
        return every if len(self) == every.size else every[self.doc]

    def columns(self, *names: str) -> pl.DataFrame:
        """Return doc, t, site, synthetic, ai_share, depth or weight of the documents as a table."""
        return pl.DataFrame({name: self.doc if name == "doc" else self.array(name) for name in names})

    def table(self) -> pl.DataFrame:
        """Return every column of the documents but their contents."""
        return self._corpus.rows(self.doc)
