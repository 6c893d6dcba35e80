"""Single models: the interface for authors of new families of vectors or categories, and the cohort made from it.

A :class:`GenerativeModel` knows nothing of members, requests or runs. Its family passes :class:`SinglesCohort` a
function that makes one; agents, gates, resuming, measurement and reports then work as for every other family::

    @FAMILIES.register("normal")
    class Normal(Family):
        modality = "vector"
        uses_budget = False

        def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
            return SinglesCohort(name, members, context.human.dtype, MyNormal)

Each document is one unit of a score. Models of text score tokens: see :mod:`ecosystem.families.language.single`.
``ecosystem.testing.check_family`` checks a family.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import MemberError, Progress, of_member, silent
from ecosystem.families.requests import Decoding, FitRecord, FitRequest, GenerateRequest, Score, ScoreRequest
from ecosystem.sources.base import Truth
from ecosystem.streams import Stream
from ecosystem.types import Floats

T = TypeVar("T")


class GenerativeModel(Protocol):
    """A model of documents.

    A method that cannot do its work raises a TrainingError whose message begins in lower case; the cohort prefixes the
    member.
    """

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Fit the model to documents from scratch; ``weight`` [documents] is at least 0, and above 0 somewhere.

        Returns statistics of the fit; ``loss`` (mean nats per training document) is stored with the step.
        """

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Write n > 0 documents; document i must be a function of ``stream.uniform(ids)`` with ids used by it alone.

        Document i then does not depend on n.
        """

    def score(self, docs: pl.Series) -> Floats:
        """Return the log-likelihood of each document in nats, shape [documents]."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that fit() has set, without arguments of __init__; empty before the first fit."""

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore, in a new model, a result of :meth:`state`; raise DataError if it does not fit."""


@runtime_checkable
class DescribedModel(Protocol):
    """A model whose parameters can be compared with the truth."""

    def describe(self, truth: Truth) -> dict[str, float]:
        """Return metric name → value."""


class SinglesCohort:
    """M models of one class, called one after the other.

    The arrays of a model's state may have any size, so they are stored separately by member: ``<member>/<name>``.
    """

    def __init__(self, name: str, members: int, dtype: pl.DataType, make: Callable[[], GenerativeModel]) -> None:
        """``make`` returns a new, unfitted model; ``dtype`` is the type of its documents."""
        self.name = name
        self.members = members
        self.dtype = dtype
        self.fingerprint = ""
        self._make = make
        self._start: dict[str, NDArray[Any]] = {}
        self._models = [make() for _ in range(members)]

    def begin_from(self, docs: pl.Series, stream: Stream) -> None:
        """Fit one model to ``docs`` and start every member from it."""
        first = self._make()
        first.fit(docs, weight=np.ones(docs.len()), stream=stream)
        self._start = first.state()
        self._models = [self._loaded(self._start) for _ in range(self.members)]

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Fit members, each to its own documents; budget, learning rate and starting weights are ignored.

        Raises MemberError for documents that are not finite, and for every TrainingError of a model.
        """
        records = []
        for done, request in enumerate(requests, 1):
            started = time.perf_counter()
            with of_member(request.member):
                check_finite(request.docs)
                model = self._models[request.member]
                statistics = model.fit(request.docs, weight=request.weight, stream=request.stream)
            seconds = time.perf_counter() - started
            records.append(FitRecord(request.docs.len(), float(statistics.get("loss", np.nan)), seconds))
            progress("fit", done, len(requests))
        return records

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request."""
        written = []
        for done, request in enumerate(requests, 1):
            docs = pl.Series("content", [], dtype=self.dtype)
            if request.n > 0:
                model = self._models[request.member]
                with of_member(request.member):
                    docs = model.generate(request.n, stream=request.stream, decoding=request.decoding)
            if docs.len() != request.n or docs.dtype != self.dtype:
                raise MemberError(
                    request.member,
                    f"member {request.member}: {request.n} documents of type {self.dtype} were requested of model "
                    f'"{self.name}", but generate() returned {docs.len()} of type {docs.dtype}.',
                )
            written.append(docs.alias("content"))
            progress("generate", done, len(requests))
        return written

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents; each is one unit."""
        scores = []
        for request in requests:
            n = request.docs.len()
            if isinstance(request.member, int):
                model = self._models[request.member]
            else:
                model = self._loaded(self._start if request.member == "initial" else {})
            try:
                nll = -np.asarray(model.score(request.docs), dtype=np.float64) if n else np.zeros(0)
            except TrainingError as error:
                if isinstance(request.member, int):
                    raise MemberError(request.member, f"member {request.member}: {error}") from error
                raise TrainingError(f'model "{self.name}": {error}') from error
            scores.append(Score.of_documents(nll))
        return scores

    def model(self, member: int) -> Any:
        """Return the model of a member."""
        return self._models[member]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all members as ``<member>/<name>``; a scalar becomes an array of one."""
        return join_states([model.state() for model in self._models])

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it does not fit."""
        self._models = split_states(self.name, self.members, state, self._loaded)

    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Return the value of each metric for every member, shape [M] each; NaN if a member has no value."""
        described = [model.describe(truth) if isinstance(model, DescribedModel) else {} for model in self._models]
        names = dict.fromkeys(name for values in described for name in values)
        return {name: np.array([values.get(name, np.nan) for values in described], dtype=np.float64) for name in names}

    def _loaded(self, state: Mapping[str, NDArray[Any]]) -> GenerativeModel:
        """Return a new model with this state; an empty state leaves it unfitted."""
        model = self._make()
        if state:
            model.load(state)
        return model


def join_states(states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of all members in one dictionary, as ``<member>/<name>``; a scalar becomes an array of one."""
    # A file of arrays does not distinguish a scalar from an array of one.
    return {
        f"{member}/{name}": np.array(array, ndmin=1)
        for member, state in enumerate(states)
        for name, array in state.items()
    }


