"""The ``ngram`` family: counts of token sequences, a fast substitute for GPT-2 and the subject of closed forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ecosystem.families import checkpoint, foundation
from ecosystem.families.base import FAMILIES, BuildContext, Cohort, Family, Workload
from ecosystem.families.language import conversion
from ecosystem.families.language.family import missing_documents, read_tokenizer, too_long_prompts
from ecosystem.families.language.ngram.counts import NgramSettings, require_keys
from ecosystem.families.training_spec import Rate
from ecosystem.spec import ScenarioParts
from ecosystem.types import Modality, Positive

if TYPE_CHECKING:
    from ecosystem.families.language.tokenizer import Tokenizer


@FAMILIES.register("ngram")
class Ngram(Family):
    """An n-gram model: counts of the tokens that follow contexts of up to ``order`` - 1 tokens.

    The tokenizer is a byte-level BPE of ``vocabulary`` tokens trained on the web's initial human documents (257: single
    bytes), or that of the checkpoint ``tokenizer``. ``init`` selects the initial counts: "foundation" (those of the
    same documents) or "random" (none: all tokens are equally probable). A fit replaces the counts with those of its
    documents, in which a document of weight 2 counts twice, plus ``memory`` times the counts that it starts from. A fit
    reads every document once and ignores ``budget`` and ``learning_rate``.

    ``smoothing = "none"`` is maximum likelihood: a token that never followed a context has probability 0 after it, and
    text with such a token has infinite nats; set ``held_out = 0`` in the source. "add_k" adds k to every count
    (Laplace). "kneser_ney" subtracts an absolute discount from every count and gives it to the shorter context, down to
    the uniform distribution; the counts of shorter contexts are the numbers of different tokens that an n-gram follows
    (Kneser & Ney 1995, interpolated as in Chen & Goodman 1999). A context that never occurred is shortened to its last
    tokens.
    """

    modality: ClassVar[Modality] = "text"
    supports_watermark: ClassVar[bool] = True
    supports_rewriting: ClassVar[bool] = True
    uses_budget: ClassVar[bool] = False
    depends_on_threads: ClassVar[bool] = False

    init: Literal["foundation", "random"] = Field(
        "foundation", description="initial counts: those of the initial human documents, or none"
    )
    order: Annotated[int, Field(ge=1, le=5)] = Field(description="length of the n-grams in tokens; 1: no context")
    smoothing: Literal["none", "add_k", "kneser_ney"] = Field(
        "kneser_ney", description="probability of unseen n-grams: zero, Laplace, or Kneser-Ney"
    )
    k: Rate | None = Field(None, description="add_k: number added to every count")
    discount: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="kneser_ney: number subtracted from every count; absent: 0.75"
    )
    memory: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of its starting counts that a fit keeps"
    )
    vocabulary: Positive | None = Field(None, description="size of the byte-level BPE trained from scratch, in tokens")
    context: Positive = Field(description="longest document written, in tokens, prompt included")
    tokenizer: str | None = Field(None, description="checkpoint to take the tokenizer from; absent: the model's own")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.smoothing == "add_k") != (self.k is not None):
            raise ValueError('give k with smoothing = "add_k", and only with it')
        if self.discount is not None and self.smoothing != "kneser_ney":
            raise ValueError(f'smoothing = "{self.smoothing}" takes no discount; remove it')
        if (self.vocabulary is None) == (self.tokenizer is None):
            raise ValueError("give either vocabulary or tokenizer")
        if self.vocabulary is not None and self.vocabulary < 257:
            raise ValueError(f"vocabulary = {self.vocabulary} is too small: 256 bytes and the end of text make 257")
        if self.vocabulary is not None:
            require_keys(self.vocabulary, self.order)
        # Documents beyond the context are scored in windows that overlap by half of it.
        if self.context < (least := max(2, 2 * (self.order - 2))):
            raise ValueError(f"context = {self.context} is too short for order = {self.order}; give at least {least}")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require prompts that leave room to write, and human documents to count or to train a tokenizer on."""
        learns = self.tokenizer is None or self.init == "foundation"
        missing = missing_documents(path, scenario) if learns else []
        return missing + too_long_prompts(self.context, path, scenario)

    @property
    def starts_pretrained(self) -> bool:
        """Whether members start from the counts of the initial human documents."""
        return self.init == "foundation"

    @property
    def depends_on_start(self) -> bool:
        """Whether a fit keeps a share of its starting counts."""
        return self.memory > 0

    def workload(self) -> Workload:
        """Estimate the operations per token; the number of n-grams depends on the documents."""
        # Writing a token takes several passes over the vocabulary, without fast matrix products.
        return Workload(0, 30.0 * (self.vocabulary or 50_257), 0)

    def beside(self, base: Path) -> Self:
        """Return the family with the path of its tokenizer, if it is found only in ``base``, resolved there."""
        if self.tokenizer is None:
            return self
        return self.model_copy(update={"tokenizer": checkpoint.beside(self.tokenizer, base)})

    def check_files(self) -> None:
        """Raise DataError if the folder of ``tokenizer`` is missing."""
        checkpoint.check_folders({"tokenizer": self.tokenizer})

    def downloads(self) -> dict[str, str]:
        """Return the Hub id that the field ``tokenizer`` names."""
        return checkpoint.hub_ids({"tokenizer": self.tokenizer})

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M members; read the tokenizer from the cache, or make it first.

        Raises DataError if there are no human documents to train a tokenizer on or to count, or the checkpoint of the
        tokenizer cannot be found or has too many tokens for the order.
        """
        from ecosystem.families.language.cohort import CohortSettings
        from ecosystem.families.language.ngram.cohort import CountCohort

        if self.tokenizer is None or self.init == "foundation":
            foundation.require_documents(name, context.human)
        # Presets that differ in other fields share a tokenizer.
        shared = {"kind": self.kind, **self.model_dump(include={"vocabulary", "tokenizer", "context"})}
        folder = foundation.obtain(
            context.cache, foundation.fingerprint(shared, context.human), lambda: self._make_tokenizer(context)
        )
        fingerprint = foundation.fingerprint(self.plain(), context.human)
        settings = CohortSettings(name, members, _tokenizer(folder.resolve()), self.context, fingerprint)
        ngrams = NgramSettings(self.order, self.smoothing, self.k, self.discount, self.memory)
        human = context.human if self.init == "foundation" else context.human.clear()
        return CountCohort(settings, ngrams, human, context.threads)

    def _make_tokenizer(self, context: BuildContext) -> Callable[[Path], None]:
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.tokenizer is None:
            tokenizer = Tokenizer.train(context.human.to_list(), self.vocabulary or 0, context.progress)
        else:
            tokenizer = read_tokenizer(conversion.folder_of(self.tokenizer, "tokenizer", context.cache), context.human)
        return lambda folder: tokenizer.save(folder, self.context)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from the cache; consecutive arms of a study share the documents that it has encoded.

    The name of the cached folder depends on everything that the tokenizer depends on.
    """
    from ecosystem.families.language.tokenizer import Tokenizer

    return Tokenizer.load(folder)
