"""Expectation maximisation for many mixtures of normals at once: the leading axis of every array is the mixture.

Initialisation and steps are those of scikit-learn's GaussianMixture with full covariances: k-means on the documents
(k-means++ of Arthur & Vassilvitskii 2007, then Lloyd's steps), then in turn the E step (the responsibility of every
component for every document) and the M step (the weights, means and covariances that maximise the likelihood given
these; Dempster, Laird & Rubin 1977). The result for one mixture does not depend on the others in the stack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecosystem.types import Floats

_MAX_LLOYD_STEPS = 300
_TINY = 10 * np.finfo(np.float64).eps  # added to the size of every component, to avoid a division by 0


class FittedMixtures(NamedTuple):
    """M fitted mixtures of k normals; where ``dead``, a component has died and the rest of the row is undefined."""

    weight: Floats  # [M, k]
    mean: Floats  # [M, k, d]
    covariance: Floats  # [M, k, d, d]
    loss: Floats  # [M]: negative mean log density of a document, before the last step
    dead: NDArray[np.bool_]  # [M]


def maximise(x: Floats, noise: Floats, *, tol: float, max_iter: int, regularization: float) -> FittedMixtures:
    """Fit M mixtures of k normals to documents x [M, n, d]; ``noise`` [M, k] holds uniform numbers for the start.

    The fit of a mixture ends when a step gains less than ``tol`` nats per document, or after ``max_iter`` steps;
    ``regularization`` is added to every variance. A component is dead if its covariance is singular up to rounding.
    """
    members, k, d = *noise.shape, x.shape[2]
    rounding = d * np.finfo(np.float64).eps * x.var(axis=1).sum(axis=1)
    responsibility = (k_means(x, noise)[:, :, None] == np.arange(k)).astype(np.float64)
    weight, mean, covariance = _m_step(x, responsibility, regularization)
    fits = FittedMixtures(weight, mean, covariance, np.full(members, np.inf), np.zeros(members, np.bool_))
    active = np.arange(members)
    for _ in range(max_iter):
        singular = np.linalg.eigvalsh(fits.covariance[active]).min(axis=(1, 2)) <= rounding[active]
        fits.dead[active[singular]] = True
        active = active[~singular]
        if not active.size:
            break
        responsibility, loss = _e_step(x[active], fits.weight[active], fits.mean[active], fits.covariance[active])
        for old, new in zip(fits[:3], _m_step(x[active], responsibility, regularization), strict=True):
            old[active] = new
        gain = np.abs(loss - fits.loss[active])
        fits.loss[active] = loss
        active = active[gain >= tol]
    fits.dead[:] |= np.linalg.eigvalsh(fits.covariance).min(axis=(1, 2)) <= rounding
    return fits


def k_means(x: Floats, noise: Floats) -> NDArray[np.int64]:
    """Assign documents x [M, n, d] to k clusters, [M, n]; ``noise`` [M, k] picks the initial centres."""
    members, n, d = x.shape
    k = noise.shape[1]
    rows = np.arange(members)
    centre = np.empty((members, k, d))
    nearest = np.ones((members, n))  # squared distance to the nearest centre; equal for the first
    for j in range(k):
        cumulative = nearest.cumsum(axis=1)
        # The first document beyond the drawn sum; the last one if every document coincides with a centre.
        chosen = np.minimum((cumulative <= noise[:, j, None] * cumulative[:, -1:]).sum(axis=1), n - 1)
        centre[:, j] = x[rows, chosen]
        distance = ((x - centre[:, j, None]) ** 2).sum(axis=2)
        nearest = distance if j == 0 else np.minimum(nearest, distance)
    cluster = np.full((members, n), -1)
    for _ in range(_MAX_LLOYD_STEPS):
        distances = np.stack([((x - centre[:, j, None]) ** 2).sum(axis=2) for j in range(k)], axis=2)
        nearest_centre = distances.argmin(axis=2)
        if (nearest_centre == cluster).all():
            break
        cluster = nearest_centre
        for j in range(k):
            assigned = (cluster == j)[:, :, None]
            count = assigned.sum(axis=1)
            centre[:, j] = np.where(count > 0, (x * assigned).sum(axis=1) / np.maximum(count, 1), centre[:, j])
    return cluster


def _m_step(x: Floats, responsibility: Floats, regularization: float) -> tuple[Floats, Floats, Floats]:
    """Return the weights [M, k], means [M, k, d] and covariances [M, k, d, d] that maximise the likelihood."""
    d, k = x.shape[2], responsibility.shape[2]
    size = responsibility.sum(axis=1) + _TINY
    mean = np.matmul(responsibility.transpose(0, 2, 1), x) / size[:, :, None]
    covariance = np.empty((len(x), k, d, d))
    for j in range(k):
        centred = x - mean[:, j, None]
        scatter = np.matmul((responsibility[:, :, j, None] * centred).transpose(0, 2, 1), centred)
        covariance[:, j] = scatter / size[:, j, None, None] + regularization * np.eye(d)
    return size / size.sum(axis=1, keepdims=True), mean, covariance


def _e_step(x: Floats, weight: Floats, mean: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Return the responsibilities of components for documents, [M, n, k], and the negative mean log density, [M]."""
    root = np.linalg.cholesky(covariance)
    whitening = np.linalg.inv(root).transpose(0, 1, 3, 2)
    scale = np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2) + 0.5 * x.shape[2] * np.log(2 * np.pi)
    joint = np.empty((*x.shape[:2], weight.shape[1]))
    for j in range(weight.shape[1]):
        whitened = np.matmul(x - mean[:, j, None], whitening[:, j])
        joint[:, :, j] = (np.log(weight[:, j]) - scale[:, j])[:, None] - 0.5 * (whitened**2).sum(axis=2)
    top = joint.max(axis=2, keepdims=True)
    likelihood = np.exp(joint - top)
    total = likelihood.sum(axis=2, keepdims=True)
    return likelihood / total, -(top + np.log(total))[:, :, 0].mean(axis=1)
