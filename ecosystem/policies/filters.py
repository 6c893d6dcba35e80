"""Filters that judge one document at a time by its length, quality, repetition, likelihood or origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus import datatrove
from ecosystem.draws import lowest
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import Rule, above, below, first_reason
from ecosystem.types import Share

_CRAWL = 1000  # most documents of the web that quantiles of the perplexity are computed from

Count = Annotated[int, Field(ge=0)]
Counting = Literal["datatrove"] | None


class FeatureFilter(Filter):
    """A filter that judges a document by its features (:mod:`ecosystem.corpus.features`) alone.

    So a plan can say which share of the human documents it will refuse.
    """

    reads_text: ClassVar[bool] = True

    @abstractmethod
    def rules(self) -> list[Rule]:
        """Return the rules; the first one broken refuses a document."""

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse by the first rule broken."""
        return first_reason(self.counted(docs, lambda: ctx.contents(docs["doc"])), self.rules())

    def counted(self, docs: pl.DataFrame, texts: Callable[[], pl.Series]) -> pl.DataFrame:
        """Return the features that the rules read: the columns of ``docs``, unless the filter counts in ``texts``."""
        return docs


@POLICIES.register("length")
class Length(FeatureFilter):
    """Refuses documents with too few or too many words.

    Words are separated by white space; in Chinese, Japanese, Thai, Lao, Khmer and Burmese text they are found by
    dictionary.
    """

    min_words: Count = Field(5, description="fewest words of a document")
    max_words: Count | None = Field(None, description="most words of a document; absent: no limit")

    @model_validator(mode="after")
    def _ordered(self) -> Length:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words = {self.max_words} must be at least min_words = {self.min_words}")
        return self

    def rules(self) -> list[Rule]:
        """Return the limits of the number of words."""
        limits = [below("words", self.min_words, "number of words")]
        if self.max_words is not None:
            limits.append(above("words", self.max_words, "number of words"))
        return limits


@POLICIES.register("gopher_quality")
class GopherQuality(FeatureFilter):
    """Refuses documents that break a quality rule of MassiveText (Rae et al. 2021, Gopher, appendix A1.1).

    The published rules require 50 words and two stop words, so they refuse most short texts, human or not. The variant
    ``short_text`` requires 5 words and one stop word, and leaves the other rules unchanged.

    Here words are separated by white space, hash signs and ellipses count together, a bullet is any common sign, and
    stop words may be capitalised. With ``as = "datatrove"`` all are counted as that library counts them
    (:mod:`ecosystem.corpus.datatrove`): punctuation marks are words except in the number of words and their mean
    length, hash signs and ellipses have a limit each, only • and - are bullets, blank lines are lines, and stop words
    are in lower case.

    The rules are for English: the stop words are English, and words of other languages are longer or shorter (1.4 to
    2.4 characters in Chinese and Japanese, 3.5 in Korean, 4 in Thai, 5 in Arabic). For other languages set
    ``min_stop_words = 0``, and for Chinese and Japanese ``min_mean_word_length = 1``. Words are those of the filter
    ``length``. The plan of a run warns of rules that will refuse nearly all human documents.
    """

    variant: Literal["standard", "short_text"] = Field(
        "standard", description="standard: at least 50 words and 2 stop words, as published; short_text: 5 and 1"
    )
    min_words: Count | None = Field(None, description="fewest words of a document; absent: as the variant requires")
    max_words: Count = Field(100_000, description="most words of a document")
    min_mean_word_length: Annotated[float, Field(ge=0)] = Field(
        3.0, description="least mean word length, in characters"
    )
    max_mean_word_length: Annotated[float, Field(ge=0)] = Field(
        10.0, description="largest mean word length, in characters"
    )
    max_symbol_ratio: Annotated[float, Field(ge=0)] = Field(0.1, description="most hash signs and ellipses per word")
    max_bullet_lines: Share = Field(0.9, description="largest share of lines that begin with a bullet")
    max_ellipsis_lines: Share = Field(0.3, description="largest share of lines that end with an ellipsis")
    min_alphabetic_words: Share = Field(0.8, description="least share of words with at least one letter")
    min_stop_words: Annotated[int, Field(ge=0, le=8)] | None = Field(
        None,
        description="fewest different stop words (the be to of and that have with); absent: as the variant requires",
    )
    counting: Counting = Field(
        None, alias="as", description="datatrove: count as this library does; absent: by the features of the web"
    )

    @model_validator(mode="after")
    def _ordered(self) -> GopherQuality:
        for low, high, name in (
            (self._least_words, self.max_words, "words"),
            (self.min_mean_word_length, self.max_mean_word_length, "mean_word_length"),
        ):
            if high < low:
                raise ValueError(f"max_{name} = {high:g} must be at least min_{name} = {low:g}")
        return self

    @property
    def _least_words(self) -> int:
        if self.min_words is not None:
            return self.min_words
        return 50 if self.variant == "standard" else 5

    def rules(self) -> list[Rule]:
        """Return the nine limits, in the order of the publication."""
        stop_words = 2 if self.variant == "standard" else 1
        symbols = [above("symbol_ratio", self.max_symbol_ratio, "symbols per word")]
        if self.counting == "datatrove":
            names = {"hashes": "hash signs per word", "ellipses": "ellipses per word"}
            symbols = [above(column, self.max_symbol_ratio, name) for column, name in names.items()]
        return [
            below("words", self._least_words, "number of words"),
            above("words", self.max_words, "number of words"),
            below("mean_word_length", self.min_mean_word_length, "mean word length"),
            above("mean_word_length", self.max_mean_word_length, "mean word length"),
            *symbols,
            above("bullet_lines", self.max_bullet_lines, "share of bullet lines"),
            above("ellipsis_lines", self.max_ellipsis_lines, "share of ellipsis lines"),
            below("alphabetic_words", self.min_alphabetic_words, "share of alphabetic words"),
            below(
                "stop_words",
                stop_words if self.min_stop_words is None else self.min_stop_words,
                "number of stop words",
            ),
        ]

    def counted(self, docs: pl.DataFrame, texts: Callable[[], pl.Series]) -> pl.DataFrame:
        """Return the features, counted anew with ``as = "datatrove"``."""
        return docs if self.counting is None else datatrove.quality(texts())


