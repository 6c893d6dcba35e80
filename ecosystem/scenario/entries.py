"""Define the entries of a scenario: writers, trainers, curators, measurements, timed changes and closed forms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ecosystem.families.requests import Budget, Decoding, Rewriting, Start
from ecosystem.metrics.catalogue import name_of
from ecosystem.scenario.choices import ChoiceSpec
from ecosystem.spec import Spec
from ecosystem.types import Positive, Share

Count = Annotated[int, Field(ge=0, le=10**9)]
INITIAL = "initial"  # author of the initial documents of a web, in tables and in the shares of a trainer


class WriterSpec(Spec):
    """A population of people who write documents."""

    count: Positive = Field(1, description="number of writers in the population")
    source: str = Field(description="the source their documents are drawn from, without replacement")
    rate: Annotated[float, Field(ge=0, le=1e9)] = Field(5.0, description="documents a step, each writer, on average")
    sites: Positive = Field(3, description="home sites of each writer")
    reaction: Share = Field(
        0.0, description="0: always writes; 1: stops writing when every document around its home sites is synthetic"
    )
    leaves_below: Share | None = Field(
        None,
        description="leaves when the human share of the prominence at its home sites falls below this; absent: never",
    )
    returns_above: Share | None = Field(
        None, description="returns when that share rises above this; absent: above leaves_below"
    )
    pay: Annotated[float, Field(ge=0)] | None = Field(None, description="pay for a document, in money")
    rewrite: Rewriting | None = Field(
        None,
        description="a model rewrites part of each document before it is published; the document remains a human one, "
        "with the share of changed tokens as its depth; absent: as they were written",
    )
    wage: Annotated[float, Field(gt=0)] | None = Field(
        None, description="least pay for which it writes regardless of its readers; absent: never writes for pay alone"
    )
    choice: ChoiceSpec | None = Field(
        None, description="choice between writing, using AI and silence; absent: always writes, unless it has left"
    )

    @model_validator(mode="after")
    def _may_choose(self) -> WriterSpec:
        if self.choice is None:
            return self
        if self.reaction or self.leaves_below is not None:
            raise ValueError("choice: includes silence; remove reaction and leaves_below, or choice")
        if self.rewrite is not None:
            raise ValueError("choice: models may write a share of a document (ai_share); remove rewrite, or choice")
        if self.count % self.choice.communities:
            raise ValueError(
                f"choice.communities: {self.choice.communities} communities of equal size cannot be formed of "
                f"{self.count} writers; make count a multiple of it"
            )
        if self.rate and self.choice.uses is None:
            raise ValueError("choice.uses: is required, since users of AI publish documents; set it, or rate = 0")
        return self

    @model_validator(mode="after")
    def _may_leave(self) -> WriterSpec:
        for field in ("returns_above", "wage"):
            if self.leaves_below is None and getattr(self, field) is not None:
                raise ValueError(f"{field} has no meaning for writers that never leave; set leaves_below too")
        if self.leaves_below is not None and self.returns_above is not None and self.returns_above < self.leaves_below:
            raise ValueError(f"returns_above = {self.returns_above:g} is below leaves_below = {self.leaves_below:g}")
        return self


class ScrapeSpec(Spec):
    """How a trainer collects candidates from the web."""

    docs: Positive = Field(1000, description="candidates a step, without replacement")
    strategy: Literal["uniform", "recent", "reach", "popularity"] = Field(
        "uniform",
        description="uniform: all equally likely; recent: newer ones more often; reach: only sites within `links` of "
        "its home sites; popularity: in proportion to the PageRank of their site",
    )
    links: Count = Field(2, description="for reach: how many links away from the home sites")
    half_life: Annotated[float, Field(gt=0)] = Field(
        2.0, description="for recent: steps after which a document is half as likely to be scraped"
    )
    shares: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="whom the trainer reads: shares of `docs`, which add up to 1, by the name of a population of "
        'trainers or writers, or "initial" for the web\'s initial documents; of each it takes its share of those that '
        "the strategy offers, or all if there are fewer; absent: documents of all authors alike",
    )

    @field_validator("shares")
    @classmethod
    def _add_up(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is not None and abs(sum(shares.values()) - 1) > 1e-9:
            raise ValueError(f"the shares must add up to 1, but these add up to {sum(shares.values()):.6g}")
        return shares

    def quotas(self) -> dict[str, int]:
        """Return how many of ``docs`` candidates come from each population of ``shares``; the sum is ``docs``."""
        last, quotas, total = 0, {}, 0.0
        for name, share in sorted((self.shares or {}).items()):  # the order in a file has no effect
            total += share
            quotas[name] = round(total * self.docs) - last
            last += quotas[name]
        return quotas


class TrainerSpec(Spec):
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
    publish: Count = Field(100, description="documents published a step, each trainer")
    every: Positive = Field(1, description="number of steps from one fit to the next")
    offset: Count = Field(0, description="first step at which it may fit is 1 + offset")
    lag: Count = Field(0, description="scrape only documents published at least this many steps ago")
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


class CuratorSpec(Spec):
    """A population of fallible reviewers who look for machine text on some sites."""

    count: Positive = Field(1, description="number of curators in the population")
    sites: Positive = Field(10, description="sites each curator watches")
    reviews: Count = Field(40, description="documents reviewed a step, each curator")
    true_positive_rate: Share = Field(0.8, description="probability of recognising a synthetic document")
    false_positive_rate: Share = Field(0.05, description="probability of taking a human document for synthetic")
    action: Literal["remove", "down_weight", "endorse"] = Field(
        "remove",
        description="remove: remove suspects from the web; down_weight: multiply their prominence by `strength`; "
        "endorse: strengthen links to the sites of documents taken for human by `strength`",
    )
    strength: Annotated[float, Field(gt=0)] = Field(
        0.25, description="for down_weight and endorse: the factor of prominence, or what is added to a link's weight"
    )
    quality_bias: Annotated[float, Field(ge=-100, le=100)] | None = Field(
        None,
        description="how far fluency hides machine text: subtracted from the log-odds of suspecting a document for "
        "every standard deviation by which it is more fluent than held-out human text; below 0: raises suspicion",
    )
    judge: str | None = Field(
        None, description="name of the model whose starting weights measure fluency; requires quality_bias"
    )

    @model_validator(mode="after")
    def _both(self) -> CuratorSpec:
        if (self.quality_bias is None) != (self.judge is None):
            raise ValueError("set both quality_bias and judge, or neither")
        return self


class DownstreamSpec(Spec):
    """Tasks that evaluate models, made from real documents that are never published."""

    tasks: list[str] = Field([], description="tasks on which members are fine-tuned from their weights, then evaluated")
    zero_shot: list[str] = Field([], description="tasks on which members are evaluated without fine-tuning")
    every: Positive = Field(1, description="evaluate at step 1 and then every this many steps")
    train: Positive = Field(400, description="examples to fine-tune on, each task")
    test: Annotated[int, Field(ge=2, le=10**6)] = Field(200, description="test examples, from other documents")
    epochs: Annotated[float, Field(gt=0, le=1e6)] = Field(3.0, description="passes over the training examples")
    batch: Positive = Field(8, description="examples per optimiser step")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="absent: the model's own")
    random: Positive = Field(3, description="randomly initialised models, fine-tuned alike, for the baseline")

    @model_validator(mode="after")
    def _some(self) -> DownstreamSpec:
        if not self.tasks and not self.zero_shot:
            raise ValueError("set tasks or zero_shot, or remove the table")
        return self


class OverlapSpec(Spec):
    """The overlap of held-out documents with the web and with training sets."""

    words: Annotated[int, Field(ge=1, le=64)] = Field(
        13, description="number of words in a row that count as an overlap, in lower case and without punctuation"
    )


class MeasureSpec(Spec):
    """The measurements and their sample sizes."""

    held_out: Positive = Field(200, description="most human documents on which every trainer is scored")
    contexts: Count = Field(
        0, description="most beginnings of held-out documents after which next-token distributions are compared"
    )
    radioactivity: Positive | None = Field(
        None,
        description="most contexts in held-out documents after which a model is tested for having learnt from text "
        "with the first watermark in [policies] that it can write; absent: no test",
    )
    synthetic: Count = Field(10, description="extra documents each trainer writes per step for scoring, unpublished")
    texts: list[str] | None = Field(None, description="text metrics to compute; absent: all of them")
    words: Positive = Field(1000, description="words in each equal-size sample on which text metrics are computed")
    groups: Annotated[int, Field(ge=2)] = Field(8, description="largest number of such samples")
    sites: bool = Field(True, description="record the synthetic share of every site")
    initial_perplexity: Count = Field(
        100,
        description="most published texts of each trainer whose perplexity under the initial weights is measured at "
        "every step; 0: none",
    )
    initial_tokens: Positive = Field(
        32, description="number of first tokens measured, excluding a prompt; shorter texts are skipped"
    )
    domains: list[str] | None = Field(
        None,
        description="what every model is scored on besides the held-out documents of the initial source: names of "
        "sources, for their held-out documents, and of populations of trainers, for the unpublished documents "
        "(`synthetic`) that they write at the step; absent: nothing",
    )
    overlap: OverlapSpec | None = Field(
        None, description="absent: not measured; {} counts 13 words in a row, as the report of GPT-3 did"
    )
    truth: str | None = Field(
        None,
        description="source whose distribution is the truth and whose held-out documents models are scored on; absent: "
        "that of the initial documents",
    )
    density: Annotated[int, Field(ge=11, le=10**5)] | None = Field(
        None,
        description="points at which the density of every model of single numbers is compared with the true one "
        "(metric hellinger); absent: it is not",
    )
    downstream: DownstreamSpec | None = Field(None, description="absent: models are not evaluated on tasks")


class Change(Spec):
    """A timed change: set dotted paths to these values, starting at step ``at``."""

    at: Positive = Field(description="first step at which the values are in force")
    set: dict[str, Any] = Field(description="table of dotted path = value")


class Knob(Spec):
    """A control of the interactive page for one dotted path: a slider over numbers, or a list of choices."""

    path: str = Field(description="dotted path to set; it must be changeable inside a run")
    label: str | None = Field(None, description="label on the page; absent: its path")
    low: float | None = Field(None, description="smallest value of a slider")
    high: float | None = Field(None, description="largest value of a slider")
    step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="step of a slider; absent: 1, or a fiftieth of the range"
    )
    choices: dict[str, Any] | None = Field(None, description="instead of a slider: values by label")

    @model_validator(mode="after")
    def _slider_or_choices(self) -> Knob:
        if self.choices is not None:
            if len(self.choices) < 2 or any(x is not None for x in (self.low, self.high, self.step)):
                raise ValueError("choices needs two or more values, and excludes low, high and step")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("a slider needs low and high, with low below high; or set choices")
        return self

    @property
    def ends(self) -> list[Any]:
        """The extreme values: the ends of a slider, or all its choices."""
        return [self.low, self.high] if self.choices is None else list(self.choices.values())


class TheorySpec(Spec):
    """A closed form beside the simulation: a curve in the report, and checks for ``ecosystem validate``."""

    metric: Annotated[str, AfterValidator(name_of)] = Field(
        description="metric predicted, averaged over the trainers or communities of the population"
    )
    population: str = Field(description="name of an entry in [trainers], or of writers with a choice")
    law: str = Field(description="name of a function of the generation (ecosystem list laws)")
    parameters: dict[str, Any] = Field(default_factory=dict, description="its other arguments")
    first: int = Field(0, description="generation at step 0; the curve begins at generation 1")
    check: list[Positive] = Field([], description="steps at which `ecosystem validate` compares")
    source: str = Field("", description="reference for the law")
