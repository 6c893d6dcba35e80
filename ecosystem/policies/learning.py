"""Filters that learn in the run: their examples, the view that they draw them from, and their base class.

A subclass of :class:`LearningFilter` chooses the examples of its classifier and the scores that it refuses. The world
fits the classifier and scores documents; the policy itself sees neither labels nor the truth::

    @POLICIES.register("like_the_first")
    class LikeTheFirst(LearningFilter):
        '''Refuses documents unlike the initial documents of the web.'''

        def collect_examples(self, view):
            docs = view.documents(1000)
            return Examples.contrast(docs.filter(pl.col("t") == 0), docs.filter(pl.col("t") > 0))

        def refused(self, score, reference):
            return score < 0.1
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.schema import OBSERVABLE
from ecosystem.draws import lowest
from ecosystem.errors import EcosystemError, nearest
from ecosystem.policies.base import Context, Filter
from ecosystem.policies.reasons import first_reason
from ecosystem.sources.base import Reservoir, random_rows
from ecosystem.streams import Stream, Streams

_CALIBRATION = 4  # one in this many examples calibrates
_LASTING = [name for name in OBSERVABLE if name not in ("retired_at", "weight")]  # columns that never change


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled texts for a classifier, in the order in which it learns.

    ``texts`` (String) and ``positive`` have one entry per example. The classifier does not learn from examples with
    ``calibration``; their scores show how it scores unseen documents. ``docs``: ids of the web's documents among the
    examples. ``labelled``: True if people labelled the documents, which costs one review each; scores of these
    documents then come from the classifier that learnt from them. Otherwise scores of examples are cross-fitted.
    """

    texts: pl.Series
    positive: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    docs: pl.Series
    labelled: bool = False

    @classmethod
    def contrast(cls, positive: pl.DataFrame | pl.Series, negative: pl.DataFrame | pl.Series) -> Examples:
        """Make examples of two sets of texts; one in four of each set calibrates.

        A set is a Series of texts, or rows of :meth:`LearningView.documents`.
        """
        sides = (positive, negative)
        texts = [side["content"] if isinstance(side, pl.DataFrame) else side for side in sides]
        docs = [side["doc"] for side in sides if isinstance(side, pl.DataFrame)]
        return cls(
            texts=pl.concat([side.alias("content") for side in texts]),
            positive=np.arange(sum(map(len, texts))) < len(texts[0]),
            calibration=np.concatenate([_calibration(np.arange(len(side))) for side in texts]),
            docs=pl.concat(docs) if docs else pl.Series("doc", [], dtype=pl.Int64),
        )

    def shortage(self) -> str:
        """Return why a classifier cannot learn from these examples; "" if it can."""
        learnt = self.positive[~self.calibration]
        if not learnt.size:
            return "there are no examples to learn from"
        if learnt.all() or not learnt.any():
            return f"all {learnt.size} examples to learn from are {'positive' if learnt.all() else 'negative'}"
        return ""


def wrong_examples(value: object) -> str:
    """Return why a value cannot serve as the examples of a classifier; "" if it can."""
    if not isinstance(value, Examples):
        return f"{type(value).__name__} instead of Examples"
    if value.texts.dtype != pl.String or value.texts.null_count():
        return "texts that are not all strings"
    arrays = {"positive": value.positive, "calibration": value.calibration}
    wrong = [name for name, array in arrays.items() if array.dtype != np.bool_ or array.shape != (value.texts.len(),)]
    return f"{' and '.join(wrong)} without one bool for each of {value.texts.len()} texts" if wrong else ""


