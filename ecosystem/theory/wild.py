"""Machine text found on the web beside human text: the scaling law WildAI, and gains as multiples of compute.

The law and its numbers are those of Russell et al. 2026 (2609.40295, unread: taken from a summary). It extends the law
of Hoffmann et al. 2022 (2203.15556, eq. 10) by two terms: machine text counts as more human text, up to a limit, and
does harm that grows with the logarithm of its amount.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_positive
from ecosystem.theory.laws import Unknown, scaling_law
from ecosystem.types import Floats

CHINCHILLA = 20.0  # human tokens per parameter at which t is 1
MILLION = 1e6  # parameters for which n is 1


def saturating_ratio(synthetic_ratio: ArrayLike, limit: ArrayLike) -> Floats:
    """Return g(r) = R (1 - exp(-r/R)), which is r for little machine text and ``limit`` R for much; 0 for R = 0.

    ``synthetic_ratio`` r is machine tokens per human token; both are without unit, and the result has their common
    shape. Russell et al. 2026 (2609.40295, unread).
    """
    ratio, most = _not_negative("synthetic_ratio", synthetic_ratio), as_floats(limit)
    share = np.divide(ratio, most, out=np.zeros(np.broadcast_shapes(ratio.shape, most.shape)), where=most > 0)
    return as_floats(-most * np.expm1(-share))


def diluting_ratio(synthetic_ratio: ArrayLike) -> Floats:
    """Return ln(1 + r) - r/(1 + r), to which harm is proportional: r^2/2 for small r, ln(r) - 1 for large r.

    ``synthetic_ratio`` r is machine tokens per human token; shape of it. Russell et al. 2026 (2609.40295, unread).
    """
    ratio = _not_negative("synthetic_ratio", synthetic_ratio)
    return as_floats(np.log1p(ratio) - ratio / (1 + ratio))


@scaling_law(
    "digest",
    e=Unknown(1e-2, 20.0, "loss of an infinite model of infinite human text, in nats per token"),
    a=Unknown(1e-3, 1e5, "scale of the loss due to few parameters"),
    alpha=Unknown(0.05, 2.0, "exponent of the number of parameters"),
    b=Unknown(1e-3, 1e5, "scale of the loss due to little text"),
    beta=Unknown(0.05, 2.0, "exponent of the number of tokens"),
    eta=Unknown(1e-3, 20.0, "worth of a machine token, in human tokens, while there are few"),
    k=Unknown(1e-2, 1e3, "most machine tokens per human token that count, at 20 human tokens per parameter"),
    rho=Unknown(-3.0, 3.0, "exponent of the human tokens per parameter in that limit"),
    gamma=Unknown(1e-5, 20.0, "scale of the harm, for a model of a million parameters"),
    u=Unknown(-3.0, 3.0, "exponent of the human tokens per parameter in the harm"),
    v=Unknown(-3.0, 3.0, "exponent of the number of parameters in the harm"),
)
def wildai(
    parameters: ArrayLike,
    human_tokens: ArrayLike,
    synthetic_ratio: ArrayLike,
    e: float,
    a: float,
    alpha: float,
    b: float,
    beta: float,
    eta: float,
    k: float,
    rho: float,
    gamma: float,
    u: float,
    v: float,
) -> Floats:
    """Return the loss on human text of a model of N parameters on D human tokens and r D machine tokens.

    L = e + a/N^alpha + b/D_eff^beta (1 + H) with D_eff = D (1 + eta g(r)), g of :func:`saturating_ratio` with the limit
    R = k t^rho, t = D/(20 N), and the harm H = gamma t^u n^v (ln(1 + r) - r/(1 + r)). Without machine text (r = 0), it
    is the law of Hoffmann et al. 2022. For much, D_eff approaches D (1 + eta R), while H grows without limit, so there
    is a best amount. The unit of n is not known: here it is a million parameters, which only rescales ``gamma``.

    N = ``parameters``, D = ``human_tokens`` and r = ``synthetic_ratio`` have a common shape, that of the result, which
    is in nats per token. Raises DataError for N or D that are not positive, and for a negative r. Russell et al. 2026
    (2609.40295, unread).
    """
    size, human = _positive("parameters", parameters), _positive("human_tokens", human_tokens)
    t, n = human / (CHINCHILLA * size), size / MILLION
    worth = human * (1 + eta * saturating_ratio(synthetic_ratio, k * t**rho))
    harm = gamma * t**u * n**v * diluting_ratio(synthetic_ratio)
    return as_floats(e + a / size**alpha + b / worth**beta * (1 + harm))


def cheapest_compute(loss: float, e: float, a: float, alpha: float, b: float, beta: float) -> float:
    """Return the least compute 6 N D with which human text alone gives a loss, in floating-point operations.

    The law is e + a/N^alpha + b/D^beta. At the optimum, the two terms are in the proportion beta : alpha (Hoffmann et
    al. 2022, eq. 4). Infinite for a loss of at most ``e``.
    """
    check_positive(a=a, alpha=alpha, b=b, beta=beta)
    excess = loss - e
    if not excess > 0:
        return math.inf
    size = (a * (alpha + beta) / (beta * excess)) ** (1 / alpha)
    tokens = (b * (alpha + beta) / (alpha * excess)) ** (1 / beta)
    return float(6 * size * tokens)


def compute_gain(loss: ArrayLike, human_loss: ArrayLike, e: float, alpha: float, beta: float) -> Floats:
    """Return the compute-equivalent gain of machine text: the factor of human-only compute that has the same effect.

    It is the ratio of :func:`cheapest_compute` at ``loss``, with machine text, to that at ``human_loss``, without it:
    ((human_loss - e)/(loss - e))^(1/alpha + 1/beta), whatever a and b. Below 1, machine text does harm. Infinite for a
    ``loss`` of at most ``e``, which no compute reaches, and NaN for such a ``human_loss``. Shape of both; derived for
    this project, since the summary of Russell et al. 2026 does not define the gain.
    """
    check_positive(alpha=alpha, beta=beta)
    after, before = np.broadcast_arrays(as_floats(loss) - e, as_floats(human_loss) - e)
    gain = np.full(after.shape, np.inf)
    gain[before <= 0] = np.nan
    usable = (after > 0) & (before > 0)
    gain[usable] = (before[usable] / after[usable]) ** (1 / alpha + 1 / beta)
    return gain


def _positive(name: str, values: ArrayLike) -> Floats:
    array = as_floats(values)
    if not (array > 0).all():
        raise DataError(f"{name} must be above 0.")
    return array


def _not_negative(name: str, values: ArrayLike) -> Floats:
    array = as_floats(values)
    if not (array >= 0).all():
        raise DataError(f"{name} must not be negative.")
    return array