def split_states(
    model: str, members: int, state: Mapping[str, NDArray[Any]], load: Callable[[Mapping[str, NDArray[Any]]], T]
) -> list[T]:
    """Load every member from its part of a result of :func:`join_states`; raise DataError if it does not fit."""
    states: list[dict[str, NDArray[Any]]] = [{} for _ in range(members)]
    for path, array in state.items():
        member, _, name = path.partition("/")
        if not (member.isdecimal() and int(member) < members and name):
            raise DataError(
                f'the stored parameters of model "{model}" do not fit: "{path}" is stored, but its members are '
                f"0 to {members - 1}; they belong to another preset or another number of members."
            )
        states[int(member)][name] = array
    try:
        return [load(arrays) for arrays in states]
    except DataError as error:
        raise DataError(f'the stored parameters of model "{model}" do not fit: {error}') from error


def check_finite(docs: pl.Series) -> None:
    """Raise TrainingError if documents contain numbers that are not finite."""
    values = docs.to_numpy()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise TrainingError("some of its documents contain numbers that are not finite; their author has diverged.")


# Helpers for models.


def unfitted() -> TrainingError:
    """Make the error of a model that is used before its first fit."""
    return TrainingError('it has not been fitted yet; let it train first, or set init = "foundation".')


def stored(state: Mapping[str, NDArray[Any]], name: str, *shape: int) -> Floats:
    """Return an array of a stored state; raise DataError if it is missing or misshapen (-1: any size)."""
    if name not in state:
        raise DataError(f"{name} is missing.")
    array = np.array(state[name], dtype=np.float64)
    if array.ndim != len(shape) or any(n not in (-1, size) for n, size in zip(shape, array.shape, strict=True)):
        raise DataError(f"{name} is {list(array.shape)}, not {list(shape)}.")
    return array


def coordinates(n: int, each: int, stream: Stream) -> Floats:
    """Return ``each`` uniform numbers for each of n documents, keyed by the document's number, [n, each]."""
    return stream.uniform(np.arange(n * each)).reshape(n, each)


def choose(weight: Floats, noise: Floats) -> NDArray[np.int64]:
    """Turn uniform numbers [n] into indices of ``weight``, drawn in proportion to the weights."""
    cumulative = weight.cumsum()
    # side="right" never chooses a weight of 0.
    indices = np.searchsorted(cumulative, noise * cumulative[-1], side="right")
    return np.asarray(np.minimum(indices, np.flatnonzero(weight)[-1]), dtype=np.int64)
