"""Laboratories that read each other: the errors of their estimates on any directed graph, and who collapses.

Laboratory i is fitted at each generation to ``documents[i][j]`` new documents of the last model of each laboratory j,
and to ``real[i]`` new real ones; all count alike. With A_ij the share of its documents that it reads of j, the errors
of estimated means follow e' = A e + noise, so their second moments follow S' = A S A^T + D. The setting is that of Wu,
Zhou & Su 2026 (2605.20151) and Vu, Reeves & Wenger 2026 (2505.21677), of which only the abstracts were read; the
recursions were derived for this project.

Generation 1 is fitted to real documents alone, as many as a laboratory reads later. Two readers may draw the same
document of a laboratory: ``batch`` is the number of documents that each laboratory publishes per generation, and
``real_batch`` that of the real ones, from which all readers draw without replacement. Absent: no two readers ever draw
the same document.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_at_least, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats

Covariance = Literal["unit", "unbiased", "maximum_likelihood"]
_COVARIANCES = ("unit", "unbiased", "maximum_likelihood")
_REAL = ("real data",)  # a node of the graph of readers; no laboratory's name is a tuple


def reaching_real_data(reads: Mapping[str, Collection[str]], real: Collection[str]) -> set[str]:
    """Return the laboratories from which one with real data is reached along reading links, those with it included.

    ``reads`` maps every laboratory to those of which it reads a positive share, and ``real`` holds those that read a
    positive share of real data. The spectral radius of the shares A is below 1, and every error of a mean bounded, if
    and only if the result holds all laboratories. A condition of this kind is stated by Wu, Zhou & Su 2026
    (2605.20151, abstract); the proof for means, by substochastic matrices, is this project's.
    """
    import networkx as nx

    graph = nx.DiGraph((reader, author) for reader, authors in reads.items() for author in authors)
    graph.add_node(_REAL)
    graph.add_edges_from((reader, _REAL) for reader in real)
    return {lab for lab in nx.ancestors(graph, _REAL) if lab in reads}


@dataclass(frozen=True)
class Moments:
    """Moments of the models of one generation, as shares of the true variance.

    ``variance`` [laboratories] is their expected variance, and ``error`` [laboratories, laboratories] the expected
    products of the errors of their means.
    """

    variance: Floats
    error: Floats

    @property
    def flat(self) -> Floats:
        """All numbers in one vector."""
        return np.concatenate([self.variance, self.error.ravel()])

    @classmethod
    def of(cls, flat: Floats, size: int) -> Moments:
        """Return the moments of ``size`` laboratories from their numbers in one vector."""
        return cls(flat[:size], flat[size:].reshape(size, size))


@dataclass(frozen=True)
class Network:
    """Numbers of documents that laboratories read per generation: ``documents`` [reader, author], ``real`` [reader].

    ``batch`` [author] and ``real_batch`` are the documents from which they are drawn, infinite if never the same.
    """

    documents: Floats
    real: Floats
    batch: Floats
    real_batch: float

    @classmethod
    def of(
        cls, documents: ArrayLike, real: ArrayLike, batch: ArrayLike | None = None, real_batch: float | None = None
    ) -> Network:
        """Check the numbers; raise DataError for a graph that is not square, or for impossible draws."""
        counts, own = whole_numbers("documents", documents), whole_numbers("real", real)
        if counts.ndim != 2 or counts.shape != (own.size, own.size) or own.ndim != 1:
            raise DataError(
                "documents must have a row and a column, and real a number, for every laboratory, not the shapes "
                f"{counts.shape} and {own.shape}."
            )
        if not (counts.sum(axis=1) + own > 0).all():
            raise DataError("documents and real: every laboratory must read at least one document.")
        batches = np.broadcast_to(np.inf if batch is None else whole_numbers("batch", batch), own.shape)
        everything = np.inf if real_batch is None else real_batch
        if (counts > batches).any() or (own > everything).any():
            raise DataError("batch and real_batch must not be below the number of documents that a laboratory reads.")
        return cls(as_floats(counts), as_floats(own), as_floats(batches), float(everything))

    @property
    def size(self) -> int:
        """Number of laboratories."""
        return self.real.size

    @property
    def total(self) -> Floats:
        """Documents that each laboratory is fitted to, [reader]."""
        return as_floats(self.documents.sum(axis=1) + self.real)

    @property
    def shares(self) -> Floats:
        """Share of a laboratory's documents that it reads of each other one, A [reader, author]."""
        return as_floats(self.documents / self.total[:, None])

    def opening(self) -> Network:
        """Return the network of generation 1: as many documents, all of them real."""
        batch = np.inf if self.real_batch == np.inf else max(self.real_batch, self.total.max())
        return Network(np.zeros_like(self.documents), self.total, self.batch, batch)

    def next(self, last: Moments, covariance: Covariance) -> Moments:
        """Return the moments of the models that are fitted to documents of the ``last`` ones.

        S' = A S A^T + D. On its diagonal, D is the mean variance of a laboratory's documents over their number, which
        is r_i^2/n_i + sum_j A_ij^2/n_ij if that is 1; elsewhere, it comes from documents that two of them read. The
        fitted variance is the mean square of the documents less that of their mean.
        """
        shares, real = self.shares, self.real / self.total
        noise = shares * (last.variance / self.batch) @ shares.T + np.outer(real, real) / self.real_batch
        np.fill_diagonal(noise, (shares @ last.variance + real) / self.total)
        error = shares @ last.error @ shares.T + noise
        if covariance == "unit":
            return Moments(np.ones(self.size), error)
        variance = shares @ (last.variance + np.diag(last.error)) + real - np.diag(error)
        return Moments(variance * (self.total / (self.total - 1) if covariance == "unbiased" else 1.0), error)

    def generations(self, last: int, covariance: Covariance) -> list[Moments]:
        """Return the moments of generations 0 (the truth) to ``last``."""
        moments = [Moments(np.ones(self.size), np.zeros_like(self.documents))]
        for generation in range(1, last + 1):
            network = self.opening() if generation == 1 else self
            moments.append(network.next(moments[-1], covariance))
        return moments

    def bias(self, offsets: ArrayLike, last: int) -> Floats:
        """Return the expected error of each mean at generations 0 to ``last``, [generation, laboratory].

        b' = A b + r offset, where ``offsets`` [laboratory] are the distances, in one direction, of the means of the
        real documents that each laboratory has from the true mean.
        """
        own = as_floats(offsets)
        if own.shape != self.real.shape:
            raise DataError(f"offsets must have one number for each of the {self.size} laboratories.")
        biases = [np.zeros(self.size)]
        for generation in range(1, last + 1):
            network = self.opening() if generation == 1 else self
            biases.append(network.shares @ biases[-1] + network.real / network.total * own)
        return as_floats(biases)

    def limit(self, covariance: Covariance) -> Moments:
        """Return the moments to which the generations converge; raise DataError if there are none."""
        zero = Moments.of(np.zeros(self.size + self.size**2), self.size)
        constant = self.next(zero, covariance).flat
        basis = np.eye(constant.size)
        linear = np.column_stack(
            [self.next(Moments.of(b, self.size), covariance).flat - constant for b in as_floats(basis)]
        )
        if spectral_radius(linear) >= 1 - 1e-12:
            raise DataError(
                "documents and real: the errors have no limit, since a laboratory reaches no real data along what "
                "laboratories read of each other, or reads too few documents for an unbiased variance."
            )
        return Moments.of(as_floats(np.linalg.solve(basis - linear, constant)), self.size)


