"""Writers, trainers and curators as Mesa agents: agents decide, and the phases carry out all decisions together.

Settings are read from the scenario *in force* (``model.current_scenario``) on every access, so that timed changes and
sliders take effect at once. All randomness comes from streams named after the agent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import mesa
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.scenario.entries.people import CuratorSpec, WriterSpec
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.scenario.scenario import Scenario
from ecosystem.streams import Stream


class Host(Protocol):
    """The parts of a world that agents read."""

    @property
    def t(self) -> int:
        """The current step."""

    @property
    def current_scenario(self) -> Scenario:
        """The scenario in force."""

    def stream(self, name: str) -> Stream:
        """Return the named stream at the current step."""

    def fluency(self, model: str, docs: pl.Series) -> NDArray[np.float64]:
        """Return the standardised fluency of documents under a model's starting weights, [documents]."""


class _Counters(WeakKeyDictionary[Any, Iterator[int]]):
    """A counter of agents for each world, which ends with the world."""

    def __getitem__(self, world: Any) -> Iterator[int]:
        return self.setdefault(world, count(1))


class Actor(mesa.Agent):
    """An agent with a name (``population/number``) and home sites, on which it publishes.

    Those of an agent with a ``site_type`` are the living sites of that type.
    """

    _ids = _Counters()  # that of Mesa 3.3 would keep every world in memory for as long as the process lives

    model: Host
    section: str

    @property
    @abstractmethod
    def settings(self) -> WriterSpec | TrainerSpec | CuratorSpec:
        """The population's entry in the scenario in force."""

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64]) -> None:
        super().__init__(world)
        self.population = population
        self.number = number
        self.name = f"{population}/{number}"
        self.homes = homes

    def place(self, drafts: int) -> NDArray[np.int64]:
        """Return the home site on which each of ``drafts`` new documents appears."""
        draws = self.model.stream(f"{self.section}/{self.name}/place").uniform(np.arange(drafts))
        return self.homes[(draws * len(self.homes)).astype(np.int64)]


class Writer(Actor):
    """A person who writes; may write less as machine text spreads nearby, or leave for lack of readers."""

    section = "writers"

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64]) -> None:
        super().__init__(world, population, number, homes)
        self.has_left = False

    @property
    def settings(self) -> WriterSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.writers[self.population]

    def update_presence(self, audience: float) -> None:
        """Leave, stay or return, given the human share of the prominence at its home sites."""
        settings = self.settings
        if settings.leaves_below is None or (settings.wage is not None and (settings.pay or 0.0) >= settings.wage):
            self.has_left = False
        elif self.has_left:
            returns_above = settings.leaves_below if settings.returns_above is None else settings.returns_above
            self.has_left = audience <= returns_above
        else:
            self.has_left = audience < settings.leaves_below

    def documents_to_write(self, synthetic_share: float) -> int:
        """Return the number of documents to write, given the synthetic share of the live documents at home."""
        if self.has_left or not self.homes.size:
            return 0
        settings = self.settings
        mean = settings.rate * (1.0 - settings.reaction * synthetic_share)
        if settings.activity is not None:
            mean *= settings.activity.at(self.model.t)
        noise = self.model.stream(f"writers/{self.name}/write").uniform(0)[0]
        return int(np.floor(mean + noise))  # rounds up with the probability that keeps the mean


class Trainer(Actor):
    """A laboratory: publishes text of its model, scrapes the web, selects documents and trains on them."""

    section = "trainers"

    def __init__(self, world: Host, population: str, number: int, homes: NDArray[np.int64], member: int) -> None:
        super().__init__(world, population, number, homes)
        self.member = member  # index in the cohort of its model
        self.depth = 0.0  # mean depth of the training set of its current model
        self.has_model = world.current_scenario.models[self.settings.model].starts_pretrained
        self.collapsed_at: int | None = None  # first step at which its model no longer varied
        self.present = self.settings.present
        self.inherited = False  # whether it has taken over home sites of another

    @property
    def settings(self) -> TrainerSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.trainers[self.population]

    def plain(self) -> dict[str, Any]:
        """Return what a resume needs of it as JSON."""
        values = {"depth": self.depth, "has_model": self.has_model, "collapsed_at": self.collapsed_at}
        values |= {} if self.present else {"present": False}
        return values | ({"homes": self.homes.tolist()} if self.inherited else {})

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Restore what :meth:`plain` returned."""
        self.depth, self.has_model = stored["depth"], stored["has_model"]
        self.collapsed_at = stored.get("collapsed_at")
        self.present, self.inherited = stored.get("present", True), "homes" in stored
        if self.inherited:
            self.homes = np.array(stored["homes"], dtype=np.int64)

    def take_homes(self, homes: NDArray[np.int64]) -> None:
        """Add the home sites of a trainer that has become part of this one."""
        self.homes = np.concatenate([self.homes, homes[~np.isin(homes, self.homes)]])
        self.inherited = True

    @property
    def wants_to_publish(self) -> bool:
        """Whether it has a model that can write."""
        return self.has_model

    def documents_to_publish(self) -> int:
        """Return the number of documents to publish; with an activity, rounded by chance so as to keep the mean."""
        settings = self.settings
        if not self.homes.size:
            return 0
        if settings.activity is None:
            return settings.publish
        noise = self.model.stream(f"trainers/{self.population}/activity").uniform(self.number)[0]
        return int(np.floor(settings.publish * settings.activity.at(self.model.t) + noise))

    @property
    def wants_to_fit(self) -> bool:
        """Whether this is one of the steps at which it trains."""
        return self.settings.fits_at(self.model.t)


class Curator(Actor):
    """A reviewer with a limited number of reviews and known error rates."""

    section = "curators"

    @property
    def settings(self) -> CuratorSpec:
        """The population's entry in the scenario in force."""
        return self.model.current_scenario.curators[self.population]

    def review(self, live: pl.DataFrame) -> pl.DataFrame:
        """Return the documents reviewed at this step (rows of ``live``) with a Boolean column ``suspect``."""
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
    """Add ``by`` to the log-odds of probabilities, [documents] each; 0 and 1 are unchanged."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(rate) - np.log1p(-rate)
    return np.asarray(0.5 * (1 + np.tanh(0.5 * (log_odds + by))), dtype=np.float64)


def by_model(trainers: Sequence[Trainer]) -> dict[str, list[Trainer]]:
    """Group trainers by the name of their model, in order."""
    groups: dict[str, list[Trainer]] = {}
    for trainer in trainers:
        groups.setdefault(trainer.settings.model, []).append(trainer)
    return groups
