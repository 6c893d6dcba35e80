"""Define writers, who publish documents, and curators, who review them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecosystem.families.requests import Rewriting
from ecosystem.scenario.entries.adoption import AdoptionSpec
from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.scenario.entries.homes import PublisherSpec
from ecosystem.spec import Spec
from ecosystem.times import PerStep, WholePerStep
from ecosystem.types import Positive, Share


class WriterSpec(PublisherSpec):
    """A population of people who write documents."""

    count: Positive = Field(1, description="number of writers in the population")
    source: str = Field(description="the source their documents are drawn from, without replacement")
    rate: PerStep = Field(5.0, description="documents a step, each writer, on average")
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
    adoption: AdoptionSpec | None = Field(
        None, description="given share of its documents that is made with AI; absent: none, unless by `choice`"
    )

    @model_validator(mode="after")
    def _may_adopt(self) -> WriterSpec:
        for other in ("choice", "rewrite"):
            if self.adoption is not None and getattr(self, other) is not None:
                raise ValueError(f"adoption: gives the share of AI in documents, and so does {other}; remove one")
        return self

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


class CuratorSpec(Spec):
    """A population of fallible reviewers who look for machine text on some sites."""

    count: Positive = Field(1, description="number of curators in the population")
    sites: Positive = Field(10, description="sites each curator watches")
    reviews: WholePerStep = Field(40, description="documents reviewed a step, each curator")
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
