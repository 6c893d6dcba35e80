"""Documents packed into blocks: what a fit sees, batch by batch.

The training set is one endless chain of tokens: every epoch, all documents in an order drawn anew, each followed by
the end-of-text token. A batch is the next ``batch × length`` tokens of the chain, cut into rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import TrainingError
from ecosystem.families.base import Budget
from ecosystem.streams import Stream


@dataclass(frozen=True)
class Batch:
    """Rows of tokens: ``inputs``, ``targets`` (int64) and ``weight`` (float32), each of shape [rows, length].

    ``tokens`` counts the targets; behind the last of them the final row is filled up with weight 0.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    weight: NDArray[np.float32]
    tokens: int


class Packing:
    """The batches of one fit.

    Documents of weight 0 are left out, weights are scaled to a mean of 1 over tokens, so that doubling one is the
    same as having the document twice. A row is ``context`` tokens long, or as long as the whole training set if that
    is shorter. Raises TrainingError if there is nothing to train on or a weight is not a number from 0 up.
    """

    def __init__(
        self,
        tokens: Sequence[NDArray[np.int32]],
        weight: NDArray[np.float64],
        end: int,
        context: int,
        batch: int,
        budget: Budget,
        stream: Stream,
    ) -> None:
        weight = np.asarray(weight, dtype=np.float64)
        if len(weight) != len(tokens):
            raise TrainingError(f"there are {len(tokens)} documents to train on but {len(weight)} weights.")
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise TrainingError("a document's weight is negative or not a number; weights are finite and at least 0.")
        kept = np.flatnonzero(weight > 0)
        if len(kept) == 0:
            what = "every document has weight 0" if len(tokens) else "there is no document"
            raise TrainingError(f"{what}, so there is nothing to train on; loosen the policies or scrape more.")
        closing = np.array([end], dtype=np.int32)
        self._documents = [np.append(tokens[i], closing) for i in kept.tolist()]
        sizes = np.array([len(document) for document in self._documents])
        self._weight = weight[kept] * (sizes.sum() / (weight[kept] @ sizes))
        self._sizes = sizes
        self._end, self._batch, self._stream = end, batch, stream
        per_epoch = int(sizes.sum())
        self.total = budget.tokens if budget.tokens is not None else max(1, round((budget.epochs or 0) * per_epoch))
        self.length = min(context, per_epoch, self.total)
        self.steps = math.ceil(self.total / (batch * self.length))

    def _epochs(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        epoch = 0
        while True:
            order = self._stream.child(f"epoch/{epoch}").rng().permutation(len(self._documents))
            tokens = np.concatenate([self._documents[i] for i in order])
            yield tokens, np.repeat(self._weight[order], self._sizes[order]).astype(np.float32)
            epoch += 1

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches; together they hold exactly ``total`` tokens."""
        epochs = self._epochs()
        tokens, weight = next(epochs)
        before, left = self._end, self.total
        while left:
            n = min(self._batch * self.length, left)
            while len(tokens) < n:
                more = next(epochs)
                tokens, weight = np.append(tokens, more[0]), np.append(weight, more[1])
            rows = math.ceil(n / self.length)
            targets = np.full(rows * self.length, self._end, dtype=np.int64)
            inputs, scale = targets.copy(), np.zeros(rows * self.length, dtype=np.float32)
            targets[:n], scale[:n] = tokens[:n], weight[:n]
            inputs[0], inputs[1:] = before, targets[:-1]
            size = (rows, self.length)
            yield Batch(inputs.reshape(size), targets.reshape(size), scale.reshape(size), n)
            before, left = int(targets[n - 1]), left - n
            tokens, weight = tokens[n:], weight[n:]
