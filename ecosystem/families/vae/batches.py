"""Batches of a fit of variational autoencoders: documents, and the noise of their latent numbers."""

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


def outside(x: NDArray[np.float64]) -> str:
    """Return why documents that are not within [0, 1] are refused, as the end of a sentence, or ""."""
    if bool(((x >= 0) & (x <= 1)).all()):  # not so where one is not a number
        return ""
    return (
        f"their values run from {x.min():g} to {x.max():g}, but the binary cross-entropy of a vae is defined from 0 to "
        "1; scale them in the source, or use a model of kind gaussian."
    )


class VaeBatches:
    """The batches of one fit: in every epoch all documents, in a new random order.

    ``inputs`` of a batch are documents [rows, d], ``targets`` standard normal noise [rows, latent], ``weight`` is
    [rows, 1]; ``tokens`` counts the documents, and rows of zeros, of weight 0, fill the last vector of the processor.
    Documents of weight 0 are left out, weights are scaled to a mean of 1. Raises MemberError if there is nothing to
    train on or a document is not within [0, 1].
    """

    def __init__(self, request: FitRequest, batch: int, latent: int) -> None:
        """``batch``: documents per optimiser step; ``latent``: latent numbers of a document."""
        x = request.docs.to_numpy()
        with of_member(request.member, " cannot be trained on its documents"):
            weight, kept = positive_weights(len(x), request.weight)
            wrong = outside(x[kept])
            if wrong:
                raise TrainingError(wrong)
        self._x = x[kept].astype(np.float32)
        self._weight = (weight[kept] / weight[kept].mean()).astype(np.float32)
        self._batch, self._latent, self._stream = batch, latent, request.stream
        budget = request.budget
        epochs = budget.epochs or 0
        self.total = budget.tokens if budget.tokens is not None else max(1, round(epochs * kept.size))
        self.steps = math.ceil(self.total / batch)

    def _order(self) -> Iterator[NDArray[np.int64]]:
        epoch = 0
        while True:
            yield self._stream.child(f"order/epoch/{epoch}").rng().permutation(len(self._x))
            epoch += 1

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches; together they hold ``total`` documents."""
        generator = self._stream.child("noise").rng()
        epochs, left = self._order(), self.total
        order = next(epochs)
        while left:
            n = min(self._batch, left)
            while len(order) < n:
                order = np.append(order, next(epochs))
            rows, order = order[:n], order[n:]
            noise = generator.standard_normal((n, self._latent), dtype=np.float32)
            yield Batch(_filled(self._x[rows]), _filled(noise), _filled(self._weight[rows, None]), n)
            left -= n


def _filled(rows: Floats32) -> Floats32:
    missing = -len(rows) % VECTOR
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows
