"""What every family of language models shares: where its members start from, and what a checkpoint needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.families import foundation
from ecosystem.families.base import Cohort, Family, Surroundings, too_long_prompts
from ecosystem.families.language import checkpoint
from ecosystem.families.training_spec import Foundation, Positive, Training
from ecosystem.spec import ScenarioParts

if TYPE_CHECKING:
    from ecosystem.families.language.tokenizer import Tokenizer

FROM_SCRATCH = ("foundation", "random")


class LanguageFamily(Family):
    """Language models that start from a foundation, at random, or from a checkpoint (a folder or a Hub id).

    The first two train a tokenizer on the web's initial human documents, unless ``tokenizer`` names a checkpoint to
    take it from, and need the fields in ``needed``; a checkpoint brings its own.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "text"
    tunable: ClassVar[bool] = True
    marks: ClassVar[bool] = True
    needed: ClassVar[tuple[str, ...]]

    init: str = Field("foundation", description="foundation, random, a checkpoint folder, or a Hub id")
    vocabulary: Positive | None = Field(None, description="tokens of the byte-level BPE trained from scratch")
    context: Positive | None = Field(None, description="longest input in tokens; absent: the checkpoint's")
    tokenizer: str | None = Field(None, description="checkpoint to take the tokenizer from; absent: its own")
    training: Training = Field(Training(), description="how every fit trains")
    foundation: Foundation = Field(Foundation(), description="how the foundation is pre-trained")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.context is not None and self.context < 2:
            raise ValueError("context = 1 leaves no room for text after the end-of-text token; give at least 2")
        if not self.from_scratch:
            for word in FROM_SCRATCH:  # a slip of the pen would be sought on the Hub
                if not checkpoint.is_local(self.init) and SequenceMatcher(None, self.init, word).ratio() > 0.8:
                    raise ValueError(f'init = "{self.init}" is neither a folder nor a word known here; say "{word}"')
            return self
        missing = [name for name in self.needed if getattr(self, name) is None]
        if self.tokenizer is None and self.vocabulary is None:
            missing.append("vocabulary")
        if missing:
            raise ValueError(f'init = "{self.init}" needs {", ".join(missing)}; only a checkpoint brings its own')
        if self.tokenizer is None and self.vocabulary is not None and self.vocabulary < 257:
            raise ValueError(f"vocabulary = {self.vocabulary} is too small: 256 bytes and the end of text make 257")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require prompts that leave room to write."""
        return too_long_prompts(self.context, path, scenario)

    @property
    def from_scratch(self) -> bool:
        """Whether members start from what is made here and not from a checkpoint."""
        return self.init in FROM_SCRATCH

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M members; pre-trains the foundation, or takes it from the cache, if that is where they start.

        Raises DataError if there are no human documents to train a tokenizer on, or a checkpoint cannot be had.
        """
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.from_scratch:
            foundation.require_documents(name, around.human)
            mark = self.fingerprint(around)
            folder = foundation.obtain(around.cache, mark, lambda: self._prepare(around))
        else:
            folder = checkpoint.folder_of(self.init, "init")
            mark = checkpoint.mark(folder)
        own = self.tokenizer is None or self.from_scratch
        tokenizer = Tokenizer.load(folder if own else checkpoint.folder_of(str(self.tokenizer), "tokenizer"))
        return self._open(folder, tokenizer, name, members, around, mark)

    def fingerprint(self, around: Surroundings) -> str:
        """Return the name of this family's foundation (or tokenizer) in the cache."""
        return foundation.fingerprint(
            foundation.relevant(self.plain()),
            around.human,
            seed=around.streams.seed,
            device=around.device,
            threads=self._threads(around),
        )

    def _prepare(self, around: Surroundings) -> Callable[[Path], None]:
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.tokenizer is None:
            tokenizer = Tokenizer.train(around.human.to_list(), self.vocabulary or 0)
        else:
            tokenizer = Tokenizer.load(checkpoint.folder_of(self.tokenizer, "tokenizer"))
        return self._found(tokenizer, around)

    # What an architecture brings.

    def _threads(self, around: Surroundings) -> int:
        """Return the thread count if the foundation's numbers depend on it, else 0."""
        return around.threads

    @abstractmethod
    def _found(self, tokenizer: Tokenizer, around: Surroundings) -> Callable[[Path], None]:
        """Pre-train the foundation, if there is to be one; return what writes all of it as a checkpoint folder."""

    @abstractmethod
    def _open(
        self, folder: Path, tokenizer: Tokenizer, name: str, members: int, around: Surroundings, mark: str
    ) -> Cohort:
        """Build the cohort from a checkpoint folder (without weights if members start at random)."""

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write one member of a ``Cohort.state()`` beside its assets, as ``transformers`` reads it."""
        checkpoint.write_weights(folder, {name: values[member] for name, values in state.items()})
