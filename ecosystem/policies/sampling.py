"""Policies that resample a set: random samples of fixed size, and importance weights by the score of a detector."""

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
    """Weighs documents by the probability that they are human, given the score of a detector (cf. Drayson et al. 2025).

    The detector is simulated: its score is N(0, 1) for a human document and N(d, 1) for a synthetic one (the binormal
    model), with d = sqrt(2) * inverse normal of ``auc``. The score of a document never changes. With q the
    ``synthetic_prior``, the weight is P(human | score) / (1 - q). So the mean weight is exactly 1 if the share q of the
    documents is synthetic, and with an ``auc`` of 0.5 every weight is 1. With ``detector``, the score is that of a
    learned_detector, and neither ``auc`` nor the truth is used; until that detector is trained, every weight is 1.
    """

    oracle: ClassVar[bool] = True

    auc: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.9, description="area under the ROC curve of the simulated detector; 0.5: no better than chance"
    )
    synthetic_prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="synthetic share of the documents, as the trainer assumes it"
    )
    detector: str | None = Field(
        None, description="name of a learned_detector whose scores are used; absent: the simulated detector"
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require that ``detector`` names a policy that learns to detect synthetic documents."""
        detectors = sorted(
            name for name, p in scenario.policies.items() if isinstance(p, LearningFilter) and p.detects_synthetic
        )
        if self.detector is None or self.detector in detectors:
            return []
        return [
            f'{path}.detector: "{self.detector}" must name a policy that learns to detect synthetic documents, such as '
            f"one of kind learned_detector{nearest(self.detector, detectors)}; defined: "
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
        # The detector has learnt as if both classes were equally frequent.
        q, s = self.synthetic_prior, scores.score
        return (1 - s) / ((1 - q) * (1 - s) + q * s)


@POLICIES.register("sample")
class Sample(Filter):
    """Keeps a random sample of fixed size, drawn anew at each step and for each reader.

    After filters it makes training sets equally large, if enough documents are left. Without it, a policy that refuses
    more is compared at less data. ``count`` keeps that many documents. ``words`` keeps documents in the order of their
    noise until they contain that many words, including the documents of earlier adders at the gate, which are never
    refused. So sets contain the same amount of text, however long the documents of each author are. The last document
    is kept if at least half of it is within the limit; so the size is right on average and off by at most half a
    document.
    """

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    count: Annotated[int, Field(ge=1, le=10**9)] | None = Field(
        None, description="most documents kept; 1000 if neither count nor words is given"
    )
    # Of all observable columns, words are nearest to tokens: on the prose of Python, human text has 2.31 to 2.33 tokens
    # per word and that of a trigram 2.29 to 2.36 over ten steps, but 0.37 tokens per byte against 0.37 to 0.39.
    words: Annotated[int, Field(ge=1, le=10**12)] | None = Field(
        None, description="words kept, those of earlier adders included, instead of count; for text only"
    )

    @model_validator(mode="before")
    @classmethod
    def _thousand_documents(cls, data: Any) -> Any:
        # Set in the value: a scenario with the default equals one that states it.
        return {**data, "count": 1000} if isinstance(data, dict) and not {"count", "words"} & data.keys() else data

    @model_validator(mode="after")
    def _one_amount(self) -> Sample:
        if (self.count is None) == (self.words is None):
            raise ValueError("give exactly one of count and words")
        return self

    @property
    def most_documents(self) -> int | None:
        """Most documents kept: ``count``."""
        return self.count

    @property
    def most_words(self) -> int | None:
        """Most words kept: ``words``."""
        return self.words

    @property
    def thins_archives(self) -> bool:
        """Whether it counts documents: the archive of a trainer has no column of words."""
        return self.words is None

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require text for a number of words."""
        if self.words is None or scenario.modality == "text":
            return []
        return [f"{path}.words: {scenario.modality} documents have no words; give count instead"]

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that are not drawn."""
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.stream.uniform(ids)))
        dropped = np.zeros(docs.height, np.bool_)
        if self.words is None:
            dropped[order[self.count :]] = True
            reason = pl.lit(f"not among the {self.count} documents drawn")
        else:
            length = docs["words"].to_numpy()[order].astype(np.float64)
            # Middles ascend, so no short document beyond the limit is kept.
            middle = _added_words(ctx) + np.cumsum(length) - length / 2
            dropped[order] = middle > self.words
            reason = pl.lit(f"not among the {self.words} words drawn")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


def _added_words(ctx: Context) -> int:
    """Count the words that earlier adders have added at the gate."""
    return sum(
        int(words(ctx.sources.contents(str(source), rows["document"].to_numpy()), SPACED).lengths().sum())
        for (source,), rows in ctx.added.group_by("source", maintain_order=True)
    )
