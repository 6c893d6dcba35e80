"""The choice of writers between writing, using AI and silence, revised at the beginning of every step.

With the rule "imitate", a writer compares its payoff with that of a random member of its community and takes over a
strategy of higher payoff with a probability in proportion to the difference (Schlag 1998). In a large community, the
shares of the strategies follow the replicator equation (:mod:`ecosystem.theory.adoption`). With "best", every writer
takes the strategy of the highest payoff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.scenario.entries.people import WriterSpec
from ecosystem.streams import Stream, Streams
from ecosystem.types import Floats

WRITE, USE_AI, SILENT = range(3)
_LETTERS = "WAS"  # of the strategies, in records


@dataclass
class Choices:
    """The strategies of a population of writers, and the benefits that they have learnt.

    ``strategy`` [writers] holds WRITE, USE_AI or SILENT. ``learnt`` [2] holds the benefits of a human and of an AI
    document; NaN: not learnt yet, so that nobody can choose it. ``benefits`` [communities, 3] are those in force.
    ``spread`` is the standard deviation of what people write, in multiples of the true one.
    """

    strategy: NDArray[np.int8]
    learnt: Floats = field(default_factory=lambda: np.full(2, np.nan))
    benefits: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    spread: float = 1.0

    @classmethod
    def at_first(cls, settings: WriterSpec, choice: ChoiceSpec) -> Choices:
        """Return the choices at the opening: the same shares, rounded to whole writers, in every community."""
        size = settings.count // choice.communities
        users = round(choice.ai_at_first * size)
        silent = min(round(choice.silent_at_first * size), size - users)
        one = np.repeat(np.array([WRITE, USE_AI, SILENT], np.int8), [size - users - silent, users, silent])
        return cls(np.tile(one, choice.communities))

    def plain(self) -> dict[str, Any]:
        """Return the JSON value that a resume needs."""
        known = [None if np.isnan(benefit) else benefit for benefit in self.learnt.tolist()]
        learnt = {} if known == [None, None] else {"learnt": known}
        spread = {} if self.spread == 1.0 else {"spread": self.spread}
        return {"strategies": "".join(_LETTERS[s] for s in self.strategy.tolist()), **learnt, **spread}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Choices:
        """Return what :meth:`plain` stored."""
        strategy = np.array([_LETTERS.index(letter) for letter in stored["strategies"]], np.int8)
        learnt = [np.nan if x is None else x for x in stored.get("learnt", [None, None])]
        return cls(strategy, np.array(learnt, np.float64), spread=stored.get("spread", 1.0))

    def shares(self, communities: int) -> Floats:
        """Return the share of each strategy, [communities, 3]."""
        rows = self.strategy.reshape(communities, -1)
        return np.stack([(rows == s).mean(axis=1) for s in (WRITE, USE_AI, SILENT)], axis=1)

    def values(self, choice: ChoiceSpec) -> dict[str, Floats]:
        """Return the metrics of the communities, [communities] each."""
        shares, benefits = self.shares(choice.communities), self.benefits
        values = dict(zip(("share_writing", "share_using_ai", "share_silent"), shares.T, strict=True))
        if len(benefits):
            values |= {"human_benefit": benefits[:, WRITE], "ai_benefit": benefits[:, USE_AI]}
        if len(benefits) and choice.cost != "median":
            values["welfare"] = (shares * (np.nan_to_num(benefits) - _costs(choice, float(choice.cost)))).sum(axis=1)
        return values


def revise(name: str, settings: WriterSpec, choices: Choices, quality: float, streams: Streams, t: int) -> None:
    """Let the writers of a population revise their strategies at step ``t``.

    ``quality`` is the value of the metric that AI's benefit falls with; NaN: not measured yet, which counts as 0.
    """
    choice = settings.choice
    assert choice is not None
    choices.benefits = _benefits(choice, choices, 0.0 if quality != quality else quality)
    if choice.rule == "imitate":
        _imitate(choice, choices, streams.at(f"writers/{name}/meet", t), streams.at(f"writers/{name}/switch", t))
    else:
        choices.strategy = _best(choice, choices, types(name, settings, streams))
    choices.benefits = _benefits(choice, choices, 0.0 if quality != quality else quality)


def types(name: str, settings: WriterSpec, streams: Streams) -> Floats:
    """Return the constant factor by which each writer multiplies benefits, [writers]: lognormal, with mean 1."""
    from scipy.special import ndtri

    assert settings.choice is not None
    variance = np.log1p(settings.choice.types_sd**2)
    noise = ndtri(streams.at(f"writers/{name}/types").uniform(np.arange(settings.count)))
    return np.asarray(np.exp(np.sqrt(variance) * noise - variance / 2), np.float64)


def _benefits(choice: ChoiceSpec, choices: Choices, quality: float) -> Floats:
    """Return the benefit of a document of each strategy, [communities, 3]."""
    shares = choices.shares(choice.communities)
    benefits = np.zeros_like(shares)
    if choice.benefit is None:
        benefits[:, [WRITE, USE_AI]] = choices.learnt
        return benefits
    best = choice.benefit if choice.ai_benefit is None else choice.ai_benefit
    benefits[:, WRITE] = choice.benefit
    benefits[:, USE_AI] = best - choice.collapse * (shares[:, USE_AI] if choice.falls_with == "use" else quality)
    return benefits


def _costs(choice: ChoiceSpec, cost: float) -> Floats:
    return np.array([cost, choice.ai_cost * cost, 0.0])


def _imitate(choice: ChoiceSpec, choices: Choices, meet: Stream, switch: Stream) -> None:
    """Compare every writer with a random member of its community; both strategies are those before the step."""
    ids = np.arange(choices.strategy.size)
    size = ids.size // choice.communities
    community = ids // size
    other = choices.strategy[community * size + (meet.uniform(ids) * size).astype(np.int64)]
    # What one gets of the benefits of others is the same for all strategies.
    payoff = (1 - choice.shared) * choices.benefits - _costs(choice, float(choice.cost))
    gain = payoff[community, other] - payoff[community, choices.strategy]
    choices.strategy = np.where(switch.uniform(ids) < choice.speed * gain, other, choices.strategy).astype(np.int8)


def _best(choice: ChoiceSpec, choices: Choices, factor: Floats) -> NDArray[np.int8]:
    """Return the best strategy of every writer: silence if no payoff is above 0, AI if it pays as much as writing."""
    community = np.arange(factor.size) // (factor.size // choice.communities)
    worth = factor[:, None] * choices.benefits[community]  # [writers, 3]
    known = worth[:, [WRITE, USE_AI]]
    if np.isnan(known).all():  # nothing has been learnt
        return np.full(factor.size, SILENT, np.int8)
    cost = float(np.nanmedian(known)) if choice.cost == "median" else float(choice.cost)
    payoff = np.nan_to_num((1 - choice.shared) * worth - _costs(choice, cost), nan=-np.inf)
    order = np.array([SILENT, USE_AI, WRITE], np.int8)  # of two that pay the same, the first is taken
    return np.asarray(order[payoff[:, order].argmax(axis=1)], np.int8)