@POLICIES.register("repetition")
class Repetition(FeatureFilter):
    """Refuses documents that break a repetition rule of MassiveText (Rae et al. 2021, Gopher, table A1).

    The rules are for lines and word n-grams; an n-gram counts as repeated if it occurs at least twice in the document
    (:mod:`ecosystem.corpus.features`). They apply to any language; words are those of the filter ``length``.

    With ``as = "datatrove"`` repetitions are counted as that library counts them (:mod:`ecosystem.corpus.datatrove`):
    the first occurrence of a repeated n-gram does not count, and the most frequent n-gram counts even if it occurs
    once, so that documents of up to about ten words are refused. The rules of the table for paragraphs, for
    characters in repeated lines and for longer n-grams are applied too, with the published limits.
    """

    max_duplicate_lines: Share = Field(0.3, description="largest share of lines that repeat an earlier line")
    max_top_2gram: Share = Field(0.2, description="largest share of characters in the most frequent word 2-gram")
    max_top_3gram: Share = Field(0.18, description="largest share of characters in the most frequent word 3-gram")
    max_top_4gram: Share = Field(0.16, description="largest share of characters in the most frequent word 4-gram")
    max_duplicate_5grams: Share = Field(0.15, description="largest share of characters in repeated word 5-grams")
    counting: Counting = Field(
        None, alias="as", description="datatrove: count as this library does; absent: by the features of the web"
    )

    def rules(self) -> list[Rule]:
        """Return the five limits; with ``as = "datatrove"`` all of the table, in that library's order."""
        before, lines, after = [], [], []
        if self.counting == "datatrove":
            before = [
                below("characters", 1, "number of characters"),
                above("duplicate_paragraphs", 0.3, "share of repeated paragraphs"),
                above("duplicate_paragraph_characters", 0.2, "share of characters in repeated paragraphs"),
            ]
            lines = [above("duplicate_line_characters", 0.2, "share of characters in repeated lines")]
            longer = zip(range(6, 11), (0.14, 0.13, 0.12, 0.11, 0.1), strict=True)
            after = [above(f"duplicate_{n}grams", most, f"share of repeated {n}-grams") for n, most in longer]
        return [
            *before,
            above("duplicate_lines", self.max_duplicate_lines, "share of repeated lines"),
            *lines,
            above("top_2gram", self.max_top_2gram, "share of the top 2-gram"),
            above("top_3gram", self.max_top_3gram, "share of the top 3-gram"),
            above("top_4gram", self.max_top_4gram, "share of the top 4-gram"),
            above("duplicate_5grams", self.max_duplicate_5grams, "share of repeated 5-grams"),
            *after,
        ]

    def counted(self, docs: pl.DataFrame, texts: Callable[[], pl.Series]) -> pl.DataFrame:
        """Return the features, counted anew with ``as = "datatrove"``."""
        return docs if self.counting is None else datatrove.repetition(texts())


