"""The ``causal_lm`` family: any causal language model of transformers, fully fine-tuned, one member after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.families.base import FAMILIES, Cohort, Surroundings, Workload
from ecosystem.families.language import checkpoint
from ecosystem.families.language.family import LanguageFamily
from ecosystem.families.language.gpt2.shape import read_config
from ecosystem.families.training_spec import Training
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.families.language.tokenizer import Tokenizer

# What architectures call their longest input, width and number of layers.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer")


@FAMILIES.register("causal_lm")
class CausalLm(LanguageFamily):
    """Any causal language model of transformers (OPT, Pythia, Llama, GPT-Neo ...).

    ``init`` says where members start: "foundation" (pre-trained on the web's initial human documents), "random", a
    local checkpoint folder, or a Hub id. The first two need ``architecture`` (transformers' model type, such as "opt",
    "llama" or "gpt_neox") and ``config`` (its sizes, by the names of its configuration class), and train a byte-level
    BPE of ``vocabulary`` tokens, unless ``tokenizer`` names a checkpoint to take it from. ``context`` is the longest
    input in tokens, by default the checkpoint's. Dropout is off, in training too.
    """

    needed: ClassVar[tuple[str, ...]] = ("architecture", "context")

    init: str = Field(description="foundation, random, a checkpoint folder, or a Hub id")
    architecture: str | None = Field(None, description="model type of transformers: opt, llama, gpt_neox …")
    config: dict[str, Any] = Field(default_factory=dict, description="sizes, as its configuration names them")
    training: Training = Field(Training(batch=8, learning_rate=5e-5), description="how every fit trains")

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if not self.from_scratch and (self.architecture is not None or self.config):
            raise ValueError(f'the checkpoint "{self.init}" brings its architecture and config; leave both out')
        return self

    def workload(self) -> Workload:
        """Return what a plan needs to know; parameters are estimated from width and layers (12 L d² + V d)."""
        config: Mapping[str, Any] = self.config
        if not self.from_scratch:
            if not checkpoint.is_local(self.init):
                return Workload(0, 0, 0)
            config = read_config(checkpoint.folder_of(self.init, "init"))
        width, layers, words = (
            next((config[key] for key in keys if isinstance(config.get(key), int)), 0)
            for keys in (_WIDTH, _LAYERS, ("vocab_size",))
        )
        parameters = 12 * layers * width**2 + (words or self.vocabulary or 0) * width
        return Workload(parameters, 2 * parameters, self.foundation.tokens if self.init == "foundation" else 0)

    def _found(self, tokenizer: Tokenizer, around: Surroundings) -> Callable[[Path], None]:
        from ecosystem.families.language.cohort import pretrain
        from ecosystem.families.language.huggingface_cohort import ModuleCohort, build, configuration

        context = self.context or 0
        sizes = {"max_position_embeddings": context, "vocab_size": tokenizer.size, **self.config}
        config = configuration(self.architecture or "", sizes, tokenizer.end)
        weights = None
        if self.init == "foundation":
            stream = Stream(around.streams.seed, "foundation/causal_lm")
            module = build(config, stream.child("initial"))
            recipe = self.foundation.training(self.training)
            cohort = ModuleCohort("foundation", 1, module, tokenizer, context, recipe, around, "")
            weights = pretrain(cohort, self.foundation.budget(), stream, around)

        def write(folder: Path) -> None:
            tokenizer.save(folder, context)
            config.save_pretrained(str(folder))
            if weights is not None:
                checkpoint.write_weights(folder, weights)

        return write

    def _open(
        self, folder: Path, tokenizer: Tokenizer, name: str, members: int, around: Surroundings, mark: str
    ) -> Cohort:
        from ecosystem.families.language.huggingface_cohort import ModuleCohort, build, load, read_configuration

        if self.init == "random":
            module = build(read_configuration(folder), around.streams.at(f"model/{name}/initial"))
        else:
            module = load(folder)
        return ModuleCohort(name, members, module, tokenizer, self._longest(folder), self.training, around, mark)

    def _longest(self, folder: Path) -> int:
        config = read_config(folder)
        found = next((config[key] for key in _CONTEXT if isinstance(config.get(key), int)), None)
        if self.context is None and found is None:
            raise DataError(f"{folder / 'config.json'} does not say how long an input may be; give context in tokens.")
        if self.context is not None and found is not None and self.context > found:
            raise DataError(f'context = {self.context}, but the checkpoint "{self.init}" goes only to {found}.')
        return int(self.context or found or 0)

    def save_assets(self, cohort: Any, folder: Path) -> None:
        """Write config.json and the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        cohort.tokenizer.save(folder, cohort.context)
        cohort.module.config.save_pretrained(str(folder))
