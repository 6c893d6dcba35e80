"""Filters by a classifier of texts that learns in the run (see :mod:`ecosystem.policies.learning`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.words import ngrams, normalised
from ecosystem.policies.base import POLICIES, Context
from ecosystem.policies.learning import Examples, LearningFilter, LearningView, cutoff
from ecosystem.spec import ScenarioParts
from ecosystem.times import InTime
from ecosystem.types import Share

ExampleCount = Annotated[
    int,
    Field(
        ge=20,
        description="number of labelled documents, half of each sort if available; a quarter of them calibrates",
    ),
]
_INVERSE_PENALTY = 10.0  # scikit-learn's C; from 1 to 100 the area under the curve differed by less than 0.02


class TextClassifier:
    """Logistic regression on hashed n-grams, fitted by scikit-learn's liblinear; both classes have equal weight.

    The score of a text depends on no other text, and the fit only on its examples and their order.
    """

    def __init__(self, coefficients: NDArray[np.float64], intercept: float) -> None:
        """Take the ``coefficients`` [2^18] of the columns of n-grams, and the intercept."""
        self._coefficients, self._intercept = coefficients, intercept

    @classmethod
    def fit(cls, texts: pl.Series, positive: NDArray[np.bool_]) -> TextClassifier:
        """Fit a classifier of texts; ``positive`` [texts] labels them, and both labels must occur."""
        from sklearn.linear_model import LogisticRegression

        # The dual is several times faster than the primal here; it draws its order of updates, hence the seed.
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
        """Compute the probability that each text is positive if both classes are equally frequent, [texts]."""
        from scipy.special import expit

        score: NDArray[np.float64] = expit(normalised(ngrams(texts)) @ self._coefficients + self._intercept)
        return score


def _too_fine(name: str, share: float | None, examples: int) -> str:
    """Return why calibration examples cannot resolve a share; "" if they can."""
    least = 1 / (examples // 8 + 1)
    if share is None or share >= least:
        return ""
    return (
        f"examples = {examples} is too small for {name} = {share:g}: only {examples // 8} documents of one class "
        f"calibrate; raise examples, or set {name} to at least {least:.2g}"
    )


@POLICIES.register("learned_detector")
class LearnedDetector(LearningFilter):
    """Refuses documents that a classifier of text, trained on labelled documents of this web, classifies as synthetic.

    At every step that ``every`` divides, the classifier is trained anew on ``examples`` documents published before that
    step, half of them human and half synthetic if available, labelled by fallible people. Until there are synthetic
    documents to learn from, the policy refuses nothing. It refuses documents whose probability of being synthetic is at
    least ``threshold``. With ``false_positive_rate``, as detectors are commonly operated, it refuses scores above a
    cutoff, at which it takes that share of the documents labelled human for synthetic; the cutoff comes from the
    quarter of the examples that it did not learn from. Its error rates by true origin and depth are measured at each
    training (scope ``policy``).
    """

    detects_synthetic: ClassVar[bool] = True
    reason: ClassVar[str] = "P(synthetic) = {}"

    examples: ExampleCount = 1000
    every: Annotated[int, Field(ge=1), InTime("duration")] = Field(
        5, description="number of steps from one training to the next"
    )
    label_error: Share = Field(0.0, description="share of the examples with a wrong label")
    false_positive_rate: Share | None = Field(
        None, description="share of documents labelled human that are refused; exclusive with threshold"
    )
    threshold: Share | None = Field(
        None, description="least probability of being synthetic that is refused; exclusive with false_positive_rate"
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
        """Draw human and synthetic documents with the labels of fallible people."""
        return view.labelled(self.examples // 2, self.label_error)

    def refused(self, score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which documents the classifier considers synthetic."""
        if self.threshold is not None:
            return score >= self.threshold
        return score > cutoff(reference, self.false_positive_rate or 0.0)


@POLICIES.register("quality_classifier")
class QualityClassifier(LearningFilter):
    """Refuses documents unlike those of a trusted source, as GPT-3's filter did (Brown et al. 2020, appendix A).

    A classifier is trained once, at ``step``, to separate documents of the source from random documents of the web
    before that step (at step 1: the initial documents); until then nothing is refused. Choose one rule. ``threshold``
    keeps documents that score at least so much. ``keep`` keeps documents that score as high as this share of those web
    documents. ``pareto`` is GPT-3's rule: it keeps documents whose score exceeds 1 minus a draw from a Pareto (Lomax)
    distribution of this shape (9 in GPT-3), drawn once per document, so that some low scores pass. Training documents
    and their copies are scored out of sample: by a classifier fitted to the other half of the examples, rescaled to the
    full one (cross-fitting).
    """

    reason: ClassVar[str] = "quality score {} is too low"

    examples: ExampleCount = 1000
    source: str = Field(description="name of the source of trusted documents")
    step: Annotated[int, Field(ge=1), InTime("moment")] = Field(
        1, description="step of the training, on documents published before"
    )
    threshold: Share | None = Field(None, description="least score kept; exclusive with keep and pareto")
    keep: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="share kept of documents like those on the web before it; exclusive with threshold and pareto",
    )
    pareto: Annotated[float, Field(gt=0)] | None = Field(
        None, description="shape of the Pareto draw (9 in GPT-3); exclusive with threshold and keep"
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> QualityClassifier:
        if sum(rule is not None for rule in (self.threshold, self.keep, self.pareto)) != 1:
            raise ValueError("give exactly one of threshold, keep and pareto")
        if wrong := _too_fine("keep", self.keep, self.examples):
            raise ValueError(wrong)
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require documents on the web to learn from."""
        if self.step > 1 or scenario.web.initial is not None:
            return []
        return [
            f"{path}.step: training at step 1 learns from the initial documents of the web, and there are none; "
            "give web.initial or a later step"
        ]

    def fitted_at(self, t: int) -> int:
        """Return the step of the only training, or 0 before it."""
        return self.step if t >= self.step else 0

    def collect_examples(self, view: LearningView) -> Examples:
        """Draw documents of the trusted source, as positive, and of the web."""
        half = self.examples // 2
        return Examples.contrast(view.source_texts(self.source, half), view.documents(half))

    def refused(self, score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which documents score too low by ``threshold`` or ``keep``."""
        if self.threshold is not None:
            return score < self.threshold
        return score <= cutoff(reference, self.keep or 1.0)

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that score too low, by the rule or by the Pareto draw."""
        scores = None if self.pareto is None else ctx.classifiers.scores(ctx.policy, docs["doc"])
        if self.pareto is None or scores is None:
            return super().refuse(docs, ctx)
        # A Lomax draw exceeds x with probability (1 + x)^-shape.
        noise = ctx.static_stream.uniform(docs["doc"].to_numpy())
        return self.reasons(scores.score, noise >= (2 - scores.score) ** -self.pareto)
