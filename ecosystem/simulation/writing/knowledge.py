"""Learned benefits: how much nearer one more document brings public knowledge to the truth (cf. Peterson 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from ecosystem.families.requests import GenerateRequest
from ecosystem.metrics.estimates import hellinger
from ecosystem.scenario.entries.people import WriterSpec
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.choices.strategies import Choices
from ecosystem.simulation.state import State
from ecosystem.sources.base import Reservoir, random_rows
from ecosystem.sources.vectors import as_documents
from ecosystem.types import Floats

NEWEST = 1000  # live documents that are public knowledge
POINTS = 401  # of the grid on which densities are compared
_FEWEST = 2  # documents that have a spread
_SCALE = 100.0  # of gains


def learn(state: State, name: str, settings: WriterSpec, choices: Choices, trainers: Sequence[Trainer]) -> None:
    """Move the benefits that a population has learnt towards the mean gains of unpublished trial documents."""
    assert settings.choice is not None and settings.choice.novelty is not None
    novelty, reservoir = settings.choice.novelty, state.reservoirs[settings.source]
    public = state.corpus.contents(state.corpus.live().doc[-NEWEST:])
    if public.len() < _FEWEST:
        return
    first = bool(np.isnan(choices.learnt).all())
    if novelty.inherited is not None and (first or state.t % novelty.inherited == 0):
        assert reservoir.truth is not None and reservoir.truth.covariance is not None
        known = public.to_numpy()[:, 0]
        variance = known.var() + _width(known) ** 2  # of the estimate
        choices.spread = float(np.sqrt(variance / reservoir.truth.covariance[0, 0]))
    rows = random_rows(novelty.trials, 0, reservoir.size, state.stream(f"writers/{name}/trials"))
    trials = [
        observed(reservoir.rows(rows), choices, reservoir),
        _trials(state, name, trainers, novelty.trials, public),
    ]
    for place, documents in enumerate(trials):
        if documents.is_empty():
            continue
        gain, before = float(np.mean(gains(public, documents, reservoir))), choices.learnt[place]
        choices.learnt[place] = gain if np.isnan(before) else before + novelty.learning_rate * (gain - before)


def _trials(state: State, name: str, trainers: Sequence[Trainer], n: int, like: pl.Series) -> pl.Series:
    """Return ``n`` unpublished documents of the models that writers can use; none if no model is ready."""
    if not trainers:
        return like.clear()
    trainer = trainers[state.t % len(trainers)]
    decoding = trainer.settings.decoding.model_copy(update={"prompt": None})
    request = GenerateRequest(trainer.member, n, decoding, None, state.stream(f"writers/{name}/trials/ai"), None)
    return state.cohorts[trainer.settings.model].generate([request])[0]


def gains(public: pl.Series, documents: pl.Series, reservoir: Reservoir) -> Floats:
    """Return 100 times the fall of the Hellinger distance to the truth that each document brings, at least 0."""
    grid = grid_of(reservoir)
    truth = reservoir.log_likelihood(grid)
    assert truth is not None  # checked when the scenario was read
    points, density, known = grid.to_numpy()[:, 0], np.exp(truth), public.to_numpy()[:, 0]
    after = [hellinger(_density(np.append(known, x), points), density, points) for x in documents.to_numpy()[:, 0]]
    return _SCALE * np.maximum(hellinger(_density(known, points), density, points) - np.array(after), 0.0)


def observed(documents: pl.Series, choices: Choices, reservoir: Reservoir) -> pl.Series:
    """Return what people write of the truth: documents whose distance from its mean is multiplied by their spread."""
    if choices.spread == 1.0:
        return documents
    assert reservoir.truth is not None and reservoir.truth.mean is not None
    mean = reservoir.truth.mean
    return as_documents(mean + choices.spread * (documents.to_numpy() - mean))


def _width(known: Floats) -> float:
    """Return the width of the kernels by Scott's rule; 1 instead of a standard deviation of 0."""
    return float(known.size ** (-1 / 5) * (known.std(ddof=1) or 1.0))


def _density(known: Floats, points: Floats) -> Floats:
    """Return the kernel density estimate from numbers [n], at ``points`` [points]."""
    scaled = (points[:, None] - known) / _width(known)
    kernels = np.exp(-0.5 * scaled**2).sum(axis=1)
    return np.asarray(kernels / (known.size * _width(known) * math.sqrt(2 * math.pi)), np.float64)


def grid_of(reservoir: Reservoir, points: int = POINTS) -> pl.Series:
    """Return single numbers, evenly spaced within 9 standard deviations of the true mean, as documents."""
    truth = reservoir.truth
    assert truth is not None and truth.mean is not None and truth.covariance is not None
    reach = 9 * float(np.sqrt(truth.covariance[0, 0]))
    return as_documents(np.linspace(truth.mean[0] - reach, truth.mean[0] + reach, points)[:, None])
