"""Made-up documents, and a policy context for them, for the checks of policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.features import features
from ecosystem.corpus.overlap import Overlaps
from ecosystem.corpus.schema import SEGMENT
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.policies.base import Answers, Context, Scores
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.sources.base import FiniteReservoir, Reservoir
from ecosystem.streams import Stream, Streams

ROWS = 97  # documents in the fake finite source
STEP = 6  # step of the fake context


def sample_documents(n: int = 60) -> pl.DataFrame:
    """Return ``n`` made-up documents with the columns of ``schema.SEGMENT``: long and short, clean and not."""
    rng = Stream(0, "testing").rng()
    vocabulary = [
        "the",
        "of",
        "and",
        "to",
        "with",
        *(f"{a}{b}" for a in "bdfgklmn" for b in ("ala", "ero", "ish", "un")),
    ]
    kinds: list[Callable[[], str]] = [
        lambda: " ".join(rng.choice(vocabulary, int(rng.integers(40, 120)))),
        lambda: " ".join(rng.choice(vocabulary, int(rng.integers(1, 12)))),
        lambda: "\n".join(["- " + " ".join(rng.choice(vocabulary, 3))] * int(rng.integers(1, 6))),
        lambda: "# 12 ... # 7 …\n" * int(rng.integers(0, 4)),
    ]
    texts: list[str] = []
    for i in range(n):
        copied = i % 7 == 6
        texts.append(texts[i // 2] + (" again" if i % 2 else "") if copied else kinds[i % 9 % 4]())
    text = pl.Series("content", texts, dtype=pl.String)
    synthetic = rng.random(n) < 0.5
    frame = features(text).with_columns(
        text,
        doc=pl.int_range(n, dtype=pl.Int64),
        t=pl.Series(np.sort(rng.integers(0, STEP + 1, n))),
        site=pl.Series(rng.integers(0, 5, n)),
        retired_at=pl.lit(None),
        weight=pl.Series(rng.uniform(0.5, 2, n)),
        author=pl.Series(np.where(synthetic, "models/0", "people/0")),
        synthetic=pl.Series(synthetic),
        depth=pl.Series(np.where(synthetic, 1.0, 0.0)),
        model=pl.Series(["model" if s else None for s in synthetic], dtype=pl.String),
        source=pl.Series([None if s else "docs" for s in synthetic], dtype=pl.String),
        row=pl.lit(None),
        verdict=pl.lit(None),
        reason=pl.lit(None),
    )
    first = pl.col("doc").first().over("content_hash")
    frame = frame.with_columns(duplicate_of=pl.when(first < pl.col("doc")).then(first))
    return frame.select(pl.col(name).cast(dtype) for name, dtype in SEGMENT.items())


def sample_context(table: pl.DataFrame, t: int = STEP, rows: int | None = ROWS) -> Callable[[str], Context]:
    """Return a function that makes a policy's context at step ``t`` for ``table`` (columns of ``schema.SEGMENT``).

    Texts and near-duplicates are those of the table; scores, classifiers, correct labels, watermarks and verdicts of
    other filters are made up. Every source has ``rows`` documents (None: endless), which repeat those of the table;
    writers have drawn the first 40.
    """
    streams = Streams(1)
    corpus, models = SampleCorpus(table.sort("doc")), SampleModels(streams)
    sources, oracle = SampleSources(corpus.table["content"], rows), SampleOracle(streams)

    def context_of(policy: str) -> Context:
        return Context(
            policy=policy,
            reader="reader",
            t=t,
            stream=streams.at(f"policies/{policy}/reader", t),
            static_stream=streams.at(f"policies/{policy}"),
            corpus=corpus,
            sources=sources,
            models=models,
            classifiers=oracle,
            truth=oracle,
            report_shortfall=lambda wanted, given: None,
            refused_by=lambda other, docs: streams.at(f"refused/{other}").uniform(docs.to_numpy()) < 0.5,
        )

    return context_of


class SampleCorpus:
    """The documents of a table as a corpus, all of them live."""

    def __init__(self, table: pl.DataFrame) -> None:
        """``table`` has the columns of ``schema.SEGMENT`` and is sorted by ``doc``."""
        self.table = table
        self._indexes: dict[tuple[int, int, float], NearDuplicates] = {}

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents by id."""
        return self.table["content"].gather(self.table["doc"].search_sorted(docs))

    def live(self) -> pl.Series:
        """Return all ids."""
        return self.table["doc"]

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the earliest near-duplicate of each document in the table, or null."""
        key = (num_perm, shingle, threshold)
        if key not in self._indexes:
            self._indexes[key] = NearDuplicates(*key)
            self._indexes[key].add(self.table["doc"], self.table["content"])
        return self._indexes[key].earliest(docs)

    def held_out_overlaps(self, words: int, docs: pl.Series) -> pl.Series:
        """Return the overlap of each document with the first five documents of the table, or null."""
        overlaps = Overlaps(self.table["content"].head(5), words)
        overlaps.add(self.contents(docs))
        found = pl.Series(overlaps.first(np.arange(docs.len())))
        return found.set(found < 0, None)


@dataclass(frozen=True)
class SampleSources:
    """Sources of ``rows`` documents (None: endless), which repeat ``documents``; writers have drawn the first 40."""

    documents: pl.Series
    rows: int | None

    def size(self, source: str) -> int | None:
        """Return the number of documents of every source."""
        return self.rows

    def contents(self, source: str, rows: NDArray[np.int64]) -> pl.Series:
        """Return the contents of rows of a source."""
        return self.documents.gather(rows % self.documents.len())

    def drawn(self, source: str, t: int) -> int:
        """Return the number of rows that writers have drawn by the end of any step."""
        return 40 if self.rows is None else min(40, self.rows)


@dataclass(frozen=True)
class SampleModels:
    """Made-up scores and watermarks, as functions of the document's id and the model's name."""

    streams: Streams

    def score(self, model: str, docs: pl.Series) -> Answers:
        """Return (nats, tokens) of documents."""
        tokens = (self.streams.at(f"tokens/{model}").uniform(docs.to_numpy()) * 80).astype(np.int64)
        return tokens * 8 * self.streams.at(f"nats/{model}").uniform(docs.to_numpy()), tokens

    def watermark(self, model: str, mark: WatermarkSpec, docs: pl.Series) -> Answers:
        """Return (z-scores, scored tokens) of documents."""
        stream = self.streams.at(f"watermark/{model}/{mark.key}")
        z, tokens = stream.uniform(docs.to_numpy()), stream.child("tokens").uniform(docs.to_numpy())
        return 20 * z - 10, (80 * tokens).astype(np.int64)


@dataclass(frozen=True)
class SampleOracle:
    """Made-up classifiers and labels, as functions of the document's id."""

    streams: Streams

    def scores(self, policy: str, docs: pl.Series) -> Scores:
        """Return the scores that a policy's classifier assigns to documents."""
        return Scores(self.streams.at(f"judge/{policy}").uniform(docs.to_numpy()), np.arange(200) / 200)

    def label_is_correct(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether the label of each document is correct."""
        return self.streams.at("right").uniform(docs.to_numpy()) < 0.5


class SampleReservoirs(dict[str, Reservoir]):
    """The same fake source for every name."""

    def __init__(self, texts: pl.Series) -> None:
        super().__init__()
        self._reservoir = FiniteReservoir("pretended", texts, 0.0, Streams(1))

    def __missing__(self, name: str) -> Reservoir:
        return self._reservoir
