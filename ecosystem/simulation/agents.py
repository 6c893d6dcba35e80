"""The actors of the web as Mesa agents: each says what it wants; the phases do it for all of them at once.

An agent's recipe is looked up in the scenario *in force* (``model.spec``) whenever it is needed, so that a timed
change or a slider takes effect at once. Agents draw no random numbers of their own: every draw comes from a
stream named after the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mesa
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.recipes import CuratorSpec, TrainerSpec, WriterSpec

if TYPE_CHECKING:
    from ecosystem.simulation.world import World


class Actor(mesa.Agent):
    """An agent with a name (``population/number``) and home sites."""

    model: World
    section: str

    def __init__(self, world: World, population: str, number: int, homes: NDArray[np.int64]) -> None:
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

    def __init__(self, world: World, population: str, number: int, homes: NDArray[np.int64]) -> None:
        super().__init__(world, population, number, homes)
        self.has_left = False

    @property
    def recipe(self) -> WriterSpec:
        """The population's entry in the scenario in force."""
        return self.model.spec.writers[self.population]

    def hear_of(self, audience: float) -> None:
        """Leave, stay or come back, given the share of the prominence at home that documents by people have."""
        recipe = self.recipe
        if recipe.leaves_below is None or (recipe.wage is not None and (recipe.pay or 0.0) >= recipe.wage):
            self.has_left = False
        elif self.has_left:
            self.has_left = audience <= (recipe.leaves_below if recipe.returns_above is None else recipe.returns_above)
        else:
            self.has_left = audience < recipe.leaves_below

    def wants_to_write(self, synthetic_share: float) -> int:
        """Return how many documents to write, given the synthetic share of the live documents at home."""
        if self.has_left:
            return 0
        mean = self.recipe.rate * (1.0 - self.recipe.reaction * synthetic_share)
        luck = self.model.stream(f"writers/{self.name}/write").uniform(0)[0]
        return int(np.floor(mean + luck))  # rounds up with the probability that keeps the mean


class Trainer(Actor):
    """A laboratory: publishes what its model writes, scrapes the web, selects, and trains on what is left."""

    section = "trainers"

    def __init__(self, world: World, population: str, number: int, homes: NDArray[np.int64], member: int) -> None:
        super().__init__(world, population, number, homes)
        self.member = member  # its place in the cohort of its model
        self.depth = 0.0  # mean depth of what its present model was trained on
        self.has_model = world.spec.models[self.recipe.model].begins_trained
        self.collapsed_at: int | None = None  # the first step after which nothing varied any more in its model

    @property
    def recipe(self) -> TrainerSpec:
        """The population's entry in the scenario in force."""
        return self.model.spec.trainers[self.population]

    @property
    def wants_to_publish(self) -> bool:
        """Whether it has a model whose text it can publish."""
        return self.has_model

    @property
    def wants_to_fit(self) -> bool:
        """Whether this is one of the steps at which it trains."""
        return self.recipe.fits_at(self.model.t)


class Curator(Actor):
    """A reviewer with a budget of attention and known error rates."""

    section = "curators"

    @property
    def recipe(self) -> CuratorSpec:
        """The population's entry in the scenario in force."""
        return self.model.spec.curators[self.population]

    def review(self, live: pl.DataFrame) -> pl.DataFrame:
        """Return the documents reviewed now (rows of ``live``) with a Boolean column ``suspect``."""
        if not self.recipe.reviews:
            return live.clear().with_columns(suspect=pl.lit(None, pl.Boolean))
        watched = live.filter(pl.col("site").is_in(self.homes.tolist()))
        streams = self.model.stream(f"curators/{self.name}/review"), self.model.stream(f"curators/{self.name}/judge")
        order, luck = (stream.uniform(watched["doc"]) for stream in streams)
        rate = (
            pl.when(pl.col("synthetic")).then(self.recipe.true_positive_rate).otherwise(self.recipe.false_positive_rate)
        )
        reviewed = watched.with_columns(order=pl.Series(order), luck=pl.Series(luck), rate=rate).sort("order")
        reviewed = reviewed.head(self.recipe.reviews)
        if self.recipe.judge is not None:
            leniency = (self.recipe.quality_bias or 0.0) * self.model.fluency(self.recipe.judge, reviewed["doc"])
            reviewed = reviewed.with_columns(rate=pl.Series(shifted(reviewed["rate"].to_numpy(), -leniency)))
        return reviewed.with_columns(suspect=pl.col("luck") < pl.col("rate")).drop("order", "luck", "rate")


def shifted(rate: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities whose log-odds are ``by`` above those of ``rate``, [documents] each; 0 and 1 stay."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(rate) - np.log1p(-rate)
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (log_odds + by))), dtype=np.float64)


def by_model(trainers: Sequence[Trainer]) -> dict[str, list[Trainer]]:
    """Group trainers by the name of their model, in order."""
    groups: dict[str, list[Trainer]] = {}
    for trainer in trainers:
        groups.setdefault(trainer.recipe.model, []).append(trainer)
    return groups
