"""Define the choice of writers between writing, using AI and silence: benefits, costs and how they revise it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ecosystem.errors import nearest
from ecosystem.metrics.catalogue import definitions
from ecosystem.spec import ScenarioParts, Spec
from ecosystem.times import WholeSteps
from ecosystem.types import Positive, Share

Amount = Annotated[float, Field(ge=0, le=1e9)]
Rate = Annotated[float, Field(gt=0, le=1)]


class NoveltySpec(Spec):
    """Learned benefits: how much nearer one document brings public knowledge to the truth (cf. Peterson 2024).

    Public knowledge is a Gaussian kernel density estimate of the newest 1,000 live documents. The gain of a document is
    100 times the fall of the Hellinger distance to the truth when it is added, and never less than 0. Documents must be
    single numbers, whose true density the writers' source knows. Nothing is learnt while the writers' rate is 0.
    """

    trials: Positive = Field(
        10, description="unpublished documents of each sort, human and AI, on which gains are measured at every step"
    )
    learning_rate: Rate = Field(
        0.05, description="weight of the newest mean gain in a benefit; the others keep 1 minus it"
    )
    inherited: WholeSteps | None = Field(
        None,
        description="steps of a generation: at first and at its multiples, the spread of what people write becomes "
        "that of public knowledge; absent: people write from the truth",
    )


class ChoiceSpec(Spec):
    """A choice between writing, using AI and silence, which costs nothing and yields nothing of one's own.

    The payoff of a strategy is (1 - ``shared``) times its own benefit, plus ``shared`` times the mean benefit in the
    community, minus its cost. The game of Baumann et al. (2026) has ``shared`` = 1/2.
    """

    rule: Literal["imitate", "best"] = Field(
        "imitate",
        description="imitate: compare oneself with a random member of the community, and take over a strategy of "
        "higher payoff with probability `speed` times the difference; best: take the strategy of the highest payoff",
    )
    communities: Positive = Field(
        1, description="separate communities of equal size, in which writers meet and imitate each other"
    )
    ai_at_first: Share = Field(0.0, description="share of each community that uses AI at the opening")
    silent_at_first: Share = Field(0.0, description="share that is silent at the opening; all others write")
    uses: str | None = Field(
        None, description="population of trainers whose models write for the users of AI; required if they publish"
    )
    ai_share: Rate = Field(
        1.0, description="share of AI in the documents of its users; below 1, the rest is from the writers' source"
    )
    mix: Literal["draw", "blend"] = Field(
        "draw",
        description="how a mixed document is made, of vectors and categories: draw: it is the model's with probability "
        "`ai_share`, else a person's; blend: the weighted mean of one of each (vectors); text has a span of each",
    )
    benefit: Amount | None = Field(None, description="benefit of a human document; absent: learned, by `novelty`")
    ai_benefit: Amount | None = Field(None, description="benefit of an AI document at best; absent: `benefit`")
    collapse: Amount = Field(
        0.0, description="how much the benefit of AI falls for each unit of `falls_with`: the severity of collapse"
    )
    falls_with: str = Field(
        "use",
        description='"use": the share of the community that uses AI; or the name of a metric of the models in `uses`, '
        "as the mean over trainers at the last step",
    )
    shared: Share = Field(0.0, description="share of the benefit of a document that goes to others in the community")
    cost: Amount | Literal["median"] = Field(
        description="cost of writing; median: the median of what both sorts of documents are worth to all writers"
    )
    ai_cost: Amount = Field(description="cost of using AI, as a multiple of `cost`; 0.8 is a discount of 20 %")
    speed: Amount = Field(0.5, description="for imitate: probability of switching for each unit of difference")
    types_sd: Amount = Field(
        0.0, description="for best: spread of a lognormal factor of mean 1 by which each writer multiplies benefits"
    )
    novelty: NoveltySpec | None = Field(None, description="how benefits are learned; absent: they are given")

    @model_validator(mode="after")
    def _consistent(self) -> ChoiceSpec:
        if (self.benefit is None) == (self.novelty is None):
            raise ValueError("give exactly one of benefit and novelty")
        if self.novelty is not None and (self.ai_benefit is not None or self.collapse):
            raise ValueError("novelty: learns the benefit of AI too; remove ai_benefit and collapse")
        if self.ai_at_first + self.silent_at_first > 1:
            raise ValueError("ai_at_first and silent_at_first add up to more than 1")
        if self.rule == "imitate" and (self.types_sd or self.cost == "median" or self.novelty is not None):
            raise ValueError(
                'rule: types_sd, novelty and cost = "median" are of the rule "best"; set it, or remove them'
            )
        if self.uses is None and (self.falls_with != "use" or self.novelty is not None):
            raise ValueError("uses: is required, since the benefit of AI depends on its models")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Return a sentence for every part of the scenario that the choice refers to but that cannot serve it."""
        problems, metrics = [], definitions()
        if self.uses is not None and self.uses not in scenario.trainers:
            problems.append(
                f"{path}.uses: there is no [trainers.{self.uses}]{nearest(self.uses, scenario.trainers)}; defined in "
                f"[trainers]: {', '.join(sorted(scenario.trainers)) or 'none'}"
            )
        if self.falls_with != "use" and self.falls_with not in metrics:
            problems.append(
                f'{path}.falls_with: must be "use" or a metric, and there is no metric "{self.falls_with}"'
                f"{nearest(self.falls_with, metrics)}; see `ecosystem list metrics`"
            )
        if self.mix == "blend" and scenario.modality != "vector":
            problems.append(
                f'{path}.mix: only vectors can be blended, but documents are of kind {scenario.modality}; use "draw"'
            )
        name = path.split(".")[1]
        origin = scenario.sources.get(scenario.writers[name].source)
        if self.novelty is not None and origin is not None and not (origin.width == 1 and origin.has_density):
            problems.append(
                f"{path}.novelty: gains are measured on single numbers whose density is known, but the source of "
                f"writers.{name} is of kind {origin.kind}; use student_t, or gaussian with dim = 1"
            )
        return problems
