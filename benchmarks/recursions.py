"""Recursions of closed-form models: all replicates at once against a NumPy loop per replicate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ecosystem.validation.recursions import categorical_replace, gaussian_replace

GENERATIONS, SAMPLES, TYPES = 100, 100, 1000


def numpy_gaussian(replicates: int, seed: int) -> np.ndarray:
    """Run one replicate after the other: sample, mean, standard deviation."""
    rng = np.random.default_rng(seed)
    fits = np.empty((GENERATIONS, replicates, 2))
    for replicate in range(replicates):
        mean, deviation = 0.0, 1.0
        for t in range(GENERATIONS):
            x = rng.normal(mean, deviation, SAMPLES)
            mean, deviation = x.mean(), x.std(ddof=1)
            fits[t, replicate] = mean, deviation
    return fits


def numpy_categorical(p: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Run one replicate after the other (draw, count, divide); return the diversity of every generation."""
    rng = np.random.default_rng(seed)
    diversity = np.empty((GENERATIONS, replicates))
    for replicate in range(replicates):
        share = p
        for t in range(GENERATIONS):
            drawn = rng.choice(p.size, SAMPLES, p=share)
            share = np.bincount(drawn, minlength=p.size) / SAMPLES
            diversity[t, replicate] = 1 - (share**2).sum()
    return diversity


def measure(rounds: int, replicates: int = 1000) -> dict[str, dict[str, Any]]:
    """Return, for both recursions, median seconds of both sides over rounds in turn, and the ratio's range.

    The loop is run for a tenth of the replicates and its time multiplied by ten.
    """
    zipf = 1 / np.arange(1, TYPES + 1)
    zipf /= zipf.sum()
    tenth = max(1, replicates // 10)
    pairs: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
        "gaussian": (
            lambda seed: gaussian_replace(replicates, GENERATIONS, SAMPLES, seed=seed),
            lambda seed: numpy_gaussian(tenth, seed),
        ),
        "categorical": (
            lambda seed: categorical_replace(zipf, replicates, GENERATIONS, SAMPLES, seed=seed),
            lambda seed: numpy_categorical(zipf, tenth, seed),
        ),
    }
    results = {}
    for name, (ours, theirs) in pairs.items():
        times: tuple[list[float], list[float]] = ([], [])
        for seed in range(rounds + 1):
            a, b = _seconds(ours, seed), _seconds(theirs, seed) * replicates / tenth
            if seed:  # the first round warms up
                times[0].append(a)
                times[1].append(b)
        ratios = [b / a for a, b in zip(*times, strict=True)]
        results[name] = {
            "ours_seconds": statistics.median(times[0]),
            "numpy_seconds": statistics.median(times[1]),
            "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        }
    return results


def _seconds(work: Callable[[int], Any], seed: int) -> float:
    started = time.perf_counter()
    work(seed)
    return time.perf_counter() - started
