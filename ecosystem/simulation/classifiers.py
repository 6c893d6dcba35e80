"""The classifiers behind policies that learn: each as last fitted, what it says, and how often it is right.

A classifier is a function of the policy, of the documents published before the step at which it was fitted, and of
(seed, policy, step): nothing of it is stored, and a resumed run or a branch fits the same one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.errors import EcosystemError
from ecosystem.metrics.estimates import roc_area, share
from ecosystem.metrics.tables import rows
from ecosystem.policies.base import Scores
from ecosystem.policies.classifiers import TextClassifier
from ecosystem.policies.learning import Examples, LearningFilter, LearningView, random_documents, wrong_examples
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Reservoir
from ecosystem.streams import Streams

_TESTED = 2000  # documents of each origin, at most, on which error rates are measured

Values = dict[str, tuple[float, float] | float]


@dataclass(frozen=True)
class CrossFit:
    """Classifiers for texts that another one has learnt from: each text is scored by one that has not.

    ``place``: which half of the learnt texts each is in; ``halves[i]`` has learnt the other half, and ``scales[i]`` has
    its scores of some texts and those that the classifier of the whole gives them, each ascending.
    """

    place: dict[str, int]
    halves: list[TextClassifier]
    scales: list[tuple[NDArray[np.float64], NDArray[np.float64]]]

    @classmethod
    def of(
        cls, whole: TextClassifier, learnt: pl.Series, positive: NDArray[np.bool_], others: pl.Series
    ) -> Self | None:
        """Fit two classifiers to half of the texts that ``whole`` has learnt; None where they are too few.

        ``others``: texts that it has not learnt, all of one sort. A text that occurs twice is in one half.
        """
        place = {text: number % 2 for number, text in enumerate(learnt.unique(maintain_order=True))}
        half = learnt.replace_strict(place, return_dtype=pl.Int64).to_numpy()
        sorts = [positive[half != i] for i in (0, 1)]
        if any(sort.all() or not sort.any() for sort in sorts):
            return None
        halves = [TextClassifier.fit(learnt.filter(pl.Series(half != i)), sorts[i]) for i in (0, 1)]
        unseen = others.filter(~others.is_in(learnt.implode()))
        # Half as many examples make a classifier less sure of itself: its scores are put on the scale of the whole.
        scales = [(_scale(classifier.probability(unseen)), _scale(whole.probability(unseen))) for classifier in halves]
        return cls(place, halves, scales)

    def amend(self, texts: pl.Series, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of texts with those replaced that the classifier of the whole has learnt, [texts]."""
        half = np.array([self.place.get(text, -1) for text in texts.to_list()], dtype=np.int64)
        for i, (classifier, scale) in enumerate(zip(self.halves, self.scales, strict=True)):
            if (learnt := half == i).any():
                score[learnt] = np.interp(classifier.probability(texts.filter(pl.Series(learnt))), *scale)
        return score


def _scale(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.sort(score), [1.0]])


@dataclass
class FittedClassifier:
    """A fitted classifier, its scores of the examples that calibrate, and those of documents so far, by id."""

    examples: Examples
    classifier: TextClassifier
    cross_fit: CrossFit | None
    calibration: NDArray[np.float64]
    score_of: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Examples) -> Self:
        """Fit a classifier to examples, of which some are positive and some are not."""
        learnt, positive = examples.texts.filter(pl.Series(~examples.calibration)), examples.positive
        texts, labels = examples.texts.filter(pl.Series(examples.calibration)), positive[~examples.calibration]
        classifier, cross_fit = TextClassifier.fit(learnt, labels), None
        if not examples.labelled:
            # The web that it learns from is the web that it is to filter. What people have labelled they know.
            others = texts.filter(pl.Series(~positive[examples.calibration]))
            cross_fit = CrossFit.of(classifier, learnt, labels, others)
        fitted = cls(examples, classifier, cross_fit, np.zeros(0))
        fitted.calibration = fitted.score(texts)
        return fitted

    def score(self, texts: pl.Series) -> NDArray[np.float64]:
        """Return the score of every text, [texts]."""
        score = self.classifier.probability(texts)
        return score if self.cross_fit is None else self.cross_fit.amend(texts, score)

    @property
    def calibration_labels(self) -> NDArray[np.bool_]:
        """Which of the examples that calibrate are positive."""
        return self.examples.positive[self.examples.calibration]

    @property
    def reference(self) -> NDArray[np.float64]:
        """Scores of the examples that calibrate and are negative, ascending."""
        return np.sort(self.calibration[~self.calibration_labels])


class Host(Protocol):
    """What classifiers need of the state of a world."""

    @property
    def scenario(self) -> Scenario:
        """The scenario in force."""

    @property
    def t(self) -> int:
        """The present step."""

    @property
    def streams(self) -> Streams:
        """The chance of the world."""

    @property
    def corpus(self) -> Corpus:
        """Every document ever published."""

    @property
    def reservoirs(self) -> Mapping[str, Reservoir]:
        """The opened sources, by name."""

    def note(self, event: str) -> None:
        """Record an event."""


