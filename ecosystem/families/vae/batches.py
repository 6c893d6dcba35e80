"""Training batches of variational autoencoders: documents, and the noise of their latent variables."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import TrainingError
from ecosystem.families.base import of_member
from ecosystem.families.requests import FitRequest
from ecosystem.families.training import Batch, positive_weights
from ecosystem.families.vae.networks import VECTOR

Floats32 = NDArray[np.float32]


def range_problem(x: NDArray[np.float64]) -> str:
    """Return the end of an error message if documents are not within [0, 1], else ""."""
    if bool(((x >= 0) & (x <= 1)).all()):  # False for NaN
        return ""
    return (
        f"their values run from {x.min():g} to {x.max():g}, but the binary cross-entropy of a vae is defined from 0 to "
        "1; scale them in the source, or use a model of kind gaussian."
    )


class VaeBatches:
    """The batches of one fit: all documents in every epoch, in a new random order.

    In a batch, ``inputs`` are documents [rows, d], ``targets`` standard normal noise [rows, latent], ``weight`` is
    [rows, 1], and ``tokens`` is the number of documents. Rows of zeros with weight 0 pad it to whole vectors of the
    processor. Documents of weight 0 are left out; the other weights are scaled to a mean of 1. Raises MemberError if
    there is nothing to train on or a document is not within [0, 1].
    """

    def __init__(self, request: FitRequest, batch: int, latent: int) -> None:
        """``batch``: documents per optimiser step; ``latent``: latent variables of a document."""
        x = request.docs.to_numpy()
        with of_member(request.member, " cannot be trained on its documents"):
            weight, positive = positive_weights(len(x), request.weight)
            problem = range_problem(x[positive])
            if problem:
                raise TrainingError(problem)
        self._x = x[positive].astype(np.float32)
        self._weight = (weight[positive] / weight[positive].mean()).astype(np.float32)
        self._batch, self._latent, self._stream = batch, latent, request.stream
        budget = request.budget
        epochs = budget.epochs or 0
        self.total = budget.tokens if budget.tokens is not None else max(1, round(epochs * positive.size))
        self.steps = math.ceil(self.total / batch)

    def _order(self) -> Iterator[NDArray[np.int64]]:
        epoch = 0
        while True:
            yield self._stream.child(f"order/epoch/{epoch}").rng().permutation(len(self._x))
            epoch += 1

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches; together they hold ``total`` documents."""
        generator = self._stream.child("noise").rng()
        epochs, remaining = self._order(), self.total
        order = next(epochs)
        while remaining:
            n = min(self._batch, remaining)
            while len(order) < n:
                order = np.append(order, next(epochs))
            rows, order = order[:n], order[n:]
            noise = generator.standard_normal((n, self._latent), dtype=np.float32)
            yield Batch(_padded(self._x[rows]), _padded(noise), _padded(self._weight[rows, None]), n)
            remaining -= n


def _padded(rows: Floats32) -> Floats32:
    """Pad rows with zeros to whole vectors of the processor."""
    missing = -len(rows) % VECTOR
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows
