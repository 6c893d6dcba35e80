"""Policies that thin or weigh a set: random samples of a size, and weights by a detector's score."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.words import SPACED, words
from ecosystem.errors import nearest
from ecosystem.policies.base import POLICIES, Context, Filter, Weigher
from ecosystem.policies.learning import LearningFilter
from ecosystem.policies.reasons import first_reason
from ecosystem.spec import ScenarioParts


@POLICIES.register("importance")
class Importance(Weigher):
    """Weighs documents by the odds that they are human under a detector's score (cf. Drayson et al. 2025).

    The detector is simulated: its score is N(0, 1) for a human document and N(d, 1) for a synthetic one (the
    binormal model), with d = sqrt(2) * inverse normal of ``auc``; a document keeps its score for ever. With q
    the ``synthetic_prior``, the weight is P(human | score) / (1 - q): its mean over documents of which the share q
    is synthetic is exactly 1, and with an ``auc`` of 0.5 every weight is 1. With ``detector`` the score is that of a
    learned_detector instead, and neither ``auc`` nor the truth counts; until that has been trained every weight is 1.
    """

    oracle: ClassVar[bool] = True

    auc: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.9, description="area under the detector's ROC curve; 0.5 tells nothing"
    )
    synthetic_prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="synthetic share that the trainer believes in"
    )
    detector: str | None = Field(
        None, description="name of a learned_detector whose score is used; absent: the simulated detector"
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a detector by the name of ``detector``."""
        detectors = sorted(
            name for name, p in scenario.policies.items() if isinstance(p, LearningFilter) and p.detects_synthetic
        )
        if self.detector is None or self.detector in detectors:
            return []
        return [
            f'{path}.detector: there is no policy "{self.detector}" that learns to detect synthetic documents, such as '
            f"one of kind learned_detector{nearest(self.detector, detectors)}; there are: "
            f"{', '.join(detectors) or 'none'}"
        ]

    def scores_read(self) -> list[str]:
        """Return the name of the detector."""
        return [] if self.detector is None else [self.detector]

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return the weights, between 0 and 1 / (1 - synthetic_prior)."""
        if self.detector is not None:
            return pl.Series("factor", self._learned(self.detector, docs["doc"], ctx))
        normal = NormalDist()
        shift = math.sqrt(2) * normal.inv_cdf(self.auc)
        uniform = ctx.static_stream.uniform(docs["doc"].to_numpy())
        noise = np.array([normal.inv_cdf(u) for u in uniform.tolist()], dtype=np.float64)
        score = noise + shift * docs["synthetic"].fill_null(False).to_numpy()
        odds = self.synthetic_prior / (1 - self.synthetic_prior)  # of synthetic against human, before the score
        human = 1 / (1 + odds * np.exp(shift * score - shift**2 / 2))
        return pl.Series("factor", human / (1 - self.synthetic_prior))

    def _learned(self, detector: str, docs: pl.Series, ctx: Context) -> NDArray[np.float64]:
        scores = ctx.classifiers.scores(detector, docs)
        if scores is None:
            return np.ones(docs.len())
        # The detector has learnt from both sorts as if they were equally frequent.
        q, s = self.synthetic_prior, scores.score
        return (1 - s) / ((1 - q) * (1 - s) + q * s)


@POLICIES.register("sample")
class Sample(Filter):
    """Keeps a random sample of fixed size, another one at each step and for each reader.

    Behind filters it makes training sets equally large, whatever these refused: what one refuses is replaced by what
    stands behind it, as long as there is enough. Otherwise a policy that refuses much is compared at less data.
    ``count`` keeps that many documents of the table. ``words`` keeps documents in the order of their luck until they
    hold that many words, together with what adders before it in the gate have added, which is never refused: sets then
    hold the same amount of text, however long the documents of each author are. The document that crosses the line is
    kept if at least half of it lies before the line, so that sets are neither smaller nor larger than asked for on
    average, and off by half a document at most.
    """

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    count: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="most documents kept; 1000 if neither this nor words is given"
    )
    # Of the columns that anybody sees, words are nearest to tokens: on the prose of Python, human text has 2.31 to 2.33
    # tokens a word and that of a trigram 2.29 to 2.36 over ten steps, but 0.37 tokens a byte against 0.37 to 0.39.
    words: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="number of words to keep, what was added before included; of text only, in place of count"
    )

    @model_validator(mode="before")
    @classmethod
    def _thousand_documents(cls, data: Any) -> Any:
        # Written into the value, so that a scenario that leaves it to this is the same as one that says so.
        return {**data, "count": 1000} if isinstance(data, dict) and not {"count", "words"} & data.keys() else data

    @model_validator(mode="after")
    def _one_amount(self) -> Sample:
        if (self.count is None) == (self.words is None):
            raise ValueError("give exactly one of count and words")
        return self

    @property
    def most_documents(self) -> int | None:
        """``count``."""
        return self.count

    @property
    def most_words(self) -> int | None:
        """``words``."""
        return self.words

    @property
    def thins_archives(self) -> bool:
        """Whether it may stand at the retain gate of a trainer, whose archive has no column of words."""
        return self.words is None

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require text for a number of words."""
        if self.words is None or scenario.modality == "text":
            return []
        return [f"{path}: {self.kind} counts words, but documents here are of sort {scenario.modality}"]

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what lost the draw."""
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.stream.uniform(ids)))
        dropped = np.zeros(docs.height, np.bool_)
        if self.words is None:
            dropped[order[self.count :]] = True
            reason = pl.lit(f"not among the {self.count} documents drawn")
        else:
            length = docs["words"].to_numpy()[order].astype(np.float64)
            # Middles ascend, so that nothing behind the line comes in for being short.
            middle = _added_words(ctx) + np.cumsum(length) - length / 2
            dropped[order] = middle > self.words
            reason = pl.lit(f"not among the {self.words} words drawn")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


def _added_words(ctx: Context) -> int:
    """Return how many words adders before a policy have added at its gate."""
    return sum(
        int(words(ctx.sources.contents(str(source), rows["document"].to_numpy()), SPACED).lengths().sum())
        for (source,), rows in ctx.added.group_by("source", maintain_order=True)
    )
