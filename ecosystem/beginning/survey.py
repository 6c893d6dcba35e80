"""Describe a collection of texts: size, languages, copies, and what Gopher's rules would refuse."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.features import features
from ecosystem.corpus.languages import UNSPACED, languages, script
from ecosystem.errors import DataError
from ecosystem.formats import percent
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.policies.filters import GopherQuality
from ecosystem.policies.reasons import first_reason
from ecosystem.sources.files import tidy
from ecosystem.streams import Streams

SAMPLE = 20_000  # documents that features, near-duplicates and Gopher's rules are computed on
_LANGUAGES = 2_000  # documents whose language is guessed
_SHOWN = 5  # languages that are named
_TEXTS_AT_A_TIME = 1 << 14


@dataclass(frozen=True)
class Survey:
    """What is known of a collection of texts; shares are of its distinct documents, or of a sample of ``sampled``."""

    texts: int  # as stored, with missing and empty ones
    empty: int
    copies: int  # exact copies of earlier documents
    documents: int  # distinct documents with text
    words: int
    words_median: float
    sampled: int
    near_duplicates: float
    refused: dict[str, float]  # by variant of gopher_quality
    reasons: list[tuple[str, int]]  # most frequent rules that refuse, with the number of documents of the sample
    languages: dict[str, float]
    languages_by: str
    unspaced: bool  # whether most documents are in a script without spaces between words

    @property
    def english(self) -> bool:
        """Whether half of the documents are in English, as far as that is known."""
        return self.languages.get("en", self.languages.get("LATIN", 0.0)) >= 0.5

    def plain(self) -> dict[str, Any]:
        """Return the survey as data for JSON."""
        return {key: value for key, value in vars(self).items() if key != "unspaced"}

    def lines(self) -> list[str]:
        """Return the survey as lines for the terminal."""
        about = "" if self.sampled == self.documents else f" (of a sample of {self.sampled:,})"
        likely = [(name, share) for name, share in self.languages.items() if share >= 0.01]
        named = ", ".join(f"{name} {percent(share)}" for name, share in likely[:_SHOWN])
        refused = ", ".join(f"{percent(share)} ({variant})" for variant, share in self.refused.items())
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in self.reasons)
        approximately = "about " if about else ""
        return [
            f"documents   {self.documents:,} ({self.words_median:,.0f} words each, median)",
            f"words       {approximately}{self.words:,}",
            f"languages   {named or 'unknown'} ({self.languages_by})",
            f"left out    {self.copies:,} exact copies, {self.empty:,} without text",
            f"nearly same {percent(self.near_duplicates)} of documents{about} (MinHash, similarity 0.8)",
            f"Gopher      would refuse {refused}{about}" + (f"; {reasons}" if reasons else ""),
        ]


def survey(texts: Iterable[str | None], origin: str) -> Survey:
    """Read texts once and describe them; raise DataError if there are none.

    A sample of at most SAMPLE distinct documents is kept, drawn with equal probability (reservoir sampling, Vitter
    1985, algorithm R), always the same one for the same texts.
    """
    noise = Streams(1).at("survey")
    seen: set[bytes] = set()
    sample: list[str] = []
    counts = {"texts": 0, "empty": 0, "copies": 0}
    words = 0
    for text in texts:
        counts["texts"] += 1
        tidied = tidy(text) if text is not None else ""
        if not tidied:
            counts["empty"] += 1
            continue
        digest = blake2b(tidied.encode(), digest_size=8).digest()
        if digest in seen:
            counts["copies"] += 1
            continue
        seen.add(digest)
        words += len(tidied.split())
        if len(sample) < SAMPLE:
            sample.append(tidied)
        else:
            place = math.floor(float(noise.uniform(np.array([len(seen)]))[0]) * len(seen))
            if place < SAMPLE:
                sample[place] = tidied
    if not sample:
        raise DataError(f"{origin}: contains no text; give files that do.")
    return _described(pl.Series("text", sample), len(seen), words, counts)


def _described(sample: pl.Series, documents: int, words: int, counts: dict[str, int]) -> Survey:
    columns = features(sample)
    index = NearDuplicates()
    for first in range(0, sample.len(), _TEXTS_AT_A_TIME):
        part = sample.slice(first, _TEXTS_AT_A_TIME)
        index.add(np.arange(first, first + part.len()), part)
    near = index.earliest(np.arange(sample.len())).is_not_null().sum()
    refused, reasons = {}, pl.Series(dtype=pl.String)
    for variant in ("standard", "short_text"):
        given = first_reason(columns, GopherQuality.model_validate({"variant": variant}).rules())
        refused[variant] = int(given.is_not_null().sum()) / sample.len()
        reasons = given.drop_nulls() if variant == "standard" else reasons
    rules = reasons.str.replace(r" [\d.]+ is (below|above) .*$", " $1 its limit").value_counts(sort=True).head(3)
    found, told_by = languages(sample.head(_LANGUAGES))
    unspaced = [script(text[:200]).startswith(UNSPACED) for text in sample.head(200)]
    many = sum(unspaced) > len(unspaced) / 2
    return Survey(
        texts=counts["texts"],
        empty=counts["empty"],
        copies=counts["copies"],
        documents=documents,
        words=round(float(columns["words"].mean()) * documents) if many else words,  # type: ignore[arg-type]
        words_median=float(columns["words"].median() or 0.0),  # type: ignore[arg-type]
        sampled=sample.len(),
        near_duplicates=int(near) / sample.len(),
        refused=refused,
        reasons=[(str(reason), int(count)) for reason, count in rules.iter_rows()],
        languages=found,
        languages_by=told_by,
        unspaced=many,
    )
