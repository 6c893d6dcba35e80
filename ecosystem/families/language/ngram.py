"""The ``ngram`` family: next-token counts, a quick stand-in for GPT-2 and the models that theory speaks of."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ecosystem.families import foundation
from ecosystem.families.base import FAMILIES, Cohort, Family, Surroundings, Workload, too_long_prompts
from ecosystem.families.language import checkpoint
from ecosystem.families.training_spec import Positive, Rate
from ecosystem.spec import ScenarioParts

if TYPE_CHECKING:
    from ecosystem.families.language.tokenizer import Tokenizer

KEYS = 2**63  # an n-gram is one signed 64-bit number


@FAMILIES.register("ngram")
class Ngram(Family):
    """Counts of which token follows which, for contexts of up to ``order`` - 1 tokens.

    Tokens are those of a byte-level BPE of ``vocabulary`` tokens trained on the web's initial human documents (257:
    single bytes), or of the checkpoint that ``tokenizer`` names. ``init`` says where members start: "foundation" (the
    counts of those documents) or "random" (no counts: every token alike). A fit replaces the counts by those of its
    own documents, in which a document of weight 2 counts twice, plus ``memory`` times the counts it starts from. A fit
    sees every document once: ``budget`` and ``learning_rate`` have no meaning here.

    ``smoothing = "none"`` is maximum likelihood: what never followed a context has probability 0 after it, so that text
    which holds such a thing has infinite nats: give the source ``held_out = 0``. "add_k" adds k to every count
    (Laplace). "kneser_ney" takes one absolute discount from every count and gives it to the shorter context, down to
    the uniform distribution; shorter contexts count how many different tokens an n-gram follows (Kneser & Ney 1995,
    interpolated as in Chen & Goodman 1999). With all of them a context that never occurred stands for its last tokens.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "text"
    marks: ClassVar[bool] = True
    heeds_budget: ClassVar[bool] = False

    init: Literal["foundation", "random"] = Field("foundation", description="foundation or random")
    order: Annotated[int, Field(ge=1, le=5)] = Field(description="tokens in an n-gram: 1 knows no context")
    smoothing: Literal["none", "add_k", "kneser_ney"] = Field("kneser_ney", description="what the unseen gets")
    k: Rate | None = Field(None, description="for add_k: added to every count")
    discount: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="for kneser_ney: taken from every count; absent: 0.75"
    )
    memory: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of the counts it starts from that a fit keeps"
    )
    vocabulary: Positive | None = Field(None, description="tokens of the byte-level BPE trained from scratch")
    context: Positive = Field(description="longest document it writes in tokens, prompt included")
    tokenizer: str | None = Field(None, description="checkpoint to take the tokenizer from; absent: its own")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.smoothing == "add_k") != (self.k is not None):
            raise ValueError('give k with smoothing = "add_k", and only with it')
        if self.discount is not None and self.smoothing != "kneser_ney":
            raise ValueError(f'smoothing = "{self.smoothing}" takes no discount; leave it out')
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
        """Require prompts that leave room to write."""
        return too_long_prompts(self.context, path, scenario)

    def workload(self) -> Workload:
        """Return what a plan needs to know; how many n-grams there will be, only the documents can tell."""
        # Every token that is written takes some passes over the vocabulary, which no matrix product speeds up.
        return Workload(0, 30.0 * (self.vocabulary or 50_257), 0)

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M members; the tokenizer comes from the cache if it is there.

        Raises DataError if there are no human documents to train a tokenizer on or to count, or the tokenizer's
        checkpoint cannot be had or has too many tokens for the order.
        """
        from ecosystem.families.language.ngram_cohort import CountCohort

        if self.tokenizer is None or self.init == "foundation":
            foundation.require_documents(name, around.human)
        # Presets that differ only in how they count share one tokenizer.
        shared = {"kind": self.kind, **self.model_dump(include={"vocabulary", "tokenizer", "context"})}
        folder = foundation.obtain(
            around.cache, foundation.fingerprint(shared, around.human), lambda: self._prepare(around)
        )
        mark = foundation.fingerprint(self.plain(), around.human)
        return CountCohort(name, members, self, _tokenizer(folder.resolve()), around, mark)

    def _prepare(self, around: Surroundings) -> Callable[[Path], None]:
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.tokenizer is None:
            made = Tokenizer.train(around.human.to_list(), self.vocabulary or 0)
        else:
            made = Tokenizer.load(checkpoint.folder_of(self.tokenizer, "tokenizer"))
        return lambda folder: made.save(folder, self.context)

    def save_assets(self, cohort: Any, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        cohort.tokenizer.save(folder, self.context)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from the cache; the arms of a study, one after the other, share what it remembers.

    A folder of the cache is named after all that the tokenizer depends on.
    """
    from ecosystem.families.language.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def require_keys(vocabulary: int, order: int) -> None:
    """Raise ValueError if the n-grams of this many tokens have no 64-bit numbers."""
    if vocabulary**order > KEYS:
        most = max(n for n in range(order) if vocabulary**n <= KEYS)
        raise ValueError(f"order = {order} is too high for a vocabulary of {vocabulary} tokens; give at most {most}")
