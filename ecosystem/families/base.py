"""What the world asks of a family of models: fit, generate and score, for many members at once.

A *family* is a frozen value (a preset). It builds a *cohort*: M members of one shape, which the world trains,
samples and scores through requests. Families know nothing of agents, policies or the web.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import EcosystemError, TrainingError
from ecosystem.registry import Registry
from ecosystem.sources.base import Truth
from ecosystem.spec import ScenarioParts, Spec
from ecosystem.streams import Stream, Streams

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: called often inside fit and generate, in tokens."""


def silent(what: str, done: int, total: int) -> None:
    """Show no progress."""


class MemberError(TrainingError):
    """A TrainingError of one member of a cohort; ``member`` lets the world say by name whose it is."""

    def __init__(self, member: int, sentence: str) -> None:
        """``sentence`` names the member by its number and begins in lower case."""
        super().__init__(sentence)
        self.member = member


class Budget(Spec):
    """How much a fit trains: exactly one of a number of tokens or of epochs over the training set."""

    tokens: Annotated[int, Field(gt=0, le=10**15)] | None = Field(None, description="tokens seen, with repetition")
    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = Field(None, description="times through the training set")

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("give exactly one of tokens and epochs")
        return self


class Prompt(Spec):
    """The beginning of each generated document: the first tokens of a real or a scraped one."""

    tokens: Annotated[int, Field(gt=0, le=10**6)] = Field(8, description="length in tokens")
    origin: Literal["real", "scraped"] = Field("real", description="human documents, or any that are on the web")
    keep: bool = Field(True, description="false: publish only the continuation")


class Decoding(Spec):
    """How a model's distribution is turned into text."""

    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="divides the logits")
    top_k: Annotated[int, Field(gt=0, le=10**9)] | None = Field(None, description="only the k likeliest tokens")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="only the likeliest with this mass")
    repetition_penalty: Annotated[float, Field(gt=0)] = Field(1.0, description="on tokens written before")
    max_tokens: Annotated[int, Field(gt=0, le=10**6)] = Field(96, description="new tokens per document, at most")
    prompt: Prompt | None = Field(None, description="absent: documents begin from nothing")
    watermark: str | None = Field(
        None, description="name of a watermark in [policies] with which those who comply mark their text"
    )


Start = Literal["foundation", "previous", "scratch"]
Member = int | Literal["initial", "random"]
"""A member of a cohort, the weights that members start from, or random weights."""


@dataclass(frozen=True)
class FitRequest:
    """Train one member on documents (``weight``: loss weight per document, shape [documents]).

    With ``prompts`` (one per document) a document is the answer to its prompt, which is read and not learnt; each
    example then stands alone. ``batch``: rows per optimiser step, if not as many as the family takes.
    """

    member: int
    docs: pl.Series
    weight: NDArray[np.float64]
    budget: Budget
    learning_rate: float | None  # None: the family's default
    start: Start
    stream: Stream
    prompts: pl.Series | None = None
    batch: int | None = None


@dataclass(frozen=True)
class GenerateRequest:
    """Write ``n`` documents with one member; ``prompts`` (n whole documents) if ``decoding.prompt`` is set.

    The text is watermarked if there is a ``mark``, whatever ``decoding.watermark`` names; only to a cohort of a family
    that ``marks``.
    """

    member: int
    n: int
    decoding: Decoding
    prompts: pl.Series | None
    stream: Stream
    mark: WatermarkSpec | None = None


@dataclass(frozen=True)
class ScoreRequest:
    """Score documents under a member, under the weights that members start from, or under random weights.

    With ``prompts`` (one per document) a document is scored as the answer to its prompt, whose own units are not in
    the Score.
    """

    member: Member
    docs: pl.Series
    prompts: pl.Series | None = None


@dataclass(frozen=True)
class FitRecord:
    """What a fit did: tokens seen (with repetition), mean training loss over its last tenth, seconds."""

    tokens: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class WriteRecord:
    """What writing took: tokens drawn, the end of text included, and tokens read of the prompt; each of shape [n]."""

    drawn: NDArray[np.int64]
    read: NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of documents in nats, unit by unit (token, or whole document for vectors).

    ``nll``: shape [units]; ``unit``: token id of each unit, shape [units]; ``offsets``: shape [documents + 1],
    document i owns units ``offsets[i]:offsets[i + 1]``. A text document ends with the end-of-text token, which
    is scored too, so that probabilities of documents sum to one.
    """

    nll: NDArray[np.float64]
    unit: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def per_document(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return (total nats, units) of every document, each of shape [documents]."""
        counts = np.diff(self.offsets)
        # Without units, reduceat would return the next document's first unit instead of 0.
        total = np.where(counts > 0, np.add.reduceat(np.append(self.nll, 0.0), self.offsets[:-1]), 0.0)
        return total, counts