def spectral_radius(matrix: Floats) -> float:
    """Return the largest absolute eigenvalue of a square matrix."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def _check(network: Network, lab: int, covariance: str) -> None:
    if covariance not in _COVARIANCES:
        raise DataError(f'covariance must be one of {", ".join(_COVARIANCES)}, not "{covariance}".')
    if not 0 <= lab < network.size:
        raise DataError(f"lab must be the row of a laboratory, 0 to {network.size - 1}, not {lab}.")
    check_at_least(2 if covariance == "unbiased" else 1, documents=network.total.min())


@law("derived")
def network_mean_error(
    documents: ArrayLike,
    real: ArrayLike,
    lab: int,
    t: ArrayLike,
    covariance: Covariance = "unit",
    variance: float = 1.0,
    batch: ArrayLike | None = None,
    real_batch: float | None = None,
    offsets: ArrayLike | None = None,
) -> Floats:
    """Return the expected squared error of the mean that one laboratory of a network fits.

    S' = A S A^T + D (see the module); ``covariance`` says whether models also fit a variance, which then shrinks or
    grows the noise. Also E|p - p_0|^2 of categories, with ``covariance`` = "maximum_likelihood" and ``variance`` the
    Gini-Simpson diversity of p_0. Laboratories with real data of their own kind (``offsets``, for ``covariance`` =
    "unit") have a bias b' = A b + r offset, whose square is added. In the unit of ``variance``; shape of ``t``. Derived
    for this project.
    """
    network = Network.of(documents, real, batch, real_batch)
    _check(network, lab, covariance)
    generations = whole_numbers("t", t)
    last = generations.max(initial=0)
    error = variance * np.array([m.error[lab, lab] for m in network.generations(last, covariance)])
    if offsets is not None:
        if covariance != "unit":
            raise DataError('offsets raise a fitted variance; leave them out, or set covariance = "unit".')
        error = error + network.bias(offsets, last)[:, lab] ** 2
    return as_floats(error[generations])


@law("derived")
def network_mean_error_limit(
    documents: ArrayLike,
    real: ArrayLike,
    lab: int,
    t: ArrayLike,
    covariance: Covariance = "unit",
    variance: float = 1.0,
    batch: ArrayLike | None = None,
    real_batch: float | None = None,
) -> Floats:
    """Return the limit of :func:`network_mean_error`, the same number for every generation.

    The solution of S = A S A^T + D; DataError if a laboratory reaches no real data. Shape of ``t``. Derived for this
    project.
    """
    network = Network.of(documents, real, batch, real_batch)
    _check(network, lab, covariance)
    limit = variance * network.limit(covariance).error[lab, lab]
    return as_floats(np.full(whole_numbers("t", t).shape, limit))


@law("derived")
def network_variance(
    documents: ArrayLike,
    real: ArrayLike,
    lab: int,
    t: ArrayLike,
    covariance: Covariance = "unbiased",
    batch: ArrayLike | None = None,
    real_batch: float | None = None,
) -> Floats:
    """Return the expected variance of the normal that one laboratory of a network fits, as a share of the true one.

    The mean square of its documents, sum_j A_ij (v_j + S_jj) + r_i, less the mean square S'_ii of their mean. Documents
    of laboratories that disagree raise it. Shape of ``t``. Derived for this project.
    """
    network = Network.of(documents, real, batch, real_batch)
    _check(network, lab, covariance)
    generations = whole_numbers("t", t)
    moments = network.generations(generations.max(initial=0), covariance)
    return as_floats(np.array([m.variance[lab] for m in moments])[generations])


@law("derived")
def network_diversity(
    h0: float,
    documents: ArrayLike,
    real: ArrayLike,
    lab: int,
    t: ArrayLike,
    batch: ArrayLike | None = None,
    real_batch: float | None = None,
) -> Floats:
    """Return the expected diversity of the categories, or variance by maximum likelihood, of one laboratory.

    H_t = H_0 (1 - S_ii), with the S of :func:`network_mean_error`. In the unit of ``h0``; shape of ``t``. Derived for
    this project.
    """
    check_at_least(0, h0=h0)
    return as_floats(h0 * network_variance(documents, real, lab, t, "maximum_likelihood", batch, real_batch))


@law("derived")
def network_regression_error(
    noise_variance: float, dimension: int, documents: ArrayLike, real: ArrayLike, lab: int, t: ArrayLike
) -> Floats:
    """Return E||w_i - w*||^2 of least squares of one laboratory of a network, on new standard Gaussian rows.

    With N_i rows and d = ``dimension``, S'_ii = sigma^2 d/(N_i - d - 1) + sum_jk C_jk S_jk / d. There, C_jk = n_ij n_ik
    c + [j = k] n_ij (b - c), with b = d (d + 2) (N_i - 2)/((N_i - d - 1) N_i (N_i + 2)) and c = (d - N_i b)/(N_i (N_i -
    1)), holds the moments of the shares of authors in the normal equations. Between laboratories, S'_il = (A S A^T)_il.
    No row may be read by two laboratories. In squared units of w; shape of ``t``. Derived for this project; the setting
    is that of Wu, Zhou & Su 2026 (2605.20151, abstract).
    """
    check_at_least(0, noise_variance=noise_variance)
    check_at_least(1, dimension=dimension)
    network = Network.of(documents, real)
    _check(network, lab, "unit")
    rows, d, n = network.total, dimension, network.documents
    check_at_least(d + 2, documents=rows.min())
    same = d * (d + 2) * (rows - 2) / ((rows - d - 1) * rows * (rows + 2))  # E |x|^2 x'G^-2 x, where G = X'X
    other = (d - rows * same) / (rows * (rows - 1))  # E x'y x'G^-2 y of two rows x and y
    generations = whole_numbers("t", t)
    noise = noise_variance * d / (rows - d - 1)
    errors = [np.zeros((network.size, network.size)), np.diag(noise)]
    for _ in range(2, generations.max(initial=0) + 1):
        last = errors[-1]
        following = network.shares @ last @ network.shares.T
        mixed = np.einsum("ij,ik,jk->i", n, n, last) * other + n @ np.diag(last) * (same - other)
        np.fill_diagonal(following, noise + mixed / d)
        errors.append(following)
    return as_floats(np.array([error[lab, lab] for error in errors])[generations])
