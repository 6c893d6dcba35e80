"""Sources of vector documents: normal distributions, Student's t and toy shapes.

A vector document is one row of a Series of type ``Array(Float64, d)``. An endless source makes row i from numbers keyed
by i alone. So documents do not depend, not even in a bit, on the order or number of rows drawn together: a resumed run
and a batch of a thousand replicates see the same documents.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from ecosystem.errors import DataError
from ecosystem.sources.base import SOURCES, EndlessReservoir, EndlessSource, FiniteReservoir, Source, Truth
from ecosystem.streams import Streams
from ecosystem.types import Floats, Modality


def as_documents(values: Floats) -> pl.Series:
    """Turn the rows of a matrix [n, d] into n vector documents, also if n is 0 or d is 1."""
    count, dim = values.shape
    if not count:
        return pl.Series("content", [], dtype=pl.Array(pl.Float64, dim))
    return pl.Series("content", np.ascontiguousarray(values, dtype=np.float64).reshape(-1)).reshape((count, dim))


def as_matrix(docs: pl.Series, dim: int, source: str) -> Floats:
    """Turn vector documents into a matrix [n, dim]; raise DataError, naming the source, if the type differs."""
    if docs.dtype != pl.Array(pl.Float64, dim):
        raise DataError(
            f"sources.{source}: cannot compute the likelihood of documents of type {docs.dtype}; its documents are "
            f"vectors of {dim} numbers."
        )
    return docs.to_numpy().reshape(-1, dim)


# Normal distributions.


def _number_or_list(value: Any) -> Any:
    """Refuse all other values with one message; pydantic reports one for each type of a union."""
    items = value if isinstance(value, list) else [value]
    if not items or not all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < math.inf for x in items
    ):
        raise ValueError(f"must be a number or a list of numbers, not {value!r}")
    return value


Numbers = Annotated[float | list[float], BeforeValidator(_number_or_list)]


@SOURCES.register("gaussian")
class Gaussian(EndlessSource):
    """An endless source of normal vectors of any dimension; mean and covariance are known exactly."""

    modality: ClassVar[Modality] = "vector"
    has_density: ClassVar[bool] = True

    dim: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="number of coordinates of a document")
    mean: Numbers = Field(0.0, description="mean of every coordinate, or a list with one mean per coordinate")
    variance: Numbers | None = Field(
        None,
        description="variance of every coordinate, or a list with one for each; absent: 1, unless covariance is given",
    )
    covariance: list[list[float]] | None = Field(
        None, description="covariance matrix, as dim lists of dim numbers, instead of variance"
    )

    @model_validator(mode="after")
    def _shapes(self) -> Gaussian:
        for field, value in (("mean", self.mean), ("variance", self.variance)):
            if isinstance(value, list) and len(value) != self.dim:
                raise ValueError(
                    f"{field} has {len(value)} numbers, but dim = {self.dim}; "
                    f"give one for each coordinate or set dim = {len(value)}"
                )
        if self.variance is not None and self.covariance is not None:
            raise ValueError("variance and covariance exclude each other; remove one of them")
        if self.variance is not None and np.min(self.variance) <= 0:
            raise ValueError(f"variance must be above 0, not {np.min(self.variance):g}")
        if self.covariance is not None:
            _check_covariance(self.covariance, self.dim)
        return self

    @property
    def width(self) -> int:
        """Numbers in a document."""
        return self.dim

    def parameters(self) -> tuple[Floats, Floats]:
        """Return the mean [d], and the variances [d] or the covariance [d, d], depending on which is given."""
        mean = np.broadcast_to(np.asarray(self.mean, dtype=np.float64), self.dim).copy()
        if self.covariance is not None:
            matrix = np.array(self.covariance, dtype=np.float64)
            return mean, (matrix + matrix.T) / 2
        variance = 1.0 if self.variance is None else self.variance
        return mean, np.broadcast_to(np.asarray(variance, dtype=np.float64), self.dim).copy()

    def open(self, name: str, streams: Streams, base: Path) -> GaussianReservoir:
        """Prepare the distribution; never fails."""
        return GaussianReservoir(self, name, streams)


def _check_covariance(rows: list[list[float]], dim: int) -> None:
    """Raise ValueError unless ``rows`` is a positive definite covariance matrix."""
    lengths = {len(row) for row in rows}
    if len(rows) != dim or lengths != {dim}:
        wrong = f"{len(rows)} of {' or '.join(map(str, sorted(lengths)))}" if rows else "none"
        raise ValueError(f"covariance must have {dim} rows of {dim} numbers, as dim = {dim}, but has {wrong}")
    matrix = np.array(rows, dtype=np.float64)
    gap = np.abs(matrix - matrix.T)
    if gap.max() > 1e-9 * np.abs(matrix).max():  # rounding is allowed
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise ValueError(
            f"covariance must be symmetric, but row {i + 1}, column {j + 1} is {matrix[i, j]:g} and "
            f"row {j + 1}, column {i + 1} is {matrix[j, i]:g}"
        )
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    if eigenvalues[0] <= dim * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(
            f"covariance must be positive definite, but its smallest eigenvalue is {eigenvalues[0]:.3g} "
            "(0 or less, up to rounding): some combination of the coordinates would have no variance"
        )


class GaussianReservoir(EndlessReservoir):
    """An opened source of normal vectors."""

    def __init__(self, spec: Gaussian, name: str, streams: Streams) -> None:
        """``name`` is the name of the source in the scenario."""
        self._mean, spread = spec.parameters()
        covariance = np.diag(spread) if spread.ndim == 1 else spread
        self._root = np.sqrt(spread) if spread.ndim == 1 else np.linalg.cholesky(spread)
        scales = self._root if spread.ndim == 1 else np.diagonal(self._root)
        self._log_peak = float(-0.5 * spec.dim * np.log(2 * np.pi) - np.log(scales).sum())  # log density at the mean
        super().__init__(spec, name, streams, Truth(mean=self._mean, covariance=covariance, normal=True))

    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Draw a standard normal number per coordinate, and multiply by the square root of the covariance.

        Coordinates are summed one by one. A matrix product rounds differently for different numbers of rows, so a
        document would depend on the others made with it.
        """
        from scipy.special import ndtri  # not at the top, since reading a scenario would take longer

        dim = self._mean.size
        values = np.repeat(self._mean[:, None], rows.size, axis=1)  # [d, n]
        for j in range(dim):
            normal = ndtri(self.noise(rows, what, j))
            if self._root.ndim == 1:
                values[j] += self._root[j] * normal
            else:
                values[j:] += self._root[j:, j, None] * normal
        return as_documents(values.T)

    def log_likelihood(self, docs: pl.Series) -> Floats:
        """Compute the log density of each vector in nats; -inf for vectors that are not finite.

        Raises DataError if the documents are not vectors of this dimension.
        """
        x = as_matrix(docs, self._mean.size, self.name)
        possible = np.asarray(np.isfinite(x).all(axis=1))
        centred = np.where(possible[:, None], x - self._mean, 0.0)
        if self._root.ndim == 1:
            whitened = centred / self._root
        else:
            whitened = np.linalg.solve(self._root, centred.T).T
        with np.errstate(over="ignore"):  # too far away: the density is 0
            squares = (whitened**2).sum(axis=1)
        return np.where(possible, self._log_peak - 0.5 * squares, -np.inf)