class Classifiers:
    """The classifiers of one world by policy, each as last fitted."""

    def __init__(self, host: Host) -> None:
        """``host``: the state whose documents they learn from."""
        self._host = host
        self._fitted: dict[str, tuple[LearningFilter, int, FittedClassifier | str]] = {}

    def scores(self, policy: str, docs: pl.Series) -> Scores | None:
        """Return what the classifier of the named policy says of documents, None if there is none yet."""
        fitted = self.fitted(policy)
        if not isinstance(fitted, FittedClassifier):
            return None
        known = fitted.score_of
        new = docs.filter(~docs.is_in(list(known))) if known else docs
        if new.len():
            score = fitted.score(self._host.corpus.contents(new))
            known.update(zip(new.to_list(), score.tolist(), strict=True))
        return Scores(np.array([known[doc] for doc in docs.to_list()], dtype=np.float64), fitted.reference)

    def fitted(self, name: str) -> FittedClassifier | str:
        """Return the classifier in use now, fitted if it has not been, or why there is none ("": it is not yet due)."""
        policy = self._host.scenario.policies.get(name)
        if not isinstance(policy, LearningFilter):
            raise EcosystemError(f'policies: scores of "{name}" are asked for, which is no filter that learns.')
        t = policy.fitted_at(self._host.t)
        known = self._fitted.get(name)
        if known is None or known[:2] != (policy, t):
            known = self._fitted[name] = (policy, t, self._fit(name, policy, t) if t else "")
        return known[2]

    def _fit(self, name: str, policy: LearningFilter, t: int) -> FittedClassifier | str:
        host = self._host
        if not 0 < t <= host.t:
            raise EcosystemError(
                f"policies.{name}: at step {host.t} fitted_at returned {t}; give a step up to that one, or 0 for none."
            )
        view = LearningView(host.corpus, host.reservoirs, host.streams, name, t)
        examples = policy.collect_examples(view)
        if wrong := wrong_examples(examples):
            raise EcosystemError(f"policies.{name}: collect_examples returned {wrong}.")
        return examples.shortage() or FittedClassifier.of(examples)

    def measured(self) -> list[pl.DataFrame]:
        """Return how well the classifiers fitted at this step do, for those in use; tell of those that could not be."""
        frames: list[pl.DataFrame] = []
        for name, policy, fitted in self._fitted_now():
            if isinstance(fitted, str):
                self._host.note(
                    f"policies.{name}: no classifier was fitted, since {fitted}; nothing is refused or weighed by its "
                    "scores until the next fit"
                )
            elif policy.detects_synthetic:
                frames += self._error_rates(name, policy, fitted)
            else:
                positive = fitted.calibration_labels
                values: Values = {"auc": roc_area(fitted.calibration[positive], fitted.calibration[~positive])}
                frames.append(rows(self._host.t, "policy", name, values))
        return frames

    def labelled(self) -> dict[str, int]:
        """Return how many documents people labelled for each classifier that was fitted at this step and is in use."""
        return {
            name: fitted.examples.docs.len()
            for name, _, fitted in self._fitted_now()
            if isinstance(fitted, FittedClassifier) and fitted.examples.labelled
        }

    def _fitted_now(self) -> list[tuple[str, LearningFilter, FittedClassifier | str]]:
        """Return the policies whose classifiers are due at this step and in use: at a gate, or read by one there."""
        policies = self._host.scenario.policies
        standing = self._host.scenario.standing()
        read = [other for name in standing for other in policies[name].scores_read()]
        return [
            (name, policy, self.fitted(name))
            for name in dict.fromkeys([*standing, *read])
            if isinstance(policy := policies[name], LearningFilter) and policy.fitted_at(self._host.t) == self._host.t
        ]

    def _error_rates(self, name: str, policy: LearningFilter, fitted: FittedClassifier) -> list[pl.DataFrame]:
        """Return a detector's rates by origin, and by depth rounded to whole model hops, on documents it never saw.

        Drafts that were refused when they were to be published count: by what it let pass a detector at the door
        would seem to find nothing.
        """
        t, corpus = self._host.t, self._host.corpus
        unseen = corpus.index.filter((pl.col("t") <= t) & ~pl.col("doc").is_in(fitted.examples.docs.implode()))
        stream = self._host.streams.at(f"policies/{name}/test/examples", t)
        docs = random_documents(unseen, _TESTED, stream, by_origin=True)
        scores = self.scores(name, docs["doc"])
        if scores is None or docs.is_empty():
            return []
        score, synthetic = scores.score, docs["synthetic"].to_numpy()
        refused = policy.refused(score, scores.reference)
        human, depth = score[~synthetic], np.round(docs["depth"].to_numpy()).astype(int)
        groups = {name: synthetic}
        groups |= {f"{name}/depth-{d}": synthetic & (depth == d) for d in np.unique(depth[synthetic]).tolist()}
        frames = []
        for identity, group in groups.items():
            values: Values = {}
            if group.any():
                values = {"true_positive_rate": share(refused[group]), "auc": roc_area(score[group], human)}
            if identity == name and human.size:
                values["false_positive_rate"] = share(refused[~synthetic])
            frames.append(rows(t, "policy", identity, values))
        return frames
