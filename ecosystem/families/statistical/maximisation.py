"""Expectation maximisation for mixtures of normals, many at once: stacks of arrays with the mixture as leading axis.

Start and steps are those of scikit-learn's GaussianMixture with full covariances: k-means on the documents (k-means++
of Arthur & Vassilvitskii 2007, then Lloyd's steps), then, in turn, every component's share of every document, and the
weights, means and covariances that maximise the likelihood given these shares (Dempster, Laird & Rubin 1977). The
result for one mixture does not depend on the others in the stack.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecosystem.types import Floats

_LLOYD = 300  # steps of k-means, at most
_TINY = 10 * np.finfo(np.float64).eps  # documents added to every component, so that nothing is divided by 0


class Maximised(NamedTuple):
    """M fitted mixtures of k normals; where ``dead``, a component has died and the rest of the row is undefined."""

    weight: Floats  # [M, k]
    mean: Floats  # [M, k, d]
    covariance: Floats  # [M, k, d, d]
    loss: Floats  # [M]: minus the mean log density of a document, before the last step
    dead: NDArray[np.bool_]  # [M]


def maximise(x: Floats, noise: Floats, *, tol: float, max_iter: int, regularization: float) -> Maximised:
    """Fit M mixtures of k normals to their documents x [M, n, d]; ``noise`` [M, k]: uniform numbers for the start.

    A mixture is done when a step gains less than ``tol`` nats per document, or after ``max_iter`` steps;
    ``regularization`` is added to every variance. A component is dead where its covariance is singular to rounding.
    """
    members, k, d = *noise.shape, x.shape[2]
    rounding = d * np.finfo(np.float64).eps * x.var(axis=1).sum(axis=1)
    share = (k_means(x, noise)[:, :, None] == np.arange(k)).astype(np.float64)
    weight, mean, covariance = _likeliest(x, share, regularization)
    done = Maximised(weight, mean, covariance, np.full(members, np.inf), np.zeros(members, np.bool_))
    going = np.arange(members)
    for _ in range(max_iter):
        low = np.linalg.eigvalsh(done.covariance[going]).min(axis=(1, 2)) <= rounding[going]
        done.dead[going[low]] = True
        going = going[~low]
        if not going.size:
            break
        share, loss = _shares(x[going], done.weight[going], done.mean[going], done.covariance[going])
        for old, new in zip(done[:3], _likeliest(x[going], share, regularization), strict=True):
            old[going] = new
        gained = np.abs(loss - done.loss[going])
        done.loss[going] = loss
        going = going[gained >= tol]
    done.dead[:] |= np.linalg.eigvalsh(done.covariance).min(axis=(1, 2)) <= rounding
    return done


def k_means(x: Floats, noise: Floats) -> NDArray[np.int64]:
    """Return the cluster of every document, [M, n], in k clusters; ``noise`` [M, k] picks the start."""
    members, n, d = x.shape
    k = noise.shape[1]
    rows = np.arange(members)
    centre = np.empty((members, k, d))
    nearest = np.ones((members, n))
    for j in range(k):
        upto = nearest.cumsum(axis=1)
        # The first document beyond the drawn sum; the last one where none is apart from the centres.
        chosen = np.minimum((upto <= noise[:, j, None] * upto[:, -1:]).sum(axis=1), n - 1)
        centre[:, j] = x[rows, chosen]
        apart = ((x - centre[:, j, None]) ** 2).sum(axis=2)
        nearest = apart if j == 0 else np.minimum(nearest, apart)
    cluster = np.full((members, n), -1)
    for _ in range(_LLOYD):
        distance = np.stack([((x - centre[:, j, None]) ** 2).sum(axis=2) for j in range(k)], axis=2)
        nearest_centre = distance.argmin(axis=2)
        if (nearest_centre == cluster).all():
            break
        cluster = nearest_centre
        for j in range(k):
            own = (cluster == j)[:, :, None]
            count = own.sum(axis=1)
            centre[:, j] = np.where(count > 0, (x * own).sum(axis=1) / np.maximum(count, 1), centre[:, j])
    return cluster


def _likeliest(x: Floats, share: Floats, regularization: float) -> tuple[Floats, Floats, Floats]:
    """Return the weights [M, k], means [M, k, d] and covariances [M, k, d, d] that maximise the likelihood."""
    d, k = x.shape[2], share.shape[2]
    size = share.sum(axis=1) + _TINY
    mean = np.matmul(share.transpose(0, 2, 1), x) / size[:, :, None]
    covariance = np.empty((len(x), k, d, d))
    for j in range(k):
        apart = x - mean[:, j, None]
        spread = np.matmul((share[:, :, j, None] * apart).transpose(0, 2, 1), apart)
        covariance[:, j] = spread / size[:, j, None, None] + regularization * np.eye(d)
    return size / size.sum(axis=1, keepdims=True), mean, covariance


def _shares(x: Floats, weight: Floats, mean: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Return every component's share of every document, [M, n, k], and minus their mean log density, [M]."""
    root = np.linalg.cholesky(covariance)
    whitening = np.linalg.inv(root).transpose(0, 1, 3, 2)
    scale = np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2) + 0.5 * x.shape[2] * np.log(2 * np.pi)
    joint = np.empty((*x.shape[:2], weight.shape[1]))
    for j in range(weight.shape[1]):
        white = np.matmul(x - mean[:, j, None], whitening[:, j])
        joint[:, :, j] = (np.log(weight[:, j]) - scale[:, j])[:, None] - 0.5 * (white**2).sum(axis=2)
    top = joint.max(axis=2, keepdims=True)
    share = np.exp(joint - top)
    total = share.sum(axis=2, keepdims=True)
    return share / total, -(top + np.log(total))[:, :, 0].mean(axis=1)
