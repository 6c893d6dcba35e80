"""Families of models and their cohorts: the interface through which the world trains, samples and scores models.

A *family* is a frozen value (a preset). It builds a *cohort*: M members of one shape, which answer requests
(:mod:`ecosystem.families.requests`). Families know nothing of agents, policies or the web. Each optional capability of
a cohort is a separate protocol, tested with ``isinstance``: :class:`TextCohort`, :class:`SupportsPrompts`,
:class:`SupportsWatermark`, :class:`Rewrites`, :class:`Describes`, :class:`SavesAssets`, :class:`TakesNotes`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import EcosystemError, TrainingError
from ecosystem.families.footprint import Footprint
from ecosystem.families.requests import (
    FitRecord,
    FitRequest,
    GenerateRequest,
    Member,
    PromptedFitRequest,
    Radioactivity,
    Rewriting,
    Rewritten,
    Score,
    ScoreRequest,
    WriteRecord,
)
from ecosystem.registry import Registry
from ecosystem.sources.base import Truth
from ecosystem.spec import Spec
from ecosystem.streams import Stream, Streams
from ecosystem.types import Modality

R = TypeVar("R")
Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``: called often during fit and generate; counts tokens. ``total`` 0: a phase begins."""


def silent(what: str, done: int, total: int) -> None:
    """Report no progress."""


class MemberError(TrainingError):
    """A TrainingError of one member of a cohort; the world replaces the number ``member`` with the trainer's name."""

    def __init__(self, member: int, sentence: str) -> None:
        """``sentence`` contains the member's number and begins in lower case."""
        super().__init__(sentence)
        self.member = member


@contextmanager
def of_member(member: int, predicate: str = "") -> Iterator[None]:
    """Turn a TrainingError raised inside into a MemberError that begins with "member 3``predicate``: "."""
    try:
        yield
    except TrainingError as error:
        raise MemberError(member, f"member {member}{predicate}: {error}") from error


class Cohort(Protocol):
    """M members of one family and one shape."""

    members: int
    fingerprint: str
    """Identifies the cached foundation or the checkpoint that members start from; "" if there is none."""

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents; raise TrainingError if a loss is not finite."""

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents: one Series of length ``n`` per request."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents: one Score per request."""

    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return everything that fit() has changed.

        The leading axis of every array is the member. If members differ in size, each has separate arrays, named
        ``<member>/…``.
        """

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it does not fit."""


@runtime_checkable
class TextCohort(Cohort, Protocol):
    """A cohort of language models."""

    context: int
    """Longest input in tokens."""
    written: list[WriteRecord]
    """Work of the last generate(): one record per request."""

    def flops_per_token(self, length: int) -> float | None:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens; None: unknown."""

    def type_counts(self, docs: pl.Series) -> NDArray[np.int64]:
        """Count how often each token id occurs in documents, one end of text per document included, shape [types]."""

    def next_token(self, member: Member, docs: pl.Series, tokens: int) -> NDArray[np.float32]:
        """Return the next-token distribution after the first ``tokens`` tokens of each document, [documents, types].

        Documents of at most ``tokens`` tokens are left out.
        """

    def excerpts(self, docs: pl.Series, first: int, tokens: int) -> pl.Series:
        """Return the text of tokens ``first`` to ``first + tokens`` of each document; shorter ones are left out."""


@runtime_checkable
class SupportsPrompts(Cohort, Protocol):
    """A cohort that learns answers to prompts, as fine-tuning on downstream tasks needs."""

    def fit_prompted(self, requests: Sequence[PromptedFitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members on answers; raise TrainingError if a loss is not finite."""


