"""Requests to a cohort of models and the records that it returns, as frozen values independent of any model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.spec import ScenarioParts, Spec
from ecosystem.streams import Stream
from ecosystem.types import Share


class Budget(Spec):
    """Length of a fit: either a number of tokens or a number of epochs over the training set."""

    tokens: Annotated[int, Field(gt=0, le=10**15)] | None = Field(
        None, description="training tokens, repetitions included"
    )
    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = Field(None, description="passes over the training set")

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("give exactly one of tokens and epochs")
        return self


class Prompt(Spec):
    """Beginning of each generated document: the first tokens of an existing document."""

    tokens: Annotated[int, Field(gt=0, le=10**6)] = Field(8, description="length of the prompt in tokens")
    origin: Literal["real", "scraped"] = Field(
        "real", description="real: human documents only; scraped: any document on the web"
    )
    keep: bool = Field(True, description="whether the prompt is published with its continuation")


class Decoding(Spec):
    """Decoding method: how next-token distributions become text."""

    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="divisor of the logits")
    top_k: Annotated[int, Field(gt=0, le=10**9)] | None = Field(
        None, description="sample from the k most probable tokens only"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="sample from the smallest set of tokens that holds this probability mass (nucleus sampling)"
    )
    truncate: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        None,
        description="for models of kind gaussian of single numbers: documents further than this from the model's mean "
        "are never drawn",
    )
    repetition_penalty: Annotated[float, Field(gt=0)] = Field(
        1.0, description="penalty on tokens that are already in the document; 1: none"
    )
    max_tokens: Annotated[int, Field(gt=0, le=10**6)] = Field(96, description="most new tokens per document")
    prompt: Prompt | None = Field(None, description="beginning of each document; absent: documents start empty")
    watermark: str | None = Field(
        None, description="name of a watermark policy in [policies]; trainers that comply with it mark their text"
    )


class Rewriting(Spec):
    """Rewriting of documents by a model that draws some of their tokens again, given the tokens before each.

    With ``threshold`` = 0.99 and ``rate`` = 1 it is ToEdit (Zhu et al. 2024, 2412.14689), which edits tokens that the
    model was sure of; the value 0.99 is not from the paper's text. With ``threshold`` = 0 and ``after`` = "rewritten"
    it is a paraphrase, in which the share ``rate`` of the tokens is the model's. A document of categories is one token.
    """

    model: str = Field(description="name of the model that rewrites, with the weights that its trainers start from")
    threshold: Share = Field(0.99, description="least probability of a token that is drawn again")
    rate: Share = Field(1.0, description="probability that such a token is drawn again")
    temperature: Annotated[float, Field(gt=0)] = Field(1.5, description="divisor of the logits of the new token")
    after: Literal["original", "rewritten"] = Field(
        "original", description="the text before a token that the model reads: the original, or the rewritten one"
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a model that can rewrite, with weights that have been trained."""
        if self.model not in scenario.models:
            defined = ", ".join(sorted(scenario.models)) or "none"
            return [f"{path}.model: there is no [models.{self.model}]; defined in [models]: {defined}"]
        family = scenario.models[self.model]
        if not family.supports_rewriting:
            return [f"{path}.model: a model of kind {family.kind} cannot rewrite; language models and categorical can"]
        if not family.starts_pretrained:
            return [f'{path}.model: "{self.model}" starts from untrained weights and cannot rewrite; set its init']
        return []


Start = Literal["foundation", "previous", "scratch"]
"""Weights that a fit starts from: the cohort's initial ones, the member's current ones, or new random ones."""
Member = int | Literal["initial", "random"]
"""A member of a cohort, the weights that all members start from, or random weights."""


@dataclass(frozen=True)
class FitRequest:
    """Train one member on documents; ``weight`` [documents] holds their loss weights."""

    member: int
    docs: pl.Series
    weight: NDArray[np.float64]
    budget: Budget
    learning_rate: float | None  # None: the family's default
    start: Start
    stream: Stream


@dataclass(frozen=True)
class PromptedFitRequest(FitRequest):
    """Train one member on answers: document i follows prompt i, which is input without loss.

    Each example is a separate row. ``batch`` is the number of examples per optimiser step (None: the family's).
    """

    prompts: pl.Series
    batch: int | None = None


@dataclass(frozen=True)
class GenerateRequest:
    """Write ``n`` documents with one member.

    ``prompts`` holds n complete documents if ``decoding.prompt`` is set, and is None otherwise. ``mark`` is the
    watermark of the text, for cohorts that support watermarks; ``decoding.watermark`` is ignored.
    """

    member: int
    n: int
    decoding: Decoding
    prompts: pl.Series | None
    stream: Stream
    mark: WatermarkSpec | None = None


@dataclass(frozen=True)
class ScoreRequest:
    """Score documents under a member, the weights that members start from, or random weights.

    With ``prompts`` (text only, one per document), each document is scored as the answer to its prompt; the Score does
    not include the units of the prompt.
    """

    member: Member
    docs: pl.Series
    prompts: pl.Series | None = None


@dataclass(frozen=True)
class FitRecord:
    """Outcome of a fit: training tokens with repetitions, mean loss over the last tenth of the steps, and seconds."""

    tokens: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class WriteRecord:
    """Work of writing n documents: tokens drawn (the end of text included) and prompt tokens read, shape [n] each."""

    drawn: NDArray[np.int64]
    read: NDArray[np.int64]


@dataclass(frozen=True)
class Rewritten:
    """Documents after :class:`Rewriting`: their contents, and the number of ``changed`` ones among their ``tokens``.

    ``changed`` and ``tokens`` have shape [documents].
    """

    docs: pl.Series
    changed: NDArray[np.int64]
    tokens: NDArray[np.int64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of the tokens of each document that a model wrote, shape [documents]; 0 without tokens."""
        return self.changed / np.maximum(self.tokens, 1)


@dataclass(frozen=True)
class Radioactivity:
    """Test of a model for having learnt from watermarked text."""

    z: float
    """Standard deviations by which its predictions are marked more often than by chance."""
    log10_p: float
    """Logarithm to base 10 of the probability of a z as high if the model does not depend on the key."""
    scored: int
    """Number of different predictions."""


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of documents in nats, unit by unit: tokens of text, or whole vectors and categories.

    ``nll`` and ``unit`` (the token id, or 0) have shape [units]; ``offsets`` has shape [documents + 1]. The units of
    document i are ``offsets[i]:offsets[i + 1]``. The last unit of a text is its end-of-text token, so that the
    probabilities of all documents sum to one.
    """

    nll: NDArray[np.float64]
    unit: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of_documents(cls, nll: NDArray[np.float64]) -> Score:
        """Make the score of documents of one unit each, from their ``nll`` [documents]."""
        return cls(nll, np.zeros(nll.size, dtype=np.int64), np.arange(nll.size + 1))

    def per_document(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the total nats and the number of units of every document, shape [documents] each."""
        counts = np.diff(self.offsets)
        # Without units, reduceat would return the next document's first unit instead of 0.
        total = np.where(counts > 0, np.add.reduceat(np.append(self.nll, 0.0), self.offsets[:-1]), 0.0)
        return total, counts
