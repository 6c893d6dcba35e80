"""Define the measurements of a run and their sample sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ecosystem.spec import Spec
from ecosystem.times import WholeSteps
from ecosystem.types import Count, Positive


class DownstreamSpec(Spec):
    """Tasks that evaluate models, made from real documents that are never published."""

    tasks: list[str] = Field([], description="tasks on which members are fine-tuned from their weights, then evaluated")
    zero_shot: list[str] = Field([], description="tasks on which members are evaluated without fine-tuning")
    every: WholeSteps = Field(1, description="evaluate at step 1 and then every this many steps")
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