# Student's t.


@SOURCES.register("student_t")
class StudentT(EndlessSource):
    """An endless source of single numbers from Student's t distribution: a centre with heavy tails."""

    modality: ClassVar[Modality] = "vector"
    has_density: ClassVar[bool] = True

    degrees: Annotated[float, Field(gt=2, le=1e6)] = Field(
        10.0, description="degrees of freedom; above 2, so that there is a variance"
    )

    @property
    def width(self) -> int:
        """Numbers in a document."""
        return 1

    def open(self, name: str, streams: Streams, base: Path) -> StudentReservoir:
        """Prepare the distribution; never fails."""
        return StudentReservoir(self, name, streams)


class StudentReservoir(EndlessReservoir):
    """An opened source of numbers from Student's t distribution."""

    def __init__(self, spec: StudentT, name: str, streams: Streams) -> None:
        """``name`` is the name of the source in the scenario."""
        self._degrees = spec.degrees
        variance = spec.degrees / (spec.degrees - 2)
        super().__init__(spec, name, streams, Truth(mean=np.zeros(1), covariance=np.array([[variance]])))

    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Invert the distribution function at one uniform number per document."""
        from scipy.special import stdtrit

        return as_documents(np.asarray(stdtrit(self._degrees, self.noise(rows, what)), np.float64)[:, None])

    def log_likelihood(self, docs: pl.Series) -> Floats:
        """Compute the log density of each number in nats; -inf for numbers that are not finite.

        Raises DataError if the documents are not single numbers.
        """
        from scipy.special import gammaln

        x, v = as_matrix(docs, 1, self.name)[:, 0], self._degrees
        peak = gammaln((v + 1) / 2) - gammaln(v / 2) - 0.5 * math.log(v * math.pi)
        possible = np.isfinite(x)
        squares = np.where(possible, x, 0.0) ** 2
        return np.where(possible, peak - (v + 1) / 2 * np.log1p(squares / v), -np.inf)


# Toy shapes.


@SOURCES.register("toy")
class Toy(Source):
    """A fixed set of points in one of scikit-learn's toy shapes: blobs, moons and circles (2-d), a Swiss roll (3-d)."""

    modality: ClassVar[Modality] = "vector"

    shape: Literal["blobs", "moons", "circles", "swiss_roll"] = Field("moons", description="shape of the set of points")
    documents: Annotated[int, Field(ge=1, le=10**7)] = Field(
        1000, description="number of points, held-out ones included"
    )
    noise: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="standard deviation of the points around the curve, sheet or centre; absent: 1 for blobs, else 0.1",
    )

    @property
    def width(self) -> int:
        """Numbers in a document."""
        return 3 if self.shape == "swiss_roll" else 2

    def open(self, name: str, streams: Streams, base: Path) -> FiniteReservoir:
        """Make the points from the stream ``source/<name>/points``; raise DataError if too many are held out."""
        from sklearn import datasets

        # scikit-learn takes seeds of 32 bits.
        seed = streams.at(f"source/{name}/points").integer() % 2**32
        if self.shape == "blobs":
            spread = 1.0 if self.noise is None else self.noise
            points = datasets.make_blobs(self.documents, n_features=2, cluster_std=spread, random_state=seed)[0]
        else:
            make = getattr(datasets, f"make_{self.shape}")
            points = make(self.documents, noise=0.1 if self.noise is None else self.noise, random_state=seed)[0]
        return FiniteReservoir(name, as_documents(points), self.held_out, streams)
