"""Adoption of AI by people who choose between human work, AI and no work, under replicator dynamics.

The game of Baumann, Akçay & Plotkin 2026 (2604.21853; abstract and code were read): work of benefit q costs its author
c, and a share of its benefit goes to a partner. The benefit of AI, ``ai_benefit`` at best, falls by ``collapse`` times
the share x of people who use it. A strategy's payoff is (1 - shared) q - c plus what comes from others, which is the
same for all strategies. Costs of AI are multiples of the cost of human work. Benefits, costs and welfare are in one
unit, such as money.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_at_least, check_share, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats

Strategy = Literal["write", "ai", "silent"]
_STRATEGIES = ("write", "ai", "silent")


def _row(strategy: str) -> int:
    if strategy not in _STRATEGIES:
        raise DataError(f'strategy must be "write", "ai" or "silent", not {strategy!r}.')
    return _STRATEGIES.index(strategy)


def fixed_point(
    benefit: float, cost: float, ai_cost: float, collapse: float, ai_benefit: float | None, shared: float
) -> Floats:
    """Return the shares (writing, AI, silent) to which the replicator converges from any interior start, [3].

    AI competes with the better of the two others, whose own payoff is u = max((1 - shared) benefit - cost, 0). Its
    share is the x, within 0 and 1, at which (1 - shared) (ai_benefit - collapse x) - ai_cost cost = u. Raise DataError
    if two strategies pay the same at every x, since the end then depends on the start.
    """
    check_at_least(0, benefit=benefit, cost=cost, ai_cost=ai_cost, collapse=collapse)
    check_share(shared=shared)
    best = benefit if ai_benefit is None else ai_benefit
    human = (1 - shared) * benefit - cost
    ahead, slope = (1 - shared) * best - ai_cost * cost - max(human, 0.0), (1 - shared) * collapse
    if human == 0 or (ahead == 0 and slope == 0):
        raise DataError("two strategies pay the same, so the fixed point depends on the start; change cost or benefit.")
    x = float(np.clip(ahead / slope, 0, 1)) if slope > 0 else float(ahead > 0)
    return np.array([1 - x, x, 0.0] if human > 0 else [0.0, x, 1 - x])


@law("derived")
def adoption_share(
    benefit: float,
    cost: float,
    ai_cost: float,
    collapse: float,
    strategy: Strategy,
    t: ArrayLike,
    ai_benefit: float | None = None,
    shared: float = 0.5,
) -> Floats:
    """Return the share of a strategy at the stable fixed point of the replicator, the same at every generation.

    No unit; shape of ``t``. See :func:`fixed_point`. Derived for this project; at shared = 1/2, these are the
    equilibria of Baumann et al. 2026 (2604.21853, code): an AI share of 2 (cost - AI's cost) / collapse beside human
    work, and of (benefit - 2 AI's cost) / collapse beside no work.
    """
    shares = fixed_point(benefit, cost, ai_cost, collapse, ai_benefit, shared)
    return np.full(whole_numbers("t", t).shape, shares[_row(strategy)])


@law("derived")
def adoption_welfare(
    benefit: float,
    cost: float,
    ai_cost: float,
    collapse: float,
    t: ArrayLike,
    ai_benefit: float | None = None,
    shared: float = 0.5,
) -> Floats:
    """Return the mean payoff at the fixed point, x_write (benefit - cost) + x (ai_benefit - collapse x - AI's cost).

    In the unit of ``benefit``; shape of ``t``. Derived for this project; at shared = 1/2, as in Baumann et al. 2026
    (2604.21853, code).
    """
    best = benefit if ai_benefit is None else ai_benefit
    write, x, _ = fixed_point(benefit, cost, ai_cost, collapse, ai_benefit, shared)
    welfare = write * (benefit - cost) + x * (best - collapse * x - ai_cost * cost)
    return np.full(whole_numbers("t", t).shape, welfare)


@law("derived")
def replicator_share(
    benefit: float,
    cost: float,
    ai_cost: float,
    collapse: float,
    speed: float,
    ai_at_first: float,
    silent_at_first: float,
    strategy: Strategy,
    t: ArrayLike,
    ai_benefit: float | None = None,
    shared: float = 0.5,
) -> Floats:
    """Return the share of a strategy after ``t`` rounds, x_i ← x_i (1 + speed (π_i - Σ_j x_j π_j)).

    The mean field of proportional imitation in a large community (Schlag 1998, unread): a writer meets a random member
    and takes over a strategy that pays more with probability speed times the difference, which must not exceed 1. No
    unit; shape of ``t``. Derived for this project.
    """
    check_at_least(0, benefit=benefit, cost=cost, ai_cost=ai_cost, collapse=collapse, speed=speed)
    check_share(shared=shared, ai_at_first=ai_at_first, silent_at_first=silent_at_first)
    check_share(both=ai_at_first + silent_at_first)
    best = benefit if ai_benefit is None else ai_benefit
    generations = whole_numbers("t", t)
    x = np.array([1 - ai_at_first - silent_at_first, ai_at_first, silent_at_first])
    shares = [x]
    for _ in range(int(generations.max(initial=0))):
        ai = (1 - shared) * (best - collapse * x[1]) - ai_cost * cost
        payoff = np.array([(1 - shared) * benefit - cost, ai, 0.0])
        if speed * np.ptp(payoff) > 1:
            raise DataError(
                f"speed = {speed:g} gives a probability above 1 where payoffs differ by {np.ptp(payoff):g}."
            )
        x = x * (1 + speed * (payoff - x @ payoff))
        shares.append(x)
    return as_floats(np.array(shares)[generations, _row(strategy)])
