"""Single models of text: the interface for authors of new families of text, and the cohort made from it.

A :class:`TextModel` returns a distribution over the next token, and knows nothing of members, requests or runs. Its
family passes :class:`SingleTextCohort` a tokenizer and a function that makes a model. The cohort decodes (temperature,
top-k, top-p, prompts, watermarks), scores token by token and stores the members; agents, gates, resuming, measurement
and reports then work as for every other family. A complete model of token pairs::

    class Pairs:
        def __init__(self, types: int) -> None:
            self.types = types

        def fit(self, documents, *, weight, stream):
            self.counts = np.full((self.types, self.types), 0.01)
            for ids, copies in zip(documents, weight, strict=True):
                np.add.at(self.counts, (ids[:-1], ids[1:]), copies)

        def next_token(self, ids):
            counts = self.counts[ids[:, -1]]
            return counts / counts.sum(axis=1, keepdims=True)

        def state(self):
            return {"counts": self.counts}

        def load(self, state):
            self.counts = state["counts"]


    @FAMILIES.register("pairs")
    class PairFamily(SingleTextFamily):
        def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
            tokenizer = Tokenizer.train(context.human.to_list(), vocabulary=300)
            return SingleTextCohort(name, members, tokenizer, lambda: Pairs(tokenizer.size))

``ecosystem.testing.check_family`` checks a family; ``docs/howto/text-family.md`` explains this one line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import TrainingError
from ecosystem.families.base import Family, MemberError, Progress, of_member, silent
from ecosystem.families.language.cohort import CohortSettings, LanguageCohort, Nll
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import FitRecord, FitRequest, Member, ScoreRequest
from ecosystem.families.single import join_states, split_states
from ecosystem.families.training import positive_weights
from ecosystem.streams import Stream
from ecosystem.types import Floats, Ints, Modality

Distribution = Callable[[Ints], Floats]
"""Token ids so far [N, T] → probabilities of the next token [N, types]."""

_LOWEST = np.finfo(np.float32).min  # log-probability of impossible tokens, since logits must be finite
_CONTEXT = 4096


class SingleTextFamily(Family):
    """A family of text whose cohorts are :class:`SingleTextCohort`.

    A fit reads every document once, whatever the trainer's budget. Trainers may watermark their text.
    """

    modality: ClassVar[Modality] = "text"
    uses_budget: ClassVar[bool] = False
    supports_watermark: ClassVar[bool] = True


class TextModel(Protocol):
    """A distribution over the next token. Every fit makes a new model.

    A method that cannot do its work raises a TrainingError whose message begins in lower case; the cohort prefixes the
    member.
    """

    def fit(self, documents: Sequence[NDArray[np.int32]], *, weight: Floats, stream: Stream) -> None:
        """Fit the model to documents: arrays of token ids, with the end-of-text token before and after each.

        ``weight`` [documents] is above 0; a document of weight 2 counts twice. A model is fitted only once.
        """

    def next_token(self, ids: Ints) -> Floats:
        """Return the probabilities of the token after each row of ``ids`` [N, T], shape [N, types].

        A row is the end-of-text token and the first T - 1 tokens of a document (T ≥ 1); if these exceed the cohort's
        context, it is the last T tokens. Row i of the result must depend on row i of ``ids`` alone.
        """

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that fit() has set (at least one), without arguments of __init__."""

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore, in a new model, a result of :meth:`state`; raise DataError if it does not fit."""


class SingleTextCohort(LanguageCohort):
    """M models of one class, called one after the other.

    Before its first fit a member gives all tokens the same probability.
    """

    def __init__(
        self,
        name: str,
        members: int,
        tokenizer: Tokenizer,
        make: Callable[[], TextModel],
        *,
        context: int = _CONTEXT,
    ) -> None:
        """``make`` returns a new model over ``tokenizer.size`` tokens; ``context`` is its longest input in tokens."""
        super().__init__(CohortSettings(name, members, tokenizer, context), device="cpu", workers=(1, 1))
        self._make = make
        self._initial: TextModel | None = None
        self._models: list[TextModel | None] = [None] * members

    def begin_from(self, docs: pl.Series, stream: Stream) -> None:
        """Fit one model to ``docs`` and start every member from it."""
        self._initial = self._fitted(docs, np.ones(len(docs)), stream)
        self._models = [self._initial] * self.members

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Fit new models to the documents of the requests; budget, learning rate and start are ignored.

        Raises MemberError if there is nothing to train on, and for every TrainingError of a model; no member changes
        then.
        """
        self._check_fit(requests)
        fitted, seconds = [], []
        for done, request in enumerate(requests, 1):
            began = perf_counter()
            with of_member(request.member, " cannot be trained"):
                fitted.append(self._fitted(request.docs, request.weight, request.stream))
            seconds.append(perf_counter() - began)
            progress("fit", done, len(requests))
        for request, model in zip(requests, fitted, strict=True):
            self._models[request.member] = model
        records = []
        scores = self.score([ScoreRequest(request.member, request.docs) for request in requests])
        for request, score, duration in zip(requests, scores, seconds, strict=True):
            weight = np.repeat(np.asarray(request.weight, dtype=np.float64), np.diff(score.offsets))
            trained = weight > 0
            loss = float(np.average(score.nll[trained], weights=weight[trained]))
            records.append(FitRecord(int(np.count_nonzero(trained)), loss, duration))
        return records

    def _fitted(self, docs: pl.Series, weight: Floats, stream: Stream) -> TextModel:
        tokens, end = self.tokenizer.encode(docs), np.array([self.tokenizer.end], dtype=np.int32)
        weight, positive = positive_weights(len(tokens), weight)
        model = self._make()
        documents = [np.concatenate([end, tokens[i], end]) for i in positive.tolist()]
        model.fit(documents, weight=weight[positive], stream=stream)
        return model

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all fitted members as ``<member>/<name>``."""
        return join_states([{} if model is None else model.state() for model in self._models])

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it does not fit."""
        self._models = split_states(self.name, self.members, state, self._loaded)

    def _loaded(self, state: Mapping[str, NDArray[Any]]) -> TextModel | None:
        if not state:
            return None
        model = self._make()
        model.load(state)
        return model

    # Distributions.

    def _next_token(self, member: Member, ids: Ints) -> Floats:
        """Return the distributions after ids [N, T]; they are uniform for unfitted models."""
        model = self._models[member] if isinstance(member, int) else self._initial if member == "initial" else None
        if model is None:
            return np.full((len(ids), self.types), 1 / self.types)
        try:
            p = np.asarray(model.next_token(ids), dtype=np.float64)
            _check_distribution(p, (len(ids), self.types))
        except TrainingError as error:
            if isinstance(member, int):
                raise MemberError(member, f"member {member}: {error}") from error
            raise TrainingError(f'model "{self.name}": {error}') from error
        return p

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        return _SingleDecoder(partial(self._next_token, members[0]))

    def _nll(self, member: Member) -> Nll:
        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            ids, tokens, selected = inputs.numpy(), targets.numpy(), scored.numpy()
            p = np.ones(ids.shape)
            for position in range(ids.shape[1]):
                rows = np.flatnonzero(selected[:, position])
                if rows.size:
                    distribution = self._next_token(member, ids[rows, : position + 1])
                    p[rows, position] = distribution[np.arange(rows.size), tokens[rows, position]]
            with np.errstate(divide="ignore"):  # an impossible token has infinite nats
                return torch.from_numpy(-np.log(p[selected]))

        return nll


def _check_distribution(p: Floats, shape: tuple[int, int]) -> None:
    """Raise TrainingError unless each row of ``p`` is a distribution over all tokens."""
    if p.shape != shape:
        raise TrainingError(
            f"next_token() returned an array of shape {list(p.shape)}, not {list(shape)}; return one row for each row "
            "of ids and one column for each token."
        )
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-6)):
        raise TrainingError(
            "next_token() returned rows that are not distributions; return numbers of at least 0 that sum to 1."
        )


class _SingleDecoder:
    """The decoder of one model, which stores all tokens so far."""

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._ids = np.zeros((0, 0), dtype=np.int64)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        self._ids = ids.numpy()
        return self._logits()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        self._ids = np.column_stack([self._ids, ids.numpy()])
        return self._logits()

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor)."""
        self._ids = self._ids[rows.numpy()]

    def _logits(self) -> Tensor:
        with np.errstate(divide="ignore"):
            log_p = np.log(self._distribution(self._ids))
        return torch.from_numpy(np.maximum(log_p, _LOWEST).astype(np.float32))
