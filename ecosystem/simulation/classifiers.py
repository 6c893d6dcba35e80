"""The classifiers behind policies: which documents each learns from, what it says, and how often it is right.

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
from ecosystem.metrics.estimates import roc_area, share
from ecosystem.metrics.tables import rows
from ecosystem.policies.base import Judged
from ecosystem.policies.classifiers import Classifying, LearnedDetector, QualityClassifier, TextClassifier
from ecosystem.policies.sampling import Importance, some_rows
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Reservoir
from ecosystem.streams import Streams

_TESTED = 2000  # documents of each origin, at most, on which error rates are measured
_ASIDE = 4  # every so many examples one is set aside to calibrate

Values = dict[str, tuple[float, float] | float]


@dataclass(frozen=True)
class Examples:
    """Labelled texts in a fixed order; ``aside`` are those to calibrate with, ``docs`` the web's documents in it."""

    texts: pl.Series
    positive: NDArray[np.bool_]
    aside: NDArray[np.bool_]
    docs: pl.Series


@dataclass(frozen=True)
class Crossed:
    """Classifiers for texts that another one has learnt from: each text is judged by one that has not.

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
            if (mine := half == i).any():
                score[mine] = np.interp(classifier.probability(texts.filter(pl.Series(mine))), *scale)
        return score


def _scale(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.sort(score), [1.0]])


@dataclass
class Judge:
    """A fitted classifier, what it said of examples set aside, and what it has said of documents so far."""

    examples: Examples
    classifier: TextClassifier
    crossed: Crossed | None
    held: NDArray[np.float64]  # scores of the examples set aside
    said: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: Examples, *, cross: bool) -> Self | None:
        """Fit a classifier to examples; None where they are of one sort. ``cross``: judge those by halves of them."""
        learnt, texts = (
            examples.texts.filter(pl.Series(~examples.aside)),
            examples.texts.filter(pl.Series(examples.aside)),
        )
        positive = examples.positive[~examples.aside]
        if positive.all() or not positive.any():
            return None
        classifier = TextClassifier.fit(learnt, positive)
        others = texts.filter(pl.Series(~examples.positive[examples.aside]))
        crossed = Crossed.of(classifier, learnt, positive, others) if cross else None
        judge = cls(examples, classifier, crossed, np.zeros(0))
        judge.held = judge.score(texts)
        return judge

    def score(self, texts: pl.Series) -> NDArray[np.float64]:
        """Return the score of every text, [texts]."""
        score = self.classifier.probability(texts)
        return score if self.crossed is None else self.crossed.amend(texts, score)

    @property
    def reference(self) -> NDArray[np.float64]:
        """Scores of the examples set aside that are labelled as of the other sort, ascending."""
        return np.sort(self.held[~self.examples.positive[self.examples.aside]])


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


class Classifiers:
    """The classifiers of one world by policy, each as last fitted."""

    def __init__(self, host: Host) -> None:
        """``host``: the state whose documents they learn from."""
        self._host = host
        self._known: dict[str, tuple[Classifying, int, Judge | None]] = {}

    def ask(self, name: str, docs: pl.Series) -> Judged | None:
        """Return what the classifier of the policy ``name`` says of documents, None if there is none yet."""
        judge = self._judge(name)
        if judge is None:
            return None
        new = docs.filter(~docs.is_in(list(judge.said))) if judge.said else docs
        if new.len():
            scores = judge.score(self._host.corpus.contents(new))
            judge.said.update(zip(new.to_list(), scores.tolist(), strict=True))
        score = np.array([judge.said[doc] for doc in docs.to_list()], dtype=np.float64)
        return Judged(score, judge.reference)

    def _judge(self, name: str) -> Judge | None:
        """Return the classifier in use now, fitted if it has not been."""
        policy = self._host.scenario.policies[name]
        assert isinstance(policy, Classifying)
        t = policy.fitted_at(self._host.t)
        known = self._known.get(name)
        if known is None or known[:2] != (policy, t):
            known = self._known[name] = (policy, t, self._fit(name, policy, t) if t else None)
        return known[2]

    def _fit(self, name: str, policy: Classifying, t: int) -> Judge | None:
        if isinstance(policy, LearnedDetector):
            # What people have labelled they know, and the error rates are of other documents.
            return Judge.of(self._detected(name, policy, t), cross=False)
        if isinstance(policy, QualityClassifier):
            # The web that it learns from is the web that it is to filter.
            return Judge.of(self._trusted(name, policy, t), cross=True)
        return None

    def _detected(self, name: str, policy: LearnedDetector, t: int) -> Examples:
        """Draw human and synthetic documents published before step ``t``, labelled by people who err."""
        docs = self._lot(name, t, _published_before(t), policy.examples // 2)
        truth, ids = docs["synthetic"].to_numpy(), docs["doc"].to_numpy()
        # A document that is labelled again at a later training gets the same label.
        wrong = self._host.streams.at(f"policies/{name}/labels").uniform(ids) < policy.label_error
        aside = _aside(docs.select(pl.int_range(pl.len()).over("synthetic")).to_series().to_numpy())
        return Examples(self._host.corpus.contents(docs["doc"]), truth ^ wrong, aside, docs["doc"])

    def _trusted(self, name: str, policy: QualityClassifier, t: int) -> Examples:
        """Draw documents of the trusted source, and others that were published before step ``t``."""
        half, reservoir = policy.examples // 2, self._host.reservoirs[policy.source]
        stream = self._host.streams.at(f"policies/{name}/trusted", t)
        trusted = reservoir.rows(some_rows(half, 0, reservoir.size, stream))
        docs = self._lot(name, t, _published_before(t), half, apart=False)
        positive = np.arange(trusted.len() + docs.height) < trusted.len()
        aside = np.concatenate([_aside(np.arange(trusted.len())), _aside(np.arange(docs.height))])
        texts = pl.concat([trusted, self._host.corpus.contents(docs["doc"])])
        return Examples(texts, positive, aside, docs["doc"])

    def _lot(self, name: str, t: int, which: pl.Expr, n: int, apart: bool = True) -> pl.DataFrame:
        """Return at most ``n`` documents at random, or ``n`` of each origin if those are kept ``apart``.

        Columns of the index, in the order of their luck.
        """
        index = self._host.corpus.index.filter(which)
        luck = self._host.streams.at(f"policies/{name}/examples", t).uniform(index["doc"].to_numpy())
        drawn = index.with_columns(luck=pl.Series(luck, dtype=pl.Float64)).sort("luck", "doc")
        rank = pl.int_range(pl.len())
        return drawn.filter((rank.over("synthetic") if apart else rank) < n)

    def measured(self) -> list[pl.DataFrame]:
        """Return how well the classifiers fitted at this step do, for those whose policies stand at a gate."""
        frames: list[pl.DataFrame] = []
        for name in self._in_use():
            policy = self._host.scenario.policies[name]
            if not isinstance(policy, Classifying) or policy.fitted_at(self._host.t) != self._host.t:
                continue
            judge = self._judge(name)
            if judge is not None and isinstance(policy, LearnedDetector):
                frames += self._error_rates(name, policy, judge)
            elif judge is not None:
                positive = judge.examples.positive[judge.examples.aside]
                found: Values = {"auc": roc_area(judge.held[positive], judge.held[~positive])}
                frames.append(rows(self._host.t, "policy", name, found))
        return frames

    def labelled(self) -> dict[str, int]:
        """Return how many documents people labelled for each detector that was trained at this step and is in use."""
        found = {}
        for name in self._in_use():
            policy, judge = self._host.scenario.policies[name], None
            if isinstance(policy, LearnedDetector) and policy.fitted_at(self._host.t) == self._host.t:
                judge = self._judge(name)
            if judge is not None:
                found[name] = judge.examples.docs.len()
        return found

    def _in_use(self) -> list[str]:
        """Return the names of the policies that stand at a gate or whose scores one of those reads."""
        spec = self._host.scenario
        stand = spec.standing()
        read = [p.detector for p in (spec.policies[n] for n in stand) if isinstance(p, Importance) and p.detector]
        return list(dict.fromkeys([*stand, *read]))

    def _error_rates(self, name: str, policy: LearnedDetector, judge: Judge) -> list[pl.DataFrame]:
        """Return a detector's rates by origin, and by depth rounded to whole model hops, on documents it never saw.

        Drafts that were refused when they were to be published count: by what it let pass a detector at the door
        would seem to find nothing.
        """
        t = self._host.t
        unseen = ~pl.col("doc").is_in(judge.examples.docs.implode())
        docs = self._lot(f"{name}/test", t, (pl.col("t") <= t) & unseen, _TESTED)
        judged = self.ask(name, docs["doc"])
        if judged is None or docs.is_empty():
            return []
        refused, synthetic = policy.refused(judged), docs["synthetic"].to_numpy()
        human, depth = judged.score[~synthetic], np.round(docs["depth"].to_numpy()).astype(int)
        groups = {name: synthetic}
        groups |= {f"{name}/depth-{d}": synthetic & (depth == d) for d in np.unique(depth[synthetic]).tolist()}
        frames = []
        for identity, group in groups.items():
            values: Values = {}
            if group.any():
                values = {"true_positive_rate": share(refused[group]), "auc": roc_area(judged.score[group], human)}
            if identity == name and human.size:
                values["false_positive_rate"] = share(refused[~synthetic])
            frames.append(rows(t, "policy", identity, values))
        return frames


def _published_before(t: int) -> pl.Expr:
    return (pl.col("t") < t) & pl.col("verdict").is_null()


def _aside(place: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which examples are set aside, from their place among those of their sort."""
    return np.asarray(place % _ASIDE == _ASIDE - 1)
