"""The ``gpt2`` family: GPT-2 models on an engine of our own, for many small trainers on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.families import checkpoint, foundation
from ecosystem.families.base import FAMILIES, Cohort, Family, Surroundings, Workload
from ecosystem.families.recipe import Foundation, Positive, Training
from ecosystem.families.shape import NARROW, Shape
from ecosystem.streams import Stream

_SIZES = ("n_layer", "n_embd", "n_head", "context")


@FAMILIES.register("gpt2")
class Gpt2(Family):
    """A GPT-2 of any size.

    ``init`` says where members start: "foundation" (pre-trained on the web's initial human documents), "random", a
    local checkpoint folder, or a Hub id. The first two need sizes and train a byte-level BPE of ``vocabulary`` tokens;
    a checkpoint brings sizes and tokenizer with it (sizes given beside it must agree with it, except ``context``, which
    may be shorter). ``tokenizer`` names another checkpoint to take the tokenizer from.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "text"

    init: str = Field("foundation", description="foundation, random, a checkpoint folder, or a Hub id")
    n_layer: Positive | None = Field(None, description="layers")
    n_embd: Positive | None = Field(None, description="width")
    n_head: Positive | None = Field(None, description="attention heads, a divisor of the width")
    vocabulary: Positive | None = Field(None, description="tokens of the byte-level BPE trained from scratch")
    context: Positive | None = Field(None, description="longest input in tokens, the first end-of-text token included")
    tokenizer: str | None = Field(None, description="checkpoint to take the tokenizer from; absent: its own")
    training: Training = Field(Training(), description="how every fit trains")
    foundation: Foundation = Field(Foundation(), description="how the foundation is pre-trained")

    @model_validator(mode="after")
    def _fits_together(self) -> Gpt2:
        if self.n_embd is not None and self.n_head is not None and self.n_embd % self.n_head:
            raise ValueError(f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}")
        if self.context is not None and self.context < 2:
            raise ValueError("context = 1 leaves no room for text after the end-of-text token; give at least 2")
        if not self._from_scratch:
            return self
        missing = [name for name in _SIZES if getattr(self, name) is None]
        if self.tokenizer is None and self.vocabulary is None:
            missing.append("vocabulary")
        if missing:
            raise ValueError(f'init = "{self.init}" needs {", ".join(missing)}; only a checkpoint brings its own sizes')
        if self.tokenizer is None and self.vocabulary is not None and self.vocabulary < 257:
            raise ValueError(
                f"vocabulary = {self.vocabulary} is too small: 256 bytes and the end of text are 257 tokens"
            )
        return self

    @property
    def _from_scratch(self) -> bool:
        return self.init in ("foundation", "random")

    def _shape(self, vocabulary: int) -> Shape:
        assert self.n_layer and self.n_embd and self.n_head and self.context
        return Shape(self.n_layer, self.n_embd, self.n_head, vocabulary, self.context, 4 * self.n_embd)

    def _fingerprint(self, around: Surroundings) -> str:
        # The thread count changes the numbers of a large model only; see engine.py.
        wide = around.device != "cpu" or self._shape(self.vocabulary or 0).count() > NARROW
        threads = around.threads if wide else 0
        return foundation.fingerprint(
            foundation.relevant(self.plain()),
            around.human,
            seed=around.streams.seed,
            device=around.device,
            threads=threads,
        )

    def workload(self) -> Workload:
        """Return what a plan needs to know; zeros where only a checkpoint that is not here can tell."""
        if self._from_scratch:
            shape = self._shape(self.vocabulary or 50257)
            pretrain = self.foundation.tokens if self.init == "foundation" else 0
            return Workload(shape.count(), shape.flops(), pretrain)
        if not checkpoint.is_local(self.init):
            return Workload(0, 0, 0)
        shape = Shape.read(checkpoint.folder_of(self.init, "init"))
        return Workload(shape.count(), shape.flops(self.context), 0)

    def is_prepared(self, around: Surroundings) -> bool:
        """Whether there is nothing to pre-train, or the cache already holds it."""
        return self.init != "foundation" or foundation.find(around.cache, self._fingerprint(around)) is not None

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M members; pre-trains the foundation, or takes it from the cache, if that is where they start.

        Raises DataError if there are no human documents to train a tokenizer on, or a checkpoint cannot be had.
        """
        from ecosystem.families.engine import Gpt2Cohort, draw
        from ecosystem.families.tokenizer import Tokenizer

        if self._from_scratch:
            foundation.require_documents(name, around.human)
            mark = self._fingerprint(around)
            folder = foundation.obtain(around.cache, mark, lambda: self._prepare(around))
        else:
            folder = checkpoint.folder_of(self.init, "init")
            mark = checkpoint.mark(folder)
        own = self.tokenizer is None or self._from_scratch
        tokenizer = Tokenizer.load(folder if own else checkpoint.folder_of(str(self.tokenizer), "tokenizer"))
        shape = Shape.read(folder)
        self._check(shape, tokenizer.size, folder)
        context = min(self.context or shape.context, shape.context)
        if self.init == "random":
            initial = draw(shape, around.streams.at(f"model/{name}/initial"))
        else:
            initial = checkpoint.read_gpt2(folder, shape)
        return Gpt2Cohort(name, members, shape, initial, tokenizer, context, self.training, around, mark)

    def _check(self, shape: Shape, tokens: int, folder: Path) -> None:
        if tokens > shape.vocabulary:
            raise DataError(
                f"the tokenizer has {tokens} tokens but the model in {folder} only {shape.vocabulary}; "
                "they do not belong together."
            )
        if self._from_scratch:
            return
        for key in ("n_layer", "n_embd", "n_head", "vocabulary"):
            given, found = getattr(self, key), getattr(shape, key)
            if given is not None and given != found:
                raise DataError(f'{key} = {given}, but the checkpoint "{self.init}" has {found}; leave {key} out.')
        if self.context is not None and self.context > shape.context:
            raise DataError(f'context = {self.context}, but the checkpoint "{self.init}" goes only to {shape.context}.')

    def _prepare(self, around: Surroundings) -> Callable[[Path], None]:
        """Train tokenizer and foundation; return what writes them as a checkpoint into a folder."""
        from ecosystem.families.cohort import pretrain
        from ecosystem.families.engine import Gpt2Cohort, draw
        from ecosystem.families.tokenizer import Tokenizer

        if self.tokenizer is None:
            tokenizer = Tokenizer.train(around.human.to_list(), self.vocabulary or 0)
            shape = self._shape(tokenizer.size)
        else:
            tokenizer = Tokenizer.load(checkpoint.folder_of(self.tokenizer, "tokenizer"))
            shape = self._shape(max(tokenizer.size, self.vocabulary or 0))
        weights = None
        if self.init == "foundation":
            # Not named after the model: two models with the same preset share one foundation.
            stream = Stream(around.streams.seed, "foundation/gpt2")
            initial = draw(shape, stream.child("initial"))
            recipe = self.foundation.training(self.training)
            cohort = Gpt2Cohort("foundation", 1, shape, initial, tokenizer, shape.context, recipe, around)
            weights = pretrain(cohort, self.foundation.budget(), stream, around)

        def write(folder: Path) -> None:
            tokenizer.save(folder, shape.context)
            checkpoint.write_config(folder, shape.config(tokenizer.end))
            if weights is not None:
                checkpoint.write_weights(folder, weights)

        return write

    def save_assets(self, cohort: Any, folder: Path) -> None:
        """Write config.json and the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        cohort.tokenizer.save(folder, cohort.shape.context)
        checkpoint.write_config(folder, cohort.shape.config(cohort.tokenizer.end))

    def save_checkpoint(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int, assets: Path) -> None:
        """Write one member of a ``Cohort.state()`` as a folder that ``transformers`` opens as a GPT2LMHeadModel."""
        checkpoint.copy_assets(assets, folder)
        checkpoint.write_weights(folder, {name: values[member] for name, values in state.items()})