class Cohort(Protocol):
    """M members of one family and one shape.

    Every array in ``state`` has the member as its leading axis; where members differ in size, each has arrays of its
    own, named ``<member>/…``.
    """

    members: int

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents; raise TrainingError if a loss is not finite."""

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents, one Score per request."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what fit() has changed."""

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what ``state`` returned."""


@runtime_checkable
class TextCohort(Cohort, Protocol):
    """A cohort of language models."""

    context: int  # longest input in tokens
    written: list[WriteRecord]  # of the last generate(), one per request

    def flops_per_token(self, length: int) -> float | None:
        """Return the floating-point operations per token of one forward pass over ``length`` tokens; None: unknown."""

    def type_counts(self, docs: pl.Series) -> NDArray[np.int64]:
        """Return how often each type of unit (token id) occurs in documents, ends of text included, shape [types]."""

    def next_token(self, member: Member, docs: pl.Series, tokens: int) -> NDArray[np.float32]:
        """Return the distribution after the first ``tokens`` tokens of every document that has more, [some, types]."""

    def excerpts(self, docs: pl.Series, first: int, tokens: int) -> pl.Series:
        """Return the text of ``tokens`` tokens from token ``first`` on, of every document that has so many."""


@runtime_checkable
class SupportsWatermark(Protocol):
    """A cohort that can look for watermarks in texts, as those of a family that ``marks`` can."""

    def watermark(self, docs: pl.Series, mark: WatermarkSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Look for a mark in texts, read with this cohort's tokenizer: z-scores and scored tokens, [documents] each."""


@runtime_checkable
class Describes(Protocol):
    """A cohort of models of vectors or categories, whose own parameters say how far from the truth they are."""

    def describe(self, truth: Truth) -> dict[str, NDArray[np.float64]]:
        """Return metric name → value of every member, each of shape [members]; NaN where it has none."""


@dataclass(frozen=True)
class Surroundings:
    """What a family needs to build a cohort, besides its own fields."""

    human: pl.Series  # the web's initial human documents: the tokenizer and the foundation are trained on them
    streams: Streams
    device: str  # "cpu", "cuda" or "mps"
    threads: int
    cache: Path  # foundations and tokenizers, by fingerprint
    progress: Progress = silent


@dataclass(frozen=True)
class Workload:
    """What a plan knows of a family before anything is built; 0 where only a checkpoint can tell."""

    parameters: int
    flops_per_token: float  # of one forward pass
    tokens_to_pretrain: int  # for its foundation, unless that is cached


class Family(Spec):
    """A preset: which architecture, of what size, starting from where."""

    modality: ClassVar[Literal["text", "vector", "category"]]
    needs_labels: ClassVar[bool] = False  # True: has no meaning for documents without labels
    marks: ClassVar[bool] = False  # whether its cohorts can watermark what they write (SupportsWatermark)
    heeds_budget: ClassVar[bool] = True  # False: a fit sees every document once, whatever the trainer's budget says
    tunable: ClassVar[bool] = False  # whether members understand prompts in fit and score, as downstream tasks need

    @property
    def begins_trained(self) -> bool:
        """Whether a member can write before its first fit (it starts from a foundation or a checkpoint)."""
        return getattr(self, "init", "random") not in ("random", "untrained")

    @classmethod
    def marking_kinds(cls) -> list[str]:
        """Return the kinds of all families whose cohorts can watermark."""
        return [kind for kind, family in FAMILIES.all().items() if family.marks]

    @abstractmethod
    def workload(self) -> Workload:
        """Return what a plan needs to know, without building or downloading anything."""

    @abstractmethod
    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M members under the model name ``name``, pre-training (or loading) what they start from."""

    def save_assets(self, cohort: Any, folder: Path) -> None:
        """Write what a checkpoint needs besides weights (configuration, tokenizer) into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write one member of a ``Cohort.state()`` into a folder of assets, which ``transformers`` can then open."""
        raise EcosystemError(f'a model of kind "{self.kind}" is no transformers model; its parameters are in weights/.')


def too_long_prompts(context: int | None, path: str, scenario: ScenarioParts) -> list[str]:
    """Return a sentence for every trainer whose prompt leaves no room in a ``context`` of so many tokens.

    ``path`` is that of the model; a context of None is that of a checkpoint, which only the checkpoint can tell.
    """
    prompts = {
        name: trainer.decoding.prompt
        for name, trainer in scenario.trainers.items()
        if f"models.{trainer.model}" == path and trainer.decoding.prompt is not None
    }
    return [
        f"trainers.{name}.decoding.prompt.tokens: a prompt of {prompt.tokens} tokens leaves no room to write in the "
        f"model's context of {context}; at most {context - 2}"
        for name, prompt in prompts.items()
        if context is not None and prompt.tokens + 1 >= context
    ]


FAMILIES: Registry[type[Family]] = Registry(
    "family",
    "ecosystem.families.language.gpt2.family",
    "ecosystem.families.language.huggingface",
    "ecosystem.families.language.ngram",
    "ecosystem.families.statistical.categorical",
    "ecosystem.families.statistical.gaussian",
    "ecosystem.families.vae.family",
    "ecosystem.families.statistical.kde",
    "ecosystem.families.statistical.gmm",
    "ecosystem.families.statistical.linear",
    "ecosystem.families.statistical.classifier",
)
