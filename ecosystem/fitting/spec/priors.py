"""Priors of parameters: the laws, their quantiles and densities."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from ecosystem.spec import Spec
from ecosystem.types import Floats

_TAIL = 1e-3  # probability beyond the last value of an unbounded prior that is tried, at either end


class _Law(Spec):
    """The common part of priors; a prior with ends is the law conditioned on lying between them."""

    def _distribution(self) -> Any:
        """Return the law without ends as a frozen distribution of scipy."""
        raise NotImplementedError

    def _ends(self) -> tuple[float | None, float | None]:
        return getattr(self, "low", None), getattr(self, "high", None)

    def _range(self, law: Any) -> tuple[float, float]:
        """Return the probabilities of the law below its low and its high end."""
        low, high = self._ends()
        first = _TAIL if low is None else float(law.cdf(low))
        last = 1 - _TAIL if high is None else float(law.cdf(high))
        return first, last

    def quantile(self, u: Floats) -> Floats:
        """Return the quantiles at probabilities ``u`` (0 to 1), an array of the same shape."""
        law = self._distribution()
        first, last = self._range(law)
        values = law.ppf(first + np.asarray(u, float) * (last - first))
        low, high = self._ends()
        return np.asarray(np.clip(values, low, high) if (low, high) != (None, None) else values)

    def probability(self, values: Floats) -> Floats:
        """Return the probability of a smaller value, the inverse of :meth:`quantile`."""
        law = self._distribution()
        first, last = self._range(law)
        return np.asarray(np.clip((law.cdf(values) - first) / (last - first), 0, 1))

    def density(self, values: Floats) -> Floats:
        """Return the density at values, an array of the same shape."""
        law = self._distribution()
        first, last = self._range(law)
        ends = self.quantile(np.array([0.0, 1.0]))
        inside = (values >= ends[0]) & (values <= ends[1])
        return np.where(inside, law.pdf(values) / (last - first), 0.0)


def _ordered(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low: {low:g} must be below high ({high:g})")


class Uniform(_Law):
    """All values from low to high are equally likely."""

    law: Literal["uniform"] = Field(description="name of the law")
    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")

    @model_validator(mode="after")
    def _check(self) -> Uniform:
        _ordered(self.low, self.high)
        return self

    def _distribution(self) -> Any:
        from scipy import stats

        return stats.uniform(self.low, self.high - self.low)


class LogUniform(_Law):
    """The logarithm is uniform from low to high."""

    law: Literal["log_uniform"] = Field(description="name of the law")
    low: Annotated[float, Field(gt=0)] = Field(description="the smallest value, above 0")
    high: float = Field(description="the largest value")

    @model_validator(mode="after")
    def _check(self) -> LogUniform:
        _ordered(self.low, self.high)
        return self

    def _distribution(self) -> Any:
        from scipy import stats

        return stats.loguniform(self.low, self.high)


class Normal(_Law):
    """A normal law, conditioned on lying between low and high if they are given."""

    law: Literal["normal"] = Field(description="name of the law")
    mean: float = Field(description="mean of the law without ends")
    sd: Annotated[float, Field(gt=0)] = Field(description="standard deviation of the law without ends")
    low: float | None = Field(None, description="the smallest value; absent: none")
    high: float | None = Field(None, description="the largest value; absent: none")

    @model_validator(mode="after")
    def _check(self) -> Normal:
        _ordered(self.low, self.high)
        _reachable(self)
        return self

    def _distribution(self) -> Any:
        from scipy import stats

        return stats.norm(self.mean, self.sd)


class LogNormal(_Law):
    """The logarithm has a normal law, conditioned on lying between low and high if they are given."""

    law: Literal["lognormal"] = Field(description="name of the law")
    median: Annotated[float, Field(gt=0)] = Field(description="median of the law without ends")
    sigma: Annotated[float, Field(gt=0)] = Field(description="standard deviation of the natural logarithm")
    low: Annotated[float, Field(ge=0)] | None = Field(None, description="the smallest value; absent: none")
    high: float | None = Field(None, description="the largest value; absent: none")

    @model_validator(mode="after")
    def _check(self) -> LogNormal:
        _ordered(self.low, self.high)
        _reachable(self)
        return self

    def _distribution(self) -> Any:
        from scipy import stats

        return stats.lognorm(self.sigma, scale=self.median)


class Beta(_Law):
    """A beta law on the interval from low to high."""

    law: Literal["beta"] = Field(description="name of the law")
    a: Annotated[float, Field(gt=0)] = Field(description="first shape parameter; the mean is a / (a + b)")
    b: Annotated[float, Field(gt=0)] = Field(description="second shape parameter")
    low: float = Field(0.0, description="the smallest value")
    high: float = Field(1.0, description="the largest value")

    @model_validator(mode="after")
    def _check(self) -> Beta:
        _ordered(self.low, self.high)
        return self

    def _distribution(self) -> Any:
        from scipy import stats

        return stats.beta(self.a, self.b, loc=self.low, scale=self.high - self.low)


def _reachable(law: Normal | LogNormal) -> None:
    first, last = law._range(law._distribution())
    if last - first < 1e-6:
        raise ValueError("low: nearly no values of the law are between low and high; correct them, or the law")


def _law_of(value: Any) -> str | None:
    law = value.get("law") if isinstance(value, dict) else getattr(value, "law", None)
    return f"<{law}>" if law in ("uniform", "log_uniform", "normal", "lognormal", "beta") else None


Prior = Annotated[
    Annotated[Uniform, Tag("<uniform>")]
    | Annotated[LogUniform, Tag("<log_uniform>")]
    | Annotated[Normal, Tag("<normal>")]
    | Annotated[LogNormal, Tag("<lognormal>")]
    | Annotated[Beta, Tag("<beta>")],
    Discriminator(
        _law_of,
        custom_error_type="prior",
        custom_error_message="must be a table with a law: uniform, log_uniform, normal, lognormal or beta, such as "
        '{ law = "uniform", low = 0.2, high = 0.9 }',
    ),
]
"""The prior of a parameter."""
