"""The ``causal_lm`` family: any causal language model of transformers, fully fine-tuned, one member at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.families import checkpoint
from ecosystem.families.base import FAMILIES, BuildContext, Workload
from ecosystem.families.checkpoint import read_config
from ecosystem.families.foundation import pretrain
from ecosystem.families.language.family import LanguageFamily
from ecosystem.families.training_spec import Training
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
    from ecosystem.families.language.tokenizer import Tokenizer

# Names of the longest input, the width and the number of layers in the configurations of different architectures.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer")


@FAMILIES.register("causal_lm")
class CausalLm(LanguageFamily):
    """Any causal language model of transformers (OPT, Pythia, Llama, GPT-Neo ...).

    ``init`` selects the initial weights: "foundation" (pre-trained on the web's initial human documents), "random", a
    local checkpoint folder, or a Hub id. The first two need ``architecture`` (transformers' model type, such as "opt",
    "llama" or "gpt_neox") and ``config`` (its sizes, by the names of its configuration class), and train a byte-level
    BPE of ``vocabulary`` tokens, unless ``tokenizer`` selects that of a checkpoint. ``context`` is the longest input in
    tokens, by default the checkpoint's. Dropout is off, during training too.
    """

    needed: ClassVar[tuple[str, ...]] = ("architecture", "context")

    init: str = Field(description="initial weights: foundation, random, a checkpoint folder, or a Hub id")
    architecture: str | None = Field(None, description="model type of transformers: opt, llama, gpt_neox, …")
    config: dict[str, Any] = Field(
        default_factory=dict, description="sizes, by the names of the architecture's configuration"
    )
    training: Training = Field(Training(batch=8, learning_rate=5e-5), description="settings of every fit")

    @model_validator(mode="after")
    def _checkpoint_brings_config(self) -> Self:
        if not self.from_scratch and (self.architecture is not None or self.config):
            raise ValueError(f'the checkpoint "{self.init}" has its own architecture and config; remove both')
        return self

    def workload(self) -> Workload:
        """Estimate the size of a member from its width and layers (12 L d² + V d parameters)."""
        config: Mapping[str, Any] = self.config
        if not self.from_scratch:
            if not checkpoint.is_local(self.init):
                return Workload(0, 0, 0)
            config = read_config(checkpoint.folder_of(self.init, "init"))
        width, layers, vocabulary = (
            next((config[key] for key in keys if isinstance(config.get(key), int)), 0)
            for keys in (_WIDTH, _LAYERS, ("vocab_size",))
        )
        parameters = 12 * layers * width**2 + (vocabulary or self.vocabulary or 0) * width
        return Workload(parameters, 2 * parameters, self.foundation.tokens if self.init == "foundation" else 0)

    def _longest_input(self, folder: Path) -> int:
        config = read_config(folder)
        limit = next((config[key] for key in _CONTEXT if isinstance(config.get(key), int)), None)
        if self.context is None and limit is None:
            raise DataError(f"{folder / 'config.json'} does not give the longest input; set context (in tokens).")
        if self.context is not None and limit is not None and self.context > limit:
            raise DataError(
                f'context = {self.context}, but the checkpoint "{self.init}" has only {limit}; lower context.'
            )
        return int(self.context or limit or 0)

    def _make_foundation(self, tokenizer: Tokenizer, context: BuildContext) -> Callable[[Path], None]:
        from ecosystem.families.language.cohort import CohortSettings
        from ecosystem.families.language.huggingface.cohort import ModuleCohort
        from ecosystem.families.language.huggingface.modules import build, configuration

        longest = self.context or 0
        sizes = {"vocab_size": tokenizer.size, **self.config}
        config = configuration(self.architecture or "", sizes, tokenizer.end, longest)
        weights = None
        if self.init == "foundation":
            stream = Stream(context.streams.seed, "foundation/causal_lm")
            module = build(config, stream.child("initial"))
            settings = self._within_positions(CohortSettings("foundation", 1, tokenizer, longest), module)
            cohort = ModuleCohort(settings, module, self.foundation.training(self.training), context)
            weights = pretrain(cohort, self.foundation.budget(), stream, context)

        def write(folder: Path) -> None:
            tokenizer.save(folder, longest)
            config.save_pretrained(str(folder))
            if weights is not None:
                checkpoint.write_weights(folder, weights)

        return write

    def _open(self, folder: Path, settings: CohortSettings, context: BuildContext) -> LanguageCohort:
        from ecosystem.families.language.huggingface.cohort import ModuleCohort
        from ecosystem.families.language.huggingface.modules import build, load, read_configuration

        if self.init == "random":
            module = build(read_configuration(folder), context.streams.at(f"model/{settings.name}/initial"))
        else:
            module = load(folder)
        return ModuleCohort(self._within_positions(settings, module), module, self.training, context)

    def _within_positions(self, settings: CohortSettings, module: Any) -> CohortSettings:
        """Return the settings with a context for which the module has positions.

        Raises DataError if the scenario sets a longer one.
        """
        from ecosystem.families.language.huggingface.modules import longest_input

        limit = longest_input(module)
        if limit is None or settings.context <= limit:
            return settings
        if self.context is not None:
            raise DataError(
                f"context = {self.context}, but the {module.config.model_type} has positions for only {limit} tokens; "
                "lower context, or raise max_position_embeddings of a model without a checkpoint."
            )
        return replace(settings, context=limit)
