"""Define given adoption of AI by writers: the share of their documents made with it, and how much of each is AI."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecosystem.curves import ShareCurve
from ecosystem.errors import nearest
from ecosystem.spec import ScenarioParts, Spec

AiShare = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e9)]


class AdoptionSpec(Spec):
    """Given adoption of AI: a share of a population's documents is made with the models of a population of trainers.

    Every document has a number of its own that decides whether it is among that share, so that a document made with AI
    at one share is made with AI at every larger one. As long as no trainer has a model, people write all documents.
    """

    uses: str = Field(description="population of trainers whose models write; a writer uses one trainer's")
    share: ShareCurve = Field(description="probability that a document is made with AI: a number, or a curve in time")
    ai_shares: list[AiShare] | None = Field(
        None,
        description="shares of AI within documents made with it; below 1, the rest is from the writers' source; "
        "absent: 1",
    )
    weights: list[Weight] | None = Field(
        None, description="how often each of `ai_shares` occurs, in proportion; absent: equally often"
    )
    mix: Literal["draw", "blend"] = Field(
        "draw",
        description="how a mixed document is made, of vectors and categories: draw: it is the model's with a "
        "probability of its share of AI, else a person's; blend: the weighted mean of one of each (vectors); text has "
        "a span of each",
    )

    @model_validator(mode="after")
    def _consistent(self) -> AdoptionSpec:
        if self.ai_shares is not None and not self.ai_shares:
            raise ValueError("ai_shares: is empty; list at least one share, or remove it, for documents wholly by AI")
        if self.weights is None:
            return self
        if self.ai_shares is None:
            raise ValueError("weights: has no meaning without ai_shares; set both, or remove weights")
        if len(self.weights) != len(self.ai_shares):
            raise ValueError(
                f"weights: has {len(self.weights)} values for {len(self.ai_shares)} ai_shares; give one for each"
            )
        if not any(self.weights):
            raise ValueError("weights: are all 0; give at least one share of AI a weight above 0")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Return a sentence for every part of the scenario that the adoption refers to but that cannot serve it."""
        problems = []
        if self.uses not in scenario.trainers:
            problems.append(
                f"{path}.uses: there is no [trainers.{self.uses}]{nearest(self.uses, scenario.trainers)}; defined in "
                f"[trainers]: {', '.join(sorted(scenario.trainers)) or 'none'}"
            )
        if self.mix == "blend" and scenario.modality != "vector":
            problems.append(
                f'{path}.mix: only vectors can be blended, but documents are of kind {scenario.modality}; use "draw"'
            )
        return problems
