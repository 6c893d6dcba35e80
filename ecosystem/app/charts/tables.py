"""The columns of documents and of the ledger that the page draws, read when they are first chosen."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ecosystem.app.worlds.run_view import RunView
from ecosystem.corpus.schema import ASSISTED, COLUMNS, FEATURES, Column

DOCUMENTS, LEDGER = "documents", "ledger"
KINDS = {DOCUMENTS: "documents", LEDGER: "candidates"}  # what a row of each table is
_HIDDEN = ("content", "content_hash", "row", "reason", "doc", "document", "duplicate_of")
_STATE = ("retired_at", "weight", "status")  # of a document after the step shown
_PARTS = {"status": ("verdict", "retired_at")}  # what a column is made of
_BLANKS = {  # what a missing name means
    (DOCUMENTS, "verdict"): "published",
    (DOCUMENTS, "model"): "none",
    (LEDGER, "verdict"): "kept",
    (LEDGER, "added_by"): "scraped",
    (LEDGER, "source"): "the web",
}
_DERIVED: dict[str, Column] = {
    "origin": Column(pl.String(), "human or synthetic"),
    "population": Column(pl.String(), "population of the author"),
    "status": Column(pl.String(), "on the web, refused at publication, or gone"),
}
_PUBLISHED = "t"


class Tables:
    """The tables of a run as a page shows them; a column stays in memory once it was read."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._columns: dict[tuple[str, str], pl.Series] = {}
        self._version = (-1, -1)

    def offered(self, table: str) -> dict[str, Column]:
        """Return the columns of a table by name; those of the ledger have the columns of their documents too."""
        scenario = self.view.scenario
        absent = {*_HIDDEN, "synthetic"}
        if scenario.modality != "text":
            absent |= {*FEATURES, "size"}
        if not any(writer.choice or writer.adoption for writer in scenario.writers.values()):
            absent |= {*ASSISTED}
        corpus = {name: column for name, column in COLUMNS["corpus"].items() if name not in absent}
        documents = {**_DERIVED, **corpus}
        if table == DOCUMENTS:
            return documents
        own = {name: column for name, column in COLUMNS["ledger"].items() if name not in absent}
        steps = {"step": Column(pl.Int32(), "step of the selection", "step")}
        kept = {name: column for name, column in documents.items() if name not in (*own, *_STATE)}
        return {"origin": _DERIVED["origin"], **steps, **own, **kept}

    def is_category(self, table: str, name: str) -> bool:
        """Return whether a column holds names rather than numbers."""
        return not self.offered(table)[name].dtype.is_numeric()

    def title(self, table: str, name: str, *, unit: bool = False) -> str:
        """Return the name of a column in words, with its ``unit`` if it has one."""
        words = "step of publication" if name == _PUBLISHED else name.replace("_", " ")
        measured = self.offered(table)[name].unit if unit else ""
        return f"{words} ({measured})" if measured and measured not in words else words

    def rows(self, table: str, names: Sequence[str], step: int) -> pl.DataFrame:
        """Return columns of the rows up to a step, as they were after it.

        Numbers that are not finite are null. Raises StoreError if a table is damaged.
        """
        version = (self.view.last, id(self.view.run))
        if version != self._version:
            self._columns.clear()
            self._version = version
        needed = list(dict.fromkeys(part for name in names for part in _PARTS.get(name, (name,))))
        when = _PUBLISHED if table == DOCUMENTS else "step"
        frame = pl.DataFrame({name: self._column(table, name) for name in dict.fromkeys([when, *needed])})
        frame = frame.filter(pl.col(when) <= step)
        if "retired_at" in needed:
            frame = frame.with_columns(pl.when(pl.col("retired_at") <= step).then("retired_at"))
        if "status" in names:
            refused, gone = (pl.col(name).is_not_null() for name in _PARTS["status"])
            status = pl.when(refused).then(pl.lit("refused")).when(gone).then(pl.lit("gone"))
            frame = frame.with_columns(status=status.otherwise(pl.lit("on the web")))
        blanks = {name: text for (of, name), text in _BLANKS.items() if of == table and name in names}
        numbers = [name for name in names if frame[name].dtype.is_float()]
        return frame.select(
            pl.when(pl.col(name).is_finite()).then(name)
            if name in numbers
            else pl.col(name).fill_null(blanks[name])
            if name in blanks
            else pl.col(name)
            for name in names
        )

    def _column(self, table: str, name: str) -> pl.Series:
        if (table, name) not in self._columns:
            self._columns[table, name] = self._read(table, name).rename(name)
        return self._columns[table, name]

    def _read(self, table: str, name: str) -> pl.Series:
        documents = self.view.documents
        if name == "origin":
            flags = documents["synthetic"] if table == DOCUMENTS else self._of_ledger("synthetic")
            return pl.select(pl.when(flags).then(pl.lit("synthetic")).otherwise(pl.lit("human"))).to_series()
        if table == LEDGER:
            return self._of_ledger(name)
        if name == "population":
            return documents["author"].str.replace("/[0-9]+$", "")
        if name in documents.columns:
            return documents[name]
        read = self.view.store.table("corpus", self._steps, (name,))[name]
        if name != "weight":
            return read
        changed = self.view.store.table("index", self._steps).unique("doc", keep="last")
        joined = documents.select("doc").with_columns(read).update(changed.select("doc", "weight"), on="doc")
        return joined["weight"]

    def _of_ledger(self, name: str) -> pl.Series:
        """Return a column of the ledger, or of the documents in it (null for injected ones)."""
        store = self.view.store
        if name == "step":
            return pl.concat(
                [
                    pl.repeat(t, store.table("ledger", range(t, t + 1), ("reader",)).height, dtype=pl.Int32, eager=True)
                    for t in self._steps
                ]
            )
        if name in COLUMNS["ledger"]:
            return store.table("ledger", self._steps, (name,))[name]
        keys = store.table("ledger", self._steps, ("document", "source"))
        row = keys.select(pl.when(pl.col("source").is_null()).then("document"))["document"]
        return self._column(DOCUMENTS, name).gather(row)

    @property
    def _steps(self) -> range:
        return range(self.view.last + 1)