@POLICIES.register("perplexity_band")
class PerplexityBand(Filter):
    """Refuses documents whose perplexity under the initial weights of a model is outside a band (Wenzek et al. 2020).

    The perplexity is exp(nats / tokens). A document without tokens has none and is refused. The band is given in
    perplexities (``low``, ``high``) or, as in CCNet, in quantiles (``keep``) of the perplexities of the crawl, here of
    1,000 random documents on the web at the time: [0, 0.33] is CCNet's head, [0.33, 0.67] its middle. Quantiles keep as
    much of a collapsed web as of a healthy one. Documents that the scoring model has learnt from have a lower
    perplexity than others; a foundation has learnt from the initial documents.
    """

    reads_text: ClassVar[bool] = True

    model: str = Field(description="name of the model that scores, with the weights that its trainers start from")
    low: Annotated[float, Field(ge=1)] = Field(1.0, description="least perplexity kept")
    high: Annotated[float, Field(ge=1)] | None = Field(None, description="largest perplexity kept; absent: no limit")
    keep: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = Field(
        None, description="lowest and highest quantile kept of the perplexities on the web, instead of low and high"
    )

    @model_validator(mode="after")
    def _ordered(self) -> PerplexityBand:
        if self.keep is not None and (self.low != 1.0 or self.high is not None):
            raise ValueError("keep excludes low and high; remove keep, or low and high")
        if self.keep is not None and self.keep[0] >= self.keep[1]:
            raise ValueError(f"keep = {self.keep}: the first quantile must be below the second")
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high = {self.high:g} must be at least low = {self.low:g}")
        return self

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse by perplexity."""
        tokens, perplexity = self._perplexity(docs["doc"], ctx)
        low, high = (self.low, self.high) if self.keep is None else self._quantiles(self.keep, ctx)
        table = pl.DataFrame({"tokens": tokens, "perplexity": perplexity})
        # Not by below and above: a perplexity may exceed the range of Float32.
        shown = pl.col("perplexity").round(1)
        rules = [
            (pl.col("tokens") == 0, pl.lit("has no tokens to score")),
            (pl.col("perplexity") < low, pl.format("perplexity {} is below {}", shown, pl.lit(f"{low:g}"))),
        ]
        if high is not None:
            over = pl.format("perplexity {} is above {}", shown, pl.lit(f"{high:g}"))
            rules.append((pl.col("perplexity") > high, over))
        return first_reason(table, rules)

    def _perplexity(self, docs: pl.Series, ctx: Context) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        nats, tokens = ctx.models.score(self.model, docs)
        # A float overflows beyond exp(700), above any band.
        return tokens, np.exp(np.minimum(nats / np.maximum(tokens, 1), 700.0))

    def _quantiles(self, keep: list[float], ctx: Context) -> tuple[float, float | None]:
        """Return the least and the largest perplexity; no limit at the quantiles 0 and 1."""
        crawl = pl.Series("doc", lowest(ctx.corpus.live().to_numpy(), _CRAWL, ctx.static_stream))
        tokens, perplexity = self._perplexity(crawl, ctx)
        if not (tokens > 0).any():
            return 1.0, None
        low, high = np.quantile(perplexity[tokens > 0], keep)
        return float(low) if keep[0] > 0 else 1.0, float(high) if keep[1] < 1 else None


@POLICIES.register("synthetic_detector")
class SyntheticDetector(Filter):
    """Refuses documents that a simulated, fallible detector of machine text classifies as synthetic.

    The detector has chosen error rates: it reads the true origin (an oracle) and errs at random, on the same documents
    at every step and for every reader.
    """

    oracle: ClassVar[bool] = True

    true_positive_rate: Share = Field(0.8, description="probability that a synthetic document is refused")
    false_positive_rate: Share = Field(0.05, description="probability that a human document is refused")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse by true origin and noise."""
        noise = pl.lit(pl.Series("noise", ctx.static_stream.uniform(docs["doc"].to_numpy()), dtype=pl.Float64))
        rate = pl.when(pl.col("synthetic")).then(self.true_positive_rate).otherwise(self.false_positive_rate)
        return first_reason(docs, [(noise < rate, pl.lit("detected as synthetic"))])


@POLICIES.register("oracle")
class Oracle(Filter):
    """Refuses every synthetic document: perfect provenance, an upper bound for any detector."""

    oracle: ClassVar[bool] = True

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents written by a model."""
        return first_reason(docs, [(pl.col("synthetic"), pl.lit("synthetic"))])


@POLICIES.register("verifier")
class Verifier(Filter):
    """Refuses documents whose label a simulated, fallible verifier considers wrong (Feng et al. 2024).

    It keeps right and wrong labels with given probabilities, the same documents at every step and for every reader. A
    model learns the right rule from the kept labels if the share of wrong labels before was below
    keep_correct / (keep_correct + keep_wrong).
    """

    oracle: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    keep_correct: Share = Field(0.8, description="probability that a document with a right label is kept")
    keep_wrong: Share = Field(0.2, description="probability that a document with a wrong label is kept")

    @model_validator(mode="after")
    def _keeps_something(self) -> Verifier:
        if self.keep_correct == self.keep_wrong == 0:
            raise ValueError("keep_correct and keep_wrong are both 0 and would keep no document; raise one of them")
        return self

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents whose label does not pass for right."""
        assert ctx.truth is not None  # an oracle's context has it
        rate = np.where(ctx.truth.label_is_correct(docs["doc"]), self.keep_correct, self.keep_wrong)
        refused = pl.lit(
            pl.Series("refused", ctx.static_stream.uniform(docs["doc"].to_numpy()) >= rate, dtype=pl.Boolean)
        )
        return first_reason(docs, [(refused, pl.lit("judged to be labelled wrongly"))])
