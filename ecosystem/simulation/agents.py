"""The actors of the web as Mesa agents: each says what it wants; the phases do it for all of them at once.

An agent's settings are looked up in the scenario *in force* (``model.current_scenario``) whenever they are
needed, so that a timed change or a slider takes effect at once. Agents draw no random numbers of their own: every draw
comes from a stream named after the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mesa
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.scenario.entries import CuratorSpec, TrainerSpec, WriterSpec
from ecosystem.scenario.scenario import Scenario
from ecosystem.streams import Stream


class Host(Protocol):
    """What an agent may ask of the world it lives in."""

    @property
    def t(self) -> int:
        """The present step."""

    @property
    def current_scenario(self) -> Scenario:
        """The scenario in force."""

    def stream(self, name: str) -> Stream:
        """Return the named stream at the present step."""

    def fluency(self, model: str, docs: pl.Series) -> NDArray[np.float64]:
        """Return the standardised fluency of documents under a model's starting weights, [documents]."""


class Actor(mesa.Agent):
    """An agent with a name (``population/number``) and home sites."""

    model: Host
    section: str

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64]) -> None:
        super().__init__(world)
        self.population = population
        self.name = f"{population}/{number}"
        self.homes = homes

    def place(self, drafts: int) -> NDArray[np.int64]:
        """Return the home site on which each of ``drafts`` new documents appears."""
        draws = self.model.stream(f"{self.section}/{self.name}/place").uniform(np.arange(drafts))
        return self.homes[(draws * len(self.homes)).astype(np.int64)]


class Writer(Actor):
    """A person who writes; may fall silent as what it reads fills with machine text, or leave for want of readers."""

    section = "writers"

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64]) -> None:
        super().__init__(world, population, number, homes)
        self.has_left = False

    @property
    def settings(self) -> WriterSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.writers[self.population]

    def hear_of(self, audience: float) -> None:
        """Leave, stay or come back, given the share of the prominence at home that documents by people have."""
        settings = self.settings
        if settings.leaves_below is None or (settings.wage is not None and (settings.pay or 0.0) >= settings.wage):
            self.has_left = False
        elif self.has_left:
            returns_above = settings.leaves_below if settings.returns_above is None else settings.returns_above
            self.has_left = audience <= returns_above
        else:
            self.has_left = audience < settings.leaves_below

    def wants_to_write(self, synthetic_share: float) -> int:
        """Return the number of documents to write, given the synthetic share of the live documents at home."""
        if self.has_left:
            return 0
        mean = self.settings.rate * (1.0 - self.settings.reaction * synthetic_share)
        noise = self.model.stream(f"writers/{self.name}/write").uniform(0)[0]
        return int(np.floor(mean + noise))  # rounds up with the probability that keeps the mean


class Trainer(Actor):
    """A laboratory: publishes what its model writes, scrapes the web, selects, and trains on what is left."""

    section = "trainers"

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64], member: int) -> None:
        super().__init__(world, population, number, homes)
        self.member = member  # its place in the cohort of its model
        self.depth = 0.0  # mean depth of what its present model was trained on
        self.has_model = world.current_scenario.models[self.settings.model].starts_pretrained
        self.collapsed_at: int | None = None  # the first step after which nothing varied any more in its model

    @property
    def settings(self) -> TrainerSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.trainers[self.population]

    @property
    def wants_to_publish(self) -> bool:
        """Whether it has a model whose text it can publish."""
        return self.has_model

    @property
    def wants_to_fit(self) -> bool:
        """Whether this is one of the steps at which it trains."""
        return self.settings.fits_at(self.model.t)


class Curator(Actor):
    """A reviewer with a budget of attention and known error rates."""

    section = "curators"

    @property
    def settings(self) -> CuratorSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.curators[self.population]

    def review(self, live: pl.DataFrame) -> pl.DataFrame:
        """Return the documents reviewed now (rows of ``live``) with a Boolean column ``suspect``."""
        if not self.settings.reviews:
            return live.clear().with_columns(suspect=pl.lit(None, pl.Boolean))
        watched = live.filter(pl.col("site").is_in(self.homes.tolist()))
        streams = self.model.stream(f"curators/{self.name}/review"), self.model.stream(f"curators/{self.name}/judge")
        order, noise = (stream.uniform(watched["doc"]) for stream in streams)
        rate = (
            pl.when(pl.col("synthetic"))
            .then(self.settings.true_positive_rate)
            .otherwise(self.settings.false_positive_rate)
        )
        reviewed = watched.with_columns(order=pl.Series(order), noise=pl.Series(noise), rate=rate).sort("order")
        reviewed = reviewed.head(self.settings.reviews)
        if self.settings.judge is not None:
            leniency = (self.settings.quality_bias or 0.0) * self.model.fluency(self.settings.judge, reviewed["doc"])
            reviewed = reviewed.with_columns(rate=pl.Series(shifted(reviewed["rate"].to_numpy(), -leniency)))
        return reviewed.with_columns(suspect=pl.col("noise") < pl.col("rate")).drop("order", "noise", "rate")


def shifted(rate: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities whose log-odds are ``by`` above those of ``rate``, [documents] each; 0 and 1 stay."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(rate) - np.log1p(-rate)
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (log_odds + by))), dtype=np.float64)


def by_model(trainers: Sequence[Trainer]) -> dict[str, list[Trainer]]:
    """Group trainers by the name of their model, in order."""
    groups: dict[str, list[Trainer]] = {}
    for trainer in trainers:
        groups.setdefault(trainer.settings.model, []).append(trainer)
    return groups
