"""Define trainers: what they scrape, select, train on and publish."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ecosystem.families.requests import Budget, Decoding, Start
from ecosystem.scenario.entries.homes import PublisherSpec
from ecosystem.spec import Spec
from ecosystem.times import Delay, SomePerStep, Steps, WholePerStep, WholeSteps
from ecosystem.types import Count, Positive

INITIAL = "initial"  # author of the initial documents of a web, in tables and in the shares of a trainer


class ScrapeSpec(Spec):
    """How a trainer collects candidates from the web."""

    docs: SomePerStep = Field(1000, description="candidates a step, without replacement")
    strategy: Literal["uniform", "recent", "reach", "popularity"] = Field(
        "uniform",
        description="uniform: all equally likely; recent: newer ones more often; reach: only sites within `links` of "
        "its home sites; popularity: in proportion to the PageRank of their site",
    )
    links: Count = Field(2, description="for reach: how many links away from the home sites")
    half_life: Steps = Field(
        2.0, description="for recent: steps after which a document is half as likely to be scraped"
    )
    shares: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="whom the trainer reads: shares of `docs`, which add up to 1, by the name of a population of "
        'trainers or writers, or "initial" for the web\'s initial documents; of each it takes its share of those that '
        "the strategy offers, or all if there are fewer; absent: documents of all authors alike",
    )
    robots: Literal["obey", "ignore"] | None = Field(
        None,
        description="whether sites that refuse crawlers (web.types.NAME.refuses) are left out: obey or ignore; absent: "
        "obey",
    )

    @field_validator("shares")
    @classmethod
    def _add_up(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is not None and abs(sum(shares.values()) - 1) > 1e-9:
            raise ValueError(f"the shares must add up to 1, but these add up to {sum(shares.values()):.12g}")
        return shares

    @property
    def obeys_robots(self) -> bool:
        """Whether the trainer leaves out sites that refuse crawlers."""
        return self.robots != "ignore"

    def quotas(self) -> dict[str, int]:
        """Return how many of ``docs`` candidates come from each population of ``shares``; the sum is ``docs``."""
        last, quotas, total = 0, {}, 0.0
        for name, share in sorted((self.shares or {}).items()):  # the order in a file has no effect
            total += share
            quotas[name] = round(total * self.docs) - last
            last += quotas[name]
        return quotas


class TrainerSpec(PublisherSpec):
    """A population of trainers with the same settings; each has its own model, home sites and random streams."""

    count: Positive = Field(1, description="number of trainers in the population")
    model: str = Field(description="name of an entry in [models]")
    sites: Positive = Field(3, description="home sites, where it publishes and from where reach is counted")
    scrape: ScrapeSpec = ScrapeSpec()
    select: list[str] = Field([], description="policies applied to the candidates, in this order")
    retain: list[str] | None = Field(
        None,
        description="absent: train on this step's selection alone; a list: keep an archive of everything selected "
        "so far, thinned by these retention policies ([] keeps all)",
    )
    start: Start = Field(
        "previous",
        alias="from",
        description="the weights each fit starts from: foundation, previous (its own last model) or scratch",
    )
    budget: Budget = Budget(tokens=50_000)
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="absent: the model's own")
    recovery: Annotated[float, Field(ge=-1, le=100)] | None = Field(
        None,
        description="recovery in weight space: a fit from w to v leaves the trainer with w - recovery (v - w); 0: with "
        "the weights from before; -1, like absent: with those fitted",
    )
    decoding: Decoding = Decoding()
    publish: WholePerStep = Field(100, description="documents published a step, each trainer")
    every: WholeSteps = Field(1, description="number of steps from one fit to the next")
    offset: Delay = Field(0, description="first step at which it may fit is 1 + offset")
    lag: Delay = Field(0, description="scrape only documents published at least this many steps ago")
    active: bool | None = Field(
        None,
        description="false: they are not there; a timed change to true lets them begin, one to false lets them end; "
        "absent: true",
    )
    split_from: str | None = Field(
        None,
        description="population that they split from when a timed change lets them begin, number by number: they begin "
        "with its weights and a copy of its archive; absent: with the weights that the model starts from",
    )
    merged_into: str | None = Field(
        None,
        description="set by a timed change: population that they become part of, number by number; it takes over their "
        "home sites and archives, and they end",
    )
    merged_weights: Literal["average"] | None = Field(
        None,
        description="for merged_into: average: the population that remains gets the mean of its parameters and theirs; "
        "absent: it keeps its own",
    )

    @model_validator(mode="after")
    def _merges(self) -> TrainerSpec:
        if self.merged_weights is not None and self.merged_into is None:
            raise ValueError("merged_weights: has no meaning without merged_into; set both in one timed change")
        return self

    @property
    def present(self) -> bool:
        """Whether these trainers are there: they have begun, and neither ended nor become part of others."""
        return self.active is not False and self.merged_into is None

    def fits_at(self, t: int) -> bool:
        """Return whether these trainers train at step ``t``."""
        elapsed = t - 1 - self.offset
        return elapsed >= 0 and elapsed % self.every == 0
