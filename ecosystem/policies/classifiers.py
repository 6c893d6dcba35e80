"""Filters by a classifier of texts that learns in the run (:mod:`ecosystem.policies.learning`), and the classifier."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.words import ngrams, normalised
from ecosystem.policies.base import POLICIES, Context
from ecosystem.policies.filters import Share
from ecosystem.policies.learning import Examples, LearningFilter, LearningView, cutoff
from ecosystem.spec import ScenarioParts

ExampleCount = Annotated[
    int,
    Field(
        ge=20,
        description="labelled documents, half of each sort as far as there are; a quarter serves to calibrate",
    ),
]
_INVERSE_PENALTY = 10.0  # scikit-learn's C; from 1 to 100 the area under the curve differed by less than 0.02


class TextClassifier:
    """Logistic regression on hashed n-grams, fitted by scikit-learn's liblinear; both sorts count alike.

    The score of a text depends on no other text, and the fit on nothing but its examples in their order.
    """

    def __init__(self, coefficients: NDArray[np.float64], intercept: float) -> None:
        """``coefficients`` [2^18] of the n-grams' columns."""
        self._coefficients, self._intercept = coefficients, intercept

    @classmethod
    def fit(cls, texts: pl.Series, positive: NDArray[np.bool_]) -> TextClassifier:
        """Learn to tell the texts that are ``positive`` [texts] from the others; there must be some of both."""
        from sklearn.linear_model import LogisticRegression

        # The dual is several times quicker than the primal here; its order of updates is drawn, hence the seed.
        learner = LogisticRegression(
            C=_INVERSE_PENALTY,
            solver="liblinear",
            dual=True,
            tol=1e-2,
            max_iter=10_000,
            random_state=0,
            class_weight="balanced",
        )
        learner.fit(normalised(ngrams(texts)), positive)
        return cls(learner.coef_[0], float(learner.intercept_[0]))

    def probability(self, texts: pl.Series) -> NDArray[np.float64]:
        """Return the probability that each text is positive, were both sorts equally frequent, [texts]."""
        from scipy.special import expit

        score: NDArray[np.float64] = expit(normalised(ngrams(texts)) @ self._coefficients + self._intercept)
        return score


def _too_fine(name: str, share: float | None, examples: int) -> str:
    """Return what is wrong with a share that is to be cut off by the examples set aside; "" if nothing is."""
    least = 1 / (examples // 8 + 1)
    if share is None or share >= least:
        return ""
    return (
        f"examples = {examples} is too few for {name} = {share:g}: the {examples // 8} documents of one sort that are "
        f"set aside of them cannot tell so small a share; give more examples, or {name} of at least {least:.2g}"
    )


@POLICIES.register("learned_detector")
class LearnedDetector(LearningFilter):
    """Refuses what a classifier of text takes for synthetic: one that is trained on labelled documents of this web.

    At every step that ``every`` divides it is trained anew on ``examples`` documents published before that step,
    half of them human and half synthetic as far as there are, labelled by people who err. Before there is any
    synthetic document to learn from it refuses nothing. It refuses documents whose probability of being synthetic is
    at least ``threshold`` or, as detectors are commonly run, cuts so that it takes the share ``false_positive_rate``
    of what was labelled human for synthetic, on a quarter of the examples that it did not learn from. Its error rates
    by true origin and depth are measured whenever it is trained (scope ``policy``).
    """

    detects_synthetic: ClassVar[bool] = True
    reason: ClassVar[str] = "P(synthetic) = {}"

    examples: ExampleCount = 1000
    every: Annotated[int, Field(ge=1)] = Field(5, description="steps from one training to the next")
    label_error: Share = Field(0.0, description="share of the examples that people label wrongly")
    false_positive_rate: Share | None = Field(
        None, description="share of human documents refused, as far as labels tell; give either this or threshold"
    )
    threshold: Share | None = Field(
        None, description="least probability of being synthetic that is refused; give either this or the rate"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> LearnedDetector:
        if (self.false_positive_rate is None) == (self.threshold is None):
            raise ValueError("give exactly one of false_positive_rate and threshold")
        if wrong := _too_fine("false_positive_rate", self.false_positive_rate, self.examples):
            raise ValueError(wrong)
        return self

    def fitted_at(self, t: int) -> int:
        """Return the last step that ``every`` divides."""
        return t - t % self.every

    def collect_examples(self, view: LearningView) -> Examples:
        """Return human and synthetic documents, labelled by people who err."""
        return view.labelled(self.examples // 2, self.label_error)

    def refused(self, score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which documents are taken for synthetic."""
        if self.threshold is not None:
            return score >= self.threshold
        return score > cutoff(reference, self.false_positive_rate or 0.0)


@POLICIES.register("quality_classifier")
class QualityClassifier(LearningFilter):
    """Refuses what looks unlike the documents of a trusted source, as GPT-3's filter did (Brown et al. 2020, app. A).

    A classifier is trained once, at ``step``, to tell documents of the source from random documents that were on the
    web before it (at step 1: those that the web began with); until then nothing is refused. Give one rule: documents
    that score at least ``threshold``, or as high as the share ``keep`` of those web documents, or, GPT-3's, documents
    whose score exceeds 1 minus a draw from a Pareto (Lomax) distribution of shape ``pareto`` (9 in GPT-3), drawn once
    per document, so that some that score low pass. A classifier knows by heart what it has learnt from, and would
    refuse most of the web that it was trained on: such documents, and copies of them, are judged by another that has
    learnt the half of the examples in which they are not, put on the same scale.
    """

    reason: ClassVar[str] = "quality score {} is too low"

    examples: ExampleCount = 1000
    source: str = Field(description="name of the source of trusted documents")
    step: Annotated[int, Field(ge=1)] = Field(1, description="step at which it is trained, on what was there before")
    threshold: Share | None = Field(None, description="least score that is kept")
    keep: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share kept of documents like those on the web when it was trained"
    )
    pareto: Annotated[float, Field(gt=0)] | None = Field(None, description="shape of the Pareto draw, 9 in GPT-3")

    @model_validator(mode="after")
    def _one_of_three(self) -> QualityClassifier:
        if sum(rule is not None for rule in (self.threshold, self.keep, self.pareto)) != 1:
            raise ValueError("give exactly one of threshold, keep and pareto")
        if wrong := _too_fine("keep", self.keep, self.examples):
            raise ValueError(wrong)
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a web to learn from."""
        if self.step > 1 or scenario.web.initial is not None:
            return []
        return [
            f"{path}.step: at step 1 it would learn from what the web begins with, but that is nothing; give "
            "web.initial or a later step"
        ]

    def fitted_at(self, t: int) -> int:
        """Return the step of its only training."""
        return self.step if t >= self.step else 0

    def collect_examples(self, view: LearningView) -> Examples:
        """Return documents of the trusted source against those of the web."""
        half = self.examples // 2
        return Examples.contrast(view.source_texts(self.source, half), view.documents(half))

    def refused(self, score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which documents score too low, where no draw has a part in it."""
        if self.threshold is not None:
            return score < self.threshold
        return score <= cutoff(reference, self.keep or 1.0)

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what scores too low, by the rule or by a draw."""
        scores = None if self.pareto is None else ctx.classifiers.scores(ctx.policy, docs["doc"])
        if self.pareto is None or scores is None:
            return super().refuse(docs, ctx)
        # A Lomax draw exceeds x with probability (1 + x)^-shape.
        noise = ctx.static_stream.uniform(docs["doc"].to_numpy())
        return self.reasons(scores.score, noise >= (2 - scores.score) ** -self.pareto)
