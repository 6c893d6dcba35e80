"""Filters by a classifier of texts that has learnt from examples, and the classifier.

A policy says what its classifier is to learn from and where to cut; the world fits it
(:mod:`ecosystem.simulation.classifiers`) and hands out scores, so that the policy itself sees neither labels nor the
truth.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.ngrams import ngrams, normalised
from ecosystem.policies.base import POLICIES, Context, Filter, Judged
from ecosystem.policies.filters import Share, first_reason
from ecosystem.spec import ScenarioParts

Rule = Callable[[Judged], NDArray[np.bool_]]
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


def cutoff(reference: NDArray[np.float64], share: float) -> float:
    """Return a score above which at most the expected ``share`` of documents like ``reference`` (ascending) lies.

    A new document exceeds the m-th highest of n others like it with probability m / (n + 1) at most (the argument of
    conformal prediction). Where n is too small for the share to be reached, nothing may exceed it: infinity.
    """
    m = int(share * (reference.size + 1) + 1e-9)
    if m == 0:
        return float("inf")
    return float(reference[-m]) if m <= reference.size else -float("inf")


def _too_fine(name: str, share: float | None, examples: int) -> str:
    """Return what is wrong with a share that is to be cut off by the examples set aside; "" if nothing is."""
    least = 1 / (examples // 8 + 1)
    if share is None or share >= least:
        return ""
    return (
        f"examples = {examples} is too few for {name} = {share:g}: the {examples // 8} documents of one sort that are "
        f"set aside of them cannot tell so small a share; give more examples, or {name} of at least {least:.2g}"
    )


class Classifying(Filter):
    """A filter that asks a classifier which the world fits for it."""

    reads_text: ClassVar[bool] = True

    examples: Annotated[int, Field(ge=20)] = Field(
        1000, description="labelled documents, half of each sort as far as there are; a quarter serves to calibrate"
    )

    @abstractmethod
    def fitted_at(self, t: int) -> int:
        """Return the step whose classifier is in use at step ``t``, fitted to older documents; 0: none yet."""

    @abstractmethod
    def refused(self, judged: Judged) -> NDArray[np.bool_]:
        """Return which of the judged documents are refused, where luck has no part in it."""


@POLICIES.register("learned_detector")
class LearnedDetector(Classifying):
    """Refuses what a classifier of text takes for synthetic: one that is trained on labelled documents of this web.

    At every step that ``every`` divides it is trained anew on ``examples`` documents published before that step,
    half of them human and half synthetic as far as there are, labelled by people who err. Before there is any
    synthetic document to learn from it refuses nothing. It refuses documents whose probability of being synthetic is
    at least ``threshold`` or, as detectors are commonly run, cuts so that it takes the share ``false_positive_rate``
    of what was labelled human for synthetic, on a quarter of the examples that it did not learn from. Its error rates
    by true origin and depth are measured whenever it is trained (scope ``policy``).
    """

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

    def refused(self, judged: Judged) -> NDArray[np.bool_]:
        """Return which documents are taken for synthetic."""
        if self.threshold is not None:
            return judged.score >= self.threshold
        return judged.score > cutoff(judged.reference, self.false_positive_rate or 0.0)

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what the detector takes for synthetic."""
        return _signed(docs, ctx.classifiers.ask(ctx.policy, docs["doc"]), self.refused, "P(synthetic) = {}")


@POLICIES.register("quality_classifier")
class QualityClassifier(Classifying):
    """Refuses what looks unlike the documents of a trusted source, as GPT-3's filter did (Brown et al. 2020, app. A).

    A classifier is trained once, at ``step``, to tell documents of the source from random documents that were on the
    web before it (at step 1: those that the web began with); until then nothing is refused. Give one rule: documents
    that score at least ``threshold``, or as high as the share ``keep`` of those web documents, or, GPT-3's, documents
    whose score exceeds 1 minus a draw from a Pareto (Lomax) distribution of shape ``pareto`` (9 in GPT-3), drawn once
    per document, so that some that score low pass. A classifier knows by heart what it has learnt from, and would
    refuse most of the web that it was trained on: such documents, and copies of them, are judged by another that has
    learnt the half of the examples in which they are not, put on the same scale.
    """

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

    def refused(self, judged: Judged) -> NDArray[np.bool_]:
        """Return which documents score too low."""
        if self.threshold is not None:
            return judged.score < self.threshold
        return judged.score <= cutoff(judged.reference, self.keep or 1.0)

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what scores too low."""

        def unlucky(judged: Judged) -> NDArray[np.bool_]:
            # A Lomax draw exceeds x with probability (1 + x)^-shape.
            luck = ctx.static_stream.uniform(docs["doc"].to_numpy())
            return luck >= (2 - judged.score) ** -(self.pareto or 1.0)

        rule = self.refused if self.pareto is None else unlucky
        return _signed(docs, ctx.classifiers.ask(ctx.policy, docs["doc"]), rule, "quality score {} is too low")


def _signed(docs: pl.DataFrame, judged: Judged | None, rule: Rule, why: str) -> pl.Series:
    """Return the reasons for what ``rule`` refuses; nothing is refused as long as there is no classifier."""
    if judged is None:
        return first_reason(docs, [])
    table = pl.DataFrame({"refused": rule(judged), "score": judged.score.round(3)})
    return first_reason(table, [(pl.col("refused"), pl.format(why, pl.col("score")))])
