"""Normal distributions: comparison of moments with the truth, and square roots of covariances."""

from __future__ import annotations

import numpy as np

from ecosystem.sources.base import Truth
from ecosystem.types import Floats


def moments(mean: Floats, covariance: Floats, truth: Truth) -> dict[str, Floats]:
    """Return ``mean_error``, ``variance`` (relative to the true one) and ``w2`` of moments [M, d] and [M, d, d].

    ``w2`` is the squared Wasserstein distance between normals, |μ - ν|² + tr(A + B - 2 (√B A √B)^½) (Dowson & Landau
    1982).
    """
    assert truth.mean is not None and truth.covariance is not None
    error = ((mean - truth.mean) ** 2).sum(axis=1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    true_trace = float(np.trace(truth.covariance))
    root = square_root(truth.covariance[None])[0]
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0.0)).sum(axis=1)
    return {
        "mean_error": error,
        "variance": np.maximum(trace, 0.0) / true_trace,
        "w2": np.maximum(error + trace + true_trace - 2 * cross, 0.0),
    }


def square_root(covariance: Floats) -> Floats:
    """Return the symmetric square roots of covariances [M, d, d]; negative eigenvalues (by rounding) count as zero."""
    if covariance.shape[-1] == 1:
        return np.sqrt(np.maximum(covariance, 0.0))
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))[:, None]) @ vectors.swapaxes(1, 2))


def moments_of_one(mean: Floats, covariance: Floats, truth: Truth) -> dict[str, float]:
    """Compare one mean [d] and covariance [d, d] as :func:`moments` does; return {} if the truth is unknown."""
    if truth.mean is None or truth.covariance is None:
        return {}
    return {name: float(value[0]) for name, value in moments(mean[None], covariance[None], truth).items()}