@runtime_checkable
class SupportsWatermark(Protocol):
    """A cohort that writes watermarked text (``GenerateRequest.mark``) and detects watermarks in any text."""

    def watermark(self, docs: pl.Series, mark: WatermarkSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Detect a watermark; return z-scores and numbers of scored tokens, [documents] each.

        Texts are read with this cohort's tokenizer.
        """

    def radioactivity(self, member: Member, docs: pl.Series, mark: WatermarkSpec, contexts: int) -> Radioactivity:
        """Test whether a member has learnt from watermarked text, by its predictions after tokens of unmarked ``docs``.

        At most this many contexts are taken from the documents.
        """


@runtime_checkable
class Rewrites(Protocol):
    """A cohort that rewrites documents with the weights that its members start from."""

    def rewrite(self, docs: pl.Series, how: Rewriting, stream: Stream) -> Rewritten:
        """Draw tokens of documents again; the noise is keyed by the number of the document in ``docs``."""


@runtime_checkable
class Describes(Protocol):
    """A cohort of models of vectors or categories whose parameters can be compared with the truth."""

    def describe(self, truth: Truth) -> dict[str, NDArray[np.float64]]:
        """Return the value of each metric for every member, shape [members] each; NaN if a member has no value."""


@runtime_checkable
class MapsMembers(Protocol):
    """A cohort whose members are in other processes, in which functions of them are evaluated at the same time."""

    def map_members(
        self,
        function: Callable[..., Any],
        members: Sequence[int],
        shared: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]],
    ) -> list[Any]:
        """Return the results of :func:`map_members`."""


def map_members(
    cohort: Cohort,
    function: Callable[..., R],
    members: Sequence[int],
    shared: tuple[Any, ...],
    own: Sequence[tuple[Any, ...]],
) -> Iterator[R]:
    """Return ``function(cohort, member, *shared, *own of the member)`` for every member, evaluated where it is.

    ``function`` must be one of a module, since it may be sent to other processes, where the cohort and the numbers of
    its members are others. It may not change the cohort.
    """
    if isinstance(cohort, MapsMembers):
        return iter(cohort.map_members(function, members, shared, own))
    return (function(cohort, member, *shared, *one) for member, one in zip(members, own, strict=True))


def recovered(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], factors: Mapping[int, float]
) -> dict[str, NDArray[Any]]:
    """Return the state ``after`` a fit of a cohort, with some members moved to before - factor (after - before).

    ``factors`` are by member. Both states are of ``Cohort.state()``; a member whose first fit it was remains as it is.
    The rule is that of the repository blindTissue/model_collapse_public.
    """
    state = {name: np.array(array) for name, array in after.items()}
    for name, array in state.items():
        owner, slash, _ = name.partition("/")
        for member, factor in factors.items():
            if slash and (int(owner) != member or name not in before):
                continue
            part: Any = ... if slash else member
            array[part] = before[name][part] - factor * (array[part] - before[name][part])
    return state


@runtime_checkable
class SavesAssets(Protocol):
    """A cohort whose checkpoints need files besides weights (configuration, tokenizer)."""

    def save_assets(self, folder: Path) -> None:
        """Write these files to ``folder``, which may exist already."""


@runtime_checkable
class TakesNotes(Protocol):
    """A cohort that decides something by measuring, or cannot do what it would, and says so."""

    def take_notes(self) -> list[str]:
        """Return the sentences since the last call; they are stored as events of the step."""


@dataclass(frozen=True)
class BuildContext:
    """Environment in which a family builds a cohort."""

    human: pl.Series  # the web's initial human documents: training data of tokenizers and foundations
    streams: Streams
    device: str  # "cpu", "cuda" or "mps"
    threads: int
    cache: Path  # foundations and tokenizers, by fingerprint
    progress: Progress = silent
    part_tokens: int | None = None  # tokens of a batch computed at once; None: as many as is fastest
    devices: tuple[str, ...] = ()  # those of the layers of one member; (): all are on ``device``, otherwise the first


@dataclass(frozen=True)
class Workload:
    """Estimated size of a model that has not been built; 0: unknown."""

    parameters: int
    flops_per_token: float  # of a forward pass
    tokens_to_pretrain: int  # for the foundation, unless it is cached


class Family(Spec):
    """A preset: an architecture, its size and the weights that members start from."""

    modality: ClassVar[Modality]
    needs_labels: ClassVar[bool] = False  # True: accepts labelled documents only
    uses_budget: ClassVar[bool] = True  # False: a fit reads every document once and ignores the trainer's budget
    depends_on_threads: ClassVar[bool] = True  # False: any number of compute threads gives the same numbers
    supports_prompts: ClassVar[bool] = False  # True: its cohorts implement SupportsPrompts
    divides_layers: ClassVar[bool] = False  # True: its cohorts compute one member on several devices, if told to
    supports_truncation: ClassVar[bool] = False  # True: its cohorts obey Decoding.truncate
    supports_watermark: ClassVar[bool] = False  # True: its cohorts implement SupportsWatermark
    supports_rewriting: ClassVar[bool] = False  # True: its cohorts implement Rewrites
    supports_recovery: ClassVar[bool] = False  # True: numbers between and beyond the states of a member make sense

    @property
    def averages_parameters(self) -> bool:
        """Whether the mean of the parameters of two members is a model of the family."""
        return False

    @property
    def starts_pretrained(self) -> bool:
        """Whether members start from a foundation or a checkpoint, and so can write before their first fit."""
        return False

    @property
    def starts_from_checkpoint(self) -> bool:
        """Whether members start from weights that were not trained in this world."""
        return False

    @property
    def checkpoint_folder(self) -> Path | None:
        """The local folder of weights that were not trained in this world; None if there is none, or it is missing."""
        return None

    @property
    def depends_on_start(self) -> bool:
        """Whether the outcome of a fit depends on the weights it starts from."""
        return self.uses_budget

    @classmethod
    def watermarking_kinds(cls) -> list[str]:
        """Return the kinds of all families whose cohorts support watermarks."""
        return [kind for kind, family in FAMILIES.all().items() if family.supports_watermark]

    def workload(self) -> Workload:
        """Estimate the size of a member, without building or downloading anything."""
        return Workload(0, 0, 0)

    def footprint(self) -> Footprint:
        """Return the sizes on which the memory of a member depends; the default is negligible."""
        return Footprint()

    def beside(self, base: Path) -> Self:
        """Return the family with relative paths that are found only in ``base``, the scenario's folder, resolved."""
        return self

    def check_files(self) -> None:
        """Raise DataError if a checkpoint folder that the family names is missing or no checkpoint; read no weights.

        Relative paths start from the current folder; see :meth:`beside`.
        """

    def unused(self) -> list[str]:
        """Return a sentence for every field that is set but has no effect; it begins with the name of the field."""
        return []

    def downloads(self) -> dict[str, str]:
        """Return what the family takes from the Hugging Face Hub: the id by the name of the field."""
        return {}

    def prepare(self, device: str) -> None:
        """Begin in the background what takes long and needs no documents; return immediately."""

    @abstractmethod
    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M members of the model ``name``; pre-train or load the weights that they start from."""

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write the weights of one member of a ``Cohort.state()`` beside its assets, for ``transformers`` to open."""
        raise EcosystemError(
            f'a model of kind "{self.kind}" is not a transformers model; its parameters are in weights/.'
        )


CohortBuilder = Callable[[Family, str, int, BuildContext], Cohort]
"""Builds the members of a family for the model of a name: in this process (:func:`build_cohort`) or elsewhere."""


def build_cohort(family: Family, name: str, members: int, context: BuildContext) -> Cohort:
    """Build a cohort in this process."""
    return family.cohort(name, members, context)


FAMILIES: Registry[type[Family]] = Registry(
    "family",
    "ecosystem.families.language.gpt2.family",
    "ecosystem.families.language.huggingface.family",
    "ecosystem.families.language.ngram.family",
    "ecosystem.families.statistical.categorical",
    "ecosystem.families.statistical.gaussian",
    "ecosystem.families.vae.family",
    "ecosystem.families.statistical.kde",
    "ecosystem.families.statistical.gmm",
    "ecosystem.families.statistical.linear",
    "ecosystem.families.statistical.classifier",
)