class LearningView:
    """View of what a policy may learn from at one fit: documents published before the step, and sources.

    Draws depend only on (seed, policy, step, document), so a resumed run draws the same. A repeated call draws the same
    documents; a call with a larger number draws these and more.
    """

    def __init__(self, corpus: Corpus, sources: Mapping[str, Reservoir], streams: Streams, policy: str, t: int) -> None:
        """``policy`` is the name of the policy in the scenario, ``t`` the step of the fit."""
        self.t = t
        self._corpus, self._sources, self._streams, self._policy = corpus, sources, streams, policy

    def documents(self, n: int) -> pl.DataFrame:
        """Draw at most ``n`` documents: observable columns except ``retired_at`` and ``weight``, and ``content``."""
        docs = self._draw(n)
        return docs.select(_LASTING).with_columns(content=self._corpus.contents(docs["doc"]))

    def labelled(self, each: int, error: float = 0.0) -> Examples:
        """Draw at most ``each`` human and ``each`` synthetic documents with labels by people; synthetic is positive.

        A share ``error`` of the labels is wrong; the label of a document is the same at every fit.
        """
        docs = self._draw(each, by_origin=True)
        noise = self._streams.at(f"policies/{self._policy}/labels").uniform(docs["doc"].to_numpy())
        place = docs.select(pl.int_range(pl.len()).over("synthetic")).to_series().to_numpy()
        return Examples(
            texts=self._corpus.contents(docs["doc"]),
            positive=docs["synthetic"].to_numpy() ^ (noise < error),
            calibration=_calibration(place),
            docs=docs["doc"],
            labelled=True,
        )

    def source_texts(self, source: str, n: int) -> pl.Series:
        """Draw at most ``n`` texts of a source, published or not; raise EcosystemError for an unknown source."""
        stream = self._streams.at(f"policies/{self._policy}/trusted", self.t)
        try:
            reservoir = self._sources[source]
        except KeyError:
            raise EcosystemError(
                f'policies.{self._policy}: unknown source "{source}"{nearest(source, self._sources)}; '
                f"defined in [sources]: {', '.join(self._sources) or 'none'}."
            ) from None
        return reservoir.rows(random_rows(n, 0, reservoir.size, stream))

    def _draw(self, n: int, *, by_origin: bool = False) -> pl.DataFrame:
        published = (self._corpus.array("t") < self.t) & self._corpus.array("published")
        stream = self._streams.at(f"policies/{self._policy}/examples", self.t)
        return random_documents(self._corpus, published, n, stream, by_origin=by_origin)


def random_documents(
    corpus: Corpus, among: NDArray[np.bool_], n: int, stream: Stream, *, by_origin: bool = False
) -> pl.DataFrame:
    """Draw at most ``n`` of the documents ``among`` [documents], or ``n`` of each origin, in the order of their noise.

    The result has every column of the index.
    """
    synthetic = corpus.array("synthetic")
    groups = [among & synthetic, among & ~synthetic] if by_origin else [among]
    docs = np.concatenate([lowest(np.flatnonzero(group), n, stream) for group in groups])
    return corpus.rows(docs[np.lexsort((docs, stream.uniform(docs)))])


def _calibration(place: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which examples calibrate, by their place among those of their sort."""
    return np.asarray(place % _CALIBRATION == _CALIBRATION - 1)


class LearningFilter(Filter):
    """Base of filters by the scores of a classifier that is fitted in the run to examples of the filter's choice.

    The performance of the classifier is measured at each fit (scope ``policy``): by true origin and depth if it
    ``detects_synthetic``, else by the area under the ROC curve on the calibration examples. If examples are missing, no
    classifier is fitted, an event says so, and the filter refuses nothing until the next fit.
    """

    reads_text: ClassVar[bool] = True
    detects_synthetic: ClassVar[bool] = False  # True: the score is the probability that a document is synthetic
    reason: ClassVar[str] = "classifier score {}"  # reason of a refusal; {} is replaced by the score

    @abstractmethod
    def collect_examples(self, view: LearningView) -> Examples:
        """Return the examples that the classifier learns from at step ``view.t``."""

    @abstractmethod
    def refused(self, score: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which documents to refuse, [documents], by the probability ``score`` that each is positive.

        ``reference``: ascending scores of the negative calibration examples, for :func:`cutoff`.
        """

    def fitted_at(self, t: int) -> int:
        """Return the step of the fit whose classifier is used at step ``t``; 0: no fit yet."""
        return t

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse by score; refuse nothing until there is a classifier."""
        scores = ctx.classifiers.scores(ctx.policy, docs["doc"])
        if scores is None:
            return first_reason(docs, [])
        refused = np.asarray(self.refused(scores.score, scores.reference))
        if refused.dtype != np.bool_ or refused.shape != scores.score.shape:
            raise EcosystemError(
                f"policies.{ctx.policy}: the method refused returned {refused.dtype} of shape {refused.shape} for "
                f"{scores.score.size} scores; it must return one bool for each."
            )
        return self.reasons(scores.score, refused)

    def reasons(self, score: NDArray[np.float64], refused: NDArray[np.bool_]) -> pl.Series:
        """Return the reason for each refused document, null for the others, [documents]."""
        table = pl.DataFrame({"refused": refused, "score": score.round(3)})
        return first_reason(table, [(pl.col("refused"), pl.format(self.reason, pl.col("score")))])


def cutoff(reference: NDArray[np.float64], share: float) -> float:
    """Return a score that an expected ``share`` at most of documents like ``reference`` (ascending scores) exceeds.

    A new document exceeds the m-th highest of n exchangeable others with probability m / (n + 1) at most (the argument
    of conformal prediction). If n is too small for the share, return infinity.
    """
    m = int(share * (reference.size + 1) + 1e-9)
    if m == 0:
        return float("inf")
    return float(reference[-m]) if m <= reference.size else -float("inf")
