"""Families of neural language models: initial weights and checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.families import checkpoint, foundation, gguf
from ecosystem.families.base import BuildContext, Cohort, Family
from ecosystem.families.language import conversion
from ecosystem.families.training_spec import Foundation, Training
from ecosystem.input_files import expanded, is_folder
from ecosystem.spec import ScenarioParts
from ecosystem.types import Modality, Positive

if TYPE_CHECKING:
    import polars as pl

    from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
    from ecosystem.families.language.tokenizer import Tokenizer

FROM_SCRATCH = ("foundation", "random")


class LanguageFamily(Family):
    """Language models that start from a foundation, random weights, or a checkpoint (a folder or a Hub id).

    The first two need the fields in ``needed``, and a tokenizer: one trained on the web's initial human documents, or
    that of the checkpoint ``tokenizer``. A checkpoint brings its own fields and tokenizer.
    """

    modality: ClassVar[Modality] = "text"
    supports_prompts: ClassVar[bool] = True
    supports_watermark: ClassVar[bool] = True
    supports_rewriting: ClassVar[bool] = True
    supports_recovery: ClassVar[bool] = True
    needed: ClassVar[tuple[str, ...]]

    init: str = Field(
        "foundation",
        description="initial weights: foundation, random, a checkpoint folder, a GGUF file, smollm2, or a Hub id",
    )
    vocabulary: Positive | None = Field(None, description="size of the byte-level BPE trained from scratch, in tokens")
    context: Positive | None = Field(None, description="longest input in tokens; absent: the checkpoint's")
    tokenizer: str | None = Field(None, description="checkpoint to take the tokenizer from; absent: the model's own")
    training: Training = Field(Training(), description="settings of every fit")
    foundation: Foundation = Field(Foundation(), description="settings of the foundation's pre-training")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.context is not None and self.context < 2:
            raise ValueError("context = 1 leaves no room for text after the end-of-text token; give at least 2")
        if not self.from_scratch:
            for keyword in FROM_SCRATCH:  # a misspelt keyword would be looked up on the Hub
                if not checkpoint.is_local(self.init) and SequenceMatcher(None, self.init, keyword).ratio() > 0.8:
                    raise ValueError(
                        f'init = "{self.init}" is not a folder or a keyword; did you mean "{keyword}"? '
                        f'Give a folder of this name as "./{self.init}".'
                    )
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
        """Require prompts that leave room to write, and human documents if members start from scratch."""
        missing = missing_documents(path, scenario) if self.from_scratch else []
        return missing + too_long_prompts(self.context, path, scenario)

    @property
    def from_scratch(self) -> bool:
        """Whether members start from a foundation or random weights, not from a checkpoint."""
        return self.init in FROM_SCRATCH

    @property
    def starts_pretrained(self) -> bool:
        """Whether members start from a foundation or a checkpoint."""
        return self.init != "random"

    @property
    def starts_from_checkpoint(self) -> bool:
        """Whether members start from weights that were not trained in this world."""
        return not self.from_scratch

    @property
    def checkpoint_folder(self) -> Path | None:
        """The local folder or GGUF file in ``init``; None if members start from scratch, or there is none."""
        if not self.starts_from_checkpoint or not checkpoint.is_installed(self.init):
            return None
        folder = expanded(self.init)
        return gguf.find(self.init, "init") or (folder if is_folder(folder) else None)

    def beside(self, base: Path) -> Self:
        """Return the family with the paths of its checkpoints that are found only in ``base``, resolved there."""
        found = {
            "init": self.init if self.from_scratch else checkpoint.beside(self.init, base),
            "tokenizer": None if self.tokenizer is None else checkpoint.beside(self.tokenizer, base),
        }
        return self.model_copy(update=found)

    def check_files(self) -> None:
        """Raise DataError if the folder of ``init`` or ``tokenizer`` is missing, or that of ``init`` no checkpoint
        for the other fields.
        """
        checkpoint.check_folders({"init": None if self.from_scratch else self.init, "tokenizer": self.tokenizer})
        if not self.from_scratch and checkpoint.is_local(self.init) and checkpoint.is_installed(self.init):
            if gguf.find(self.init, "init") is None:
                folder = checkpoint.folder_of(self.init, "init")
                checkpoint.check_format(folder)
                checkpoint.read_config(folder)
            self._check_sizes()

    def _require_context(self, limit: int) -> None:
        """Raise DataError if the context exceeds the longest input of the checkpoint (0: unknown)."""
        if self.context is not None and 0 < limit < self.context:
            raise DataError(
                f'context = {self.context}, but the checkpoint "{self.init}" has only {limit}; lower context.'
            )

    def unused(self) -> list[str]:
        """Return a sentence if settings of a pre-training are given, but there is none."""
        note = f'foundation has no effect, since a model with init = "{self.init}" is not pre-trained'
        return [note] if self.init != "foundation" and self.foundation != Foundation() else []

    def downloads(self) -> dict[str, str]:
        """Return the Hub ids that the fields ``init`` and ``tokenizer`` name."""
        return checkpoint.hub_ids({"init": None if self.from_scratch else self.init, "tokenizer": self.tokenizer})

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M members; pre-train their foundation, if they have one, or read it from the cache.

        Raises DataError if there are no human documents to train a tokenizer on, or a checkpoint cannot be found.
        """
        from ecosystem.families.language.cohort import CohortSettings
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.from_scratch:
            foundation.require_documents(name, context.human)
            fingerprint = self.fingerprint(context)
            folder = foundation.obtain(context.cache, fingerprint, lambda: self._make_folder(context))
        else:
            folder = conversion.folder_of(self.init, "init", context.cache)
            checkpoint.check_format(folder)
            fingerprint = checkpoint.fingerprint(gguf.find(self.init, "init") or folder)
        longest = self._longest_input(folder)
        if self.from_scratch:
            tokenizer = Tokenizer.load(folder)
        else:
            own = self.tokenizer is None
            tokenizer = read_tokenizer(folder if own else self._tokenizer_folder(context), context.human)
        settings = CohortSettings(name, members, tokenizer, longest, fingerprint)
        cohort = self._open(folder, settings, context)
        if not self.from_scratch:
            tokenizer.check_padding(cohort.types, name)
        return cohort

    def _tokenizer_folder(self, context: BuildContext) -> Path:
        return conversion.folder_of(str(self.tokenizer), "tokenizer", context.cache)

    def _sizes(self) -> dict[str, int] | None:
        """Return the sizes of a model in a GGUF file (zeros if its package is missing); None for other checkpoints."""
        if not checkpoint.is_installed(self.init):
            return dict.fromkeys(("parameters", "context", "layers", "width", "inner", "vocabulary"), 0)
        file = gguf.find(self.init, "init")
        return None if file is None else gguf.sizes(file)

    def fingerprint(self, context: BuildContext) -> str:
        """Return the name of the cached folder with this family's foundation or tokenizer."""
        return foundation.fingerprint(
            foundation.relevant(self.plain()),
            context.human,
            seed=context.streams.seed,
            device=context.device,
            threads=self._threads(context),
            **({} if context.part_tokens is None else {"part_tokens": context.part_tokens}),
        )

    def _make_folder(self, context: BuildContext) -> Callable[[Path], None]:
        from ecosystem.families.language.tokenizer import Tokenizer

        if self.tokenizer is None:
            tokenizer = Tokenizer.train(context.human.to_list(), self.vocabulary or 0, context.progress)
        else:
            tokenizer = read_tokenizer(self._tokenizer_folder(context), context.human)
        return self._make_foundation(tokenizer, context)

    # Implemented by architectures.

    def _threads(self, context: BuildContext) -> int:
        """Return the thread count if the foundation's weights depend on it, else 0."""
        return context.threads

    @abstractmethod
    def _check_sizes(self) -> None:
        """Raise DataError if a field contradicts the local checkpoint, whose weights are not read."""

    @abstractmethod
    def _longest_input(self, folder: Path) -> int:
        """Return the longest input in tokens of the model in a checkpoint folder."""

    @abstractmethod
    def _make_foundation(self, tokenizer: Tokenizer, context: BuildContext) -> Callable[[Path], None]:
        """Pre-train the foundation, if there is one; return a function that writes a checkpoint folder."""

    @abstractmethod
    def _open(self, folder: Path, settings: CohortSettings, context: BuildContext) -> LanguageCohort:
        """Build the cohort from a checkpoint folder, which has no weights if members start from random ones."""

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write the weights of one member of a ``Cohort.state()`` beside its assets, for ``transformers`` to open."""
        checkpoint.write_weights(folder, {name: values[member] for name, values in state.items()})


def read_tokenizer(folder: Path, human: pl.Series) -> Tokenizer:
    """Read the tokenizer of a checkpoint folder and try it on two human documents.

    Raises DataError if there is none, or the documents do not survive it.
    """
    from ecosystem.families.language.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    tokenizer.check(human.head(20).to_list())
    return tokenizer


def missing_documents(path: str, scenario: ScenarioParts) -> list[str]:
    """Return a message if the web begins without the human documents that the model at ``path`` needs."""
    if scenario.web.initial is not None:
        return []
    return [f"{path}: learns from the documents that the web begins with, but there are none; set web.initial"]


def too_long_prompts(context: int | None, path: str, scenario: ScenarioParts) -> list[str]:
    """Return a message for every trainer whose prompt leaves no room in a context of ``context`` tokens.

    ``path`` is the path of the model; a ``context`` of None is unknown until the checkpoint is opened.
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
