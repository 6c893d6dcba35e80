"""Fit the classifiers of learning policies, score documents with them and measure their error rates.

A classifier is a function of the policy, of the documents published before the step at which it was fitted, and of
(seed, policy, step): it is not stored, and a resumed run or a branch fits the same one again.
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
    """Cross-fitting: two classifiers that score the training texts of a full one out of sample.

    ``place`` maps each training text to its half. ``halves[i]`` scores the texts of half i and is fitted to the other
    half. ``scales[i]`` holds ascending scores of unseen texts by ``halves[i]`` and by the full classifier.
    """

    place: dict[str, int]
    halves: list[TextClassifier]
    scales: list[tuple[NDArray[np.float64], NDArray[np.float64]]]

    @classmethod
    def of(cls, full: TextClassifier, learnt: pl.Series, positive: NDArray[np.bool_], others: pl.Series) -> Self | None:
        """Fit two classifiers, each to half of the training texts of ``full``; return None if they are too few.

        ``others``: texts that ``full`` was not fitted to, all of one class. Copies of a text are in the same half.
        """
        place = {text: number % 2 for number, text in enumerate(learnt.unique(maintain_order=True))}
        half = learnt.replace_strict(place, return_dtype=pl.Int64).to_numpy()
        labels = [positive[half != i] for i in (0, 1)]
        if any(part.all() or not part.any() for part in labels):
            return None
        halves = [TextClassifier.fit(learnt.filter(pl.Series(half != i)), labels[i]) for i in (0, 1)]
        unseen = others.filter(~others.is_in(learnt.implode()))
        # A classifier with half the examples is less confident: rescale its scores to those of the full one.
        scales = [(_scale(classifier.probability(unseen)), _scale(full.probability(unseen))) for classifier in halves]
        return cls(place, halves, scales)

    def amend(self, texts: pl.Series, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Replace the scores of training texts in place by out-of-sample scores; return ``score``, [texts]."""
        half = np.array([self.place.get(text, -1) for text in texts.to_list()], dtype=np.int64)
        for i, (classifier, scale) in enumerate(zip(self.halves, self.scales, strict=True)):
            if (learnt := half == i).any():
                score[learnt] = np.interp(classifier.probability(texts.filter(pl.Series(learnt))), *scale)
        return score


def _scale(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.sort(score), [1.0]])


@dataclass
class FittedClassifier:
    """A fitted classifier with its scores of calibration examples and a cache of document scores by id."""

    examples: Examples
    classifier: TextClassifier
    cross_fit: CrossFit | None
    calibration: NDArray[np.float64]
    score_of: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Examples) -> Self:
        """Fit a classifier to examples; both classes must occur."""
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
        """Whether each calibration example is positive."""
        return self.examples.positive[self.examples.calibration]

    @property
    def reference(self) -> NDArray[np.float64]:
        """Scores of the negative calibration examples, ascending."""
        return np.sort(self.calibration[~self.calibration_labels])


class Host(Protocol):
    """The parts of a world's state that classifiers read."""

    @property
    def scenario(self) -> Scenario:
        """The scenario in force."""

    @property
    def t(self) -> int:
        """The current step."""

    @property
    def streams(self) -> Streams:
        """The random streams of the world."""

    @property
    def corpus(self) -> Corpus:
        """Every document ever published."""

    @property
    def reservoirs(self) -> Mapping[str, Reservoir]:
        """The opened sources, by name."""

    def note(self, event: str) -> None:
        """Record an event."""


class Classifiers:
    """The latest classifiers of one world, by policy."""

    def __init__(self, host: Host) -> None:
        """Take the state whose documents the classifiers learn from."""
        self._host = host
        self._fitted: dict[str, tuple[LearningFilter, int, FittedClassifier | str]] = {}

    def scores(self, policy: str, docs: pl.Series) -> Scores | None:
        """Score documents with the classifier of the named policy; return None if it is not fitted yet."""
        fitted = self.fitted(policy)
        if not isinstance(fitted, FittedClassifier):
            return None
        scores = fitted.score_of
        new = docs.filter(~docs.is_in(list(scores))) if scores else docs
        if new.len():
            score = fitted.score(self._host.corpus.contents(new))
            scores.update(zip(new.to_list(), score.tolist(), strict=True))
        return Scores(np.array([scores[doc] for doc in docs.to_list()], dtype=np.float64), fitted.reference)

    def fitted(self, name: str) -> FittedClassifier | str:
        """Return the classifier in use now, fitted on first use, or the reason for its absence ("": not yet due)."""
        policy = self._host.scenario.policies.get(name)
        if not isinstance(policy, LearningFilter):
            raise EcosystemError(
                f"policies.{name}: has no scores, since it is not a learning filter; use the name of a learning filter."
            )
        t = policy.fitted_at(self._host.t)
        entry = self._fitted.get(name)
        if entry is None or entry[:2] != (policy, t):
            entry = self._fitted[name] = (policy, t, self._fit(name, policy, t) if t else "")
        return entry[2]

    def _fit(self, name: str, policy: LearningFilter, t: int) -> FittedClassifier | str:
        host = self._host
        if not 0 < t <= host.t:
            raise EcosystemError(
                f"policies.{name}: fitted_at returned {t} at step {host.t}; return a step up to {host.t}, or 0."
            )
        view = LearningView(host.corpus, host.reservoirs, host.streams, name, t)
        examples = policy.collect_examples(view)
        if problem := wrong_examples(examples):
            raise EcosystemError(f"policies.{name}: collect_examples returned {problem}.")
        return examples.shortage() or FittedClassifier.of(examples)

    def measured(self) -> list[pl.DataFrame]:
        """Measure the classifiers in use that were fitted at this step; record an event for each failed fit."""
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
        """Count the documents labelled by people for each classifier in use that was fitted at this step."""
        return {
            name: fitted.examples.docs.len()
            for name, _, fitted in self._fitted_now()
            if isinstance(fitted, FittedClassifier) and fitted.examples.labelled
        }

    def _fitted_now(self) -> list[tuple[str, LearningFilter, FittedClassifier | str]]:
        """Return the policies whose classifiers are due at this step and in use: at a gate, or read by one there."""
        policies = self._host.scenario.policies
        enforced = self._host.scenario.enforced_policies()
        read = [other for name in enforced for other in policies[name].scores_read()]
        return [
            (name, policy, self.fitted(name))
            for name in dict.fromkeys([*enforced, *read])
            if isinstance(policy := policies[name], LearningFilter) and policy.fitted_at(self._host.t) == self._host.t
        ]

    def _error_rates(self, name: str, policy: LearningFilter, fitted: FittedClassifier) -> list[pl.DataFrame]:
        """Return a detector's rates by origin, and by depth rounded to whole model hops, on unseen documents.

        Drafts refused at the publish gate count: measured only on what it let pass, a detector at that gate would
        seem to detect nothing.
        """
        t, corpus = self._host.t, self._host.corpus
        unseen = corpus.array("t") <= t
        unseen[fitted.examples.docs.to_numpy()] = False
        stream = self._host.streams.at(f"policies/{name}/test/examples", t)
        docs = random_documents(corpus, unseen, _TESTED, stream, by_origin=True)
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
