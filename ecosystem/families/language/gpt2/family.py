"""The ``gpt2`` family: this project's own implementation of GPT-2, for many small trainers on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.cache import cache_folder
from ecosystem.errors import DataError
from ecosystem.families import checkpoint, gguf
from ecosystem.families.base import FAMILIES, BuildContext, Workload
from ecosystem.families.footprint import Footprint
from ecosystem.families.foundation import pretrain
from ecosystem.families.language import conversion
from ecosystem.families.language.family import LanguageFamily
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.language.huggingface.adapters import Adapter, problems_on_random, require_peft, write_adapter
from ecosystem.input_files import expanded
from ecosystem.spec import ScenarioParts
from ecosystem.streams import Stream
from ecosystem.types import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
    from ecosystem.families.language.tokenizer import Tokenizer


@FAMILIES.register("gpt2")
class Gpt2(LanguageFamily):
    """A GPT-2 of any size (Radford et al. 2019).

    ``init`` selects the initial weights: "foundation" (pre-trained on the web's initial human documents), "random", a
    local checkpoint folder or GGUF file, or a Hub id. The first two need sizes and train a byte-level BPE of
    ``vocabulary`` tokens. A checkpoint has its own sizes and tokenizer; fields for sizes must agree with it, except
    that ``context`` may be shorter. ``tokenizer`` selects the tokenizer of another checkpoint. With an ``adapter``, all
    members share the checkpoint's weights, and only low-rank matrices are trained, stored and sent.
    """

    needed: ClassVar[tuple[str, ...]] = ("n_layer", "n_embd", "n_head", "context")

    n_layer: Positive | None = Field(None, description="number of layers")
    n_embd: Positive | None = Field(None, description="width of the embeddings and layers")
    n_head: Positive | None = Field(None, description="number of attention heads, a divisor of the width")
    adapter: Adapter | None = Field(
        None, description="low-rank adapters (LoRA) that are trained instead of the weights; absent: all weights are"
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.n_embd is not None and self.n_head is not None and self.n_embd % self.n_head:
            raise ValueError(f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}")
        return self

    @model_validator(mode="after")
    def _adaptable(self) -> Self:
        if self.adapter is None:
            return self
        if self.from_scratch:
            raise ValueError(f'adapter: adapts a checkpoint, but init = "{self.init}"; remove it, or give a checkpoint')
        for target in self.adapter.targets if self.adapter.targets != ["all-linear"] else []:
            if target.split(".")[-1] not in {name.split(".")[-1] for name in Shape.LINEAR}:
                raise ValueError(
                    f'adapter.targets: a GPT-2 has no linear layer "{target}"; it has {", ".join(Shape.LINEAR)} '
                    '(c_proj is both of that name), and "all-linear", alone, is all of them'
                )
        return self

    @property
    def averages_parameters(self) -> bool:
        """Whether it has no adapter: the product of mean matrices is not the mean of their products."""
        return self.adapter is None

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Refuse adapters on random weights, besides what every language model refuses."""
        return super().problems(path, scenario) + ([] if self.adapter is None else problems_on_random(path, scenario))

    def _shape(self, vocabulary: int) -> Shape:
        assert self.n_layer and self.n_embd and self.n_head and self.context
        return Shape(self.n_layer, self.n_embd, self.n_head, vocabulary, self.context, 4 * self.n_embd)

    def _threads(self, context: BuildContext) -> int:
        # The thread count changes the numbers of large models only; see cohort.py.
        depends = context.device != "cpu" or self._shape(self.vocabulary or 0).count() > NARROW
        return context.threads if depends else 0

    def prepare(self, device: str) -> None:
        """Begin to compile kernels, if the members may compute with them."""
        if device == "cpu" and 0 < self.workload().parameters <= NARROW:
            from ecosystem.families.language.gpt2 import kernels

            kernels.prepare()

    def workload(self) -> Workload:
        """Return the size of a member; zeros for a checkpoint that has not been downloaded."""
        if self.from_scratch:
            shape = self._shape(self.vocabulary or 50257)
            tokens = self.foundation.tokens if self.init == "foundation" else 0
            return Workload(shape.count(), shape.flops(), tokens)
        if not checkpoint.is_local(self.init):
            return Workload(0, 0, 0)
        if (sizes := self._sizes()) is not None:
            return Workload(sizes["parameters"], 2 * sizes["parameters"], 0)
        shape = Shape.read(checkpoint.folder_of(self.init, "init"))
        return Workload(shape.count(), shape.flops(self.context), 0)

    def footprint(self) -> Footprint:
        """Return the sizes of a member; zeros for a checkpoint that has not been downloaded."""
        if self.from_scratch:
            shape = self._shape(self.vocabulary or 50257)
        elif checkpoint.is_local(self.init) and self._sizes() is None:
            shape = Shape.read(checkpoint.folder_of(self.init, "init"))
        else:
            return Footprint()
        layers = {} if self.adapter is None else shape.linear_layers()
        adapted = sum(sum(size) for name, size in layers.items() if self.adapter and self.adapter.adapts(name))
        adapted *= 0 if self.adapter is None else self.adapter.rank
        return Footprint(
            own=adapted or shape.count(),
            shared=shape.count() if adapted else 0,
            shared_copies=2,
            activations=17 * shape.n_layer * shape.n_embd,
            width=0 if adapted else shape.n_embd,
            vocabulary=shape.vocabulary,
            context=min(self.context or shape.context, shape.context),
            batch=self.training.batch,
            cached=2 * shape.n_layer * shape.n_embd,
            parallel=shape.count() <= NARROW,
        )

    def _longest_input(self, folder: Path) -> int:
        shape = Shape.read(folder)
        return min(self.context or shape.context, shape.context)

    def _make_foundation(self, tokenizer: Tokenizer, context: BuildContext) -> Callable[[Path], None]:
        from ecosystem.families.language.cohort import CohortSettings
        from ecosystem.families.language.gpt2.cohort import Gpt2Cohort, draw

        vocabulary = tokenizer.size if self.tokenizer is None else max(tokenizer.size, self.vocabulary or 0)
        shape = self._shape(vocabulary)
        weights = None
        if self.init == "foundation":
            # The stream does not contain the model's name, so models with the same preset share a foundation.
            stream = Stream(context.streams.seed, "foundation/gpt2")
            initial = draw(shape, stream.child("initial"))
            settings = CohortSettings("foundation", 1, tokenizer, shape.context)
            cohort = Gpt2Cohort(settings, shape, initial, self.foundation.training(self.training), context)
            weights = pretrain(cohort, self.foundation.budget(), stream, context)

        def write(folder: Path) -> None:
            tokenizer.save(folder, shape.context)
            checkpoint.write_config(folder, shape.config(tokenizer.end))
            if weights is not None:
                checkpoint.write_weights(folder, weights)

        return write

    def _open(self, folder: Path, settings: CohortSettings, context: BuildContext) -> LanguageCohort:
        from ecosystem.families.language.gpt2.cohort import Gpt2Cohort, draw
        from ecosystem.families.language.gpt2.weights import read_weights

        shape = Shape.read(folder)
        self._check(shape, settings.tokenizer.size, folder)

        def initial() -> dict[str, Tensor]:
            if self.init == "random":
                return draw(shape, context.streams.at(f"model/{settings.name}/initial"))
            return read_weights(folder, shape)

        weights = initial()
        if self.init != "random":
            checkpoint.check_finite(folder, weights)
        return Gpt2Cohort(settings, shape, weights, self.training, context, initial, self.adapter)

    def save_weights(self, folder: Path, state: Mapping[str, NDArray[Any]], member: int) -> None:
        """Write one member's weights for ``transformers``; those of an adapter also for ``peft``, in ``adapter/``."""
        if self.adapter is None:
            return super().save_weights(folder, state, member)
        import torch

        from ecosystem.families.language.gpt2.low_rank import LowRank
        from ecosystem.families.language.gpt2.weights import read_weights

        require_peft()
        base = conversion.folder_of(self.init, "init", cache_folder())
        shape = Shape.read(base)
        weights = {name: torch.from_numpy(values[member]) for name, values in state.items()}
        write_adapter(folder / "adapter", self.adapter, weights, str(base.resolve()), transposed=True)
        whole = LowRank(self.adapter, shape, read_weights(base, shape)).merged(weights)
        checkpoint.write_weights(folder, {name: tensor.numpy() for name, tensor in whole.items()})
        return None

    def _check_sizes(self) -> None:
        file = gguf.find(self.init, "init") if checkpoint.is_installed(self.init) else None
        if file is not None and (kind := gguf.architecture(file)) != "gpt2":
            raise DataError(
                f'init = "{self.init}" is a model of type "{kind}", not "gpt2"; use kind = "causal_lm", which supports '
                "any causal language model."
            )
        found = self._sizes()
        if found is None:
            sizes = vars(Shape.read(expanded(self.init)))
        else:
            sizes = {"n_layer": found["layers"], "n_embd": found["width"], **found}
        self._require_sizes(sizes)
        if self.adapter is not None:
            self.adapter.require_rank(sizes["n_embd"])

    def _require_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise DataError if a field contradicts these sizes of the checkpoint (0: unknown)."""
        for key in ("n_layer", "n_embd", "n_head", "vocabulary"):
            value, stored = getattr(self, key), sizes.get(key)
            if value is not None and stored and value != stored:
                raise DataError(f'{key} = {value}, but the checkpoint "{self.init}" has {stored}; remove {key}.')
        self._require_context(sizes["context"])

    def _check(self, shape: Shape, tokens: int, folder: Path) -> None:
        if tokens > shape.vocabulary:
            raise DataError(
                f"the tokenizer has {tokens} tokens but the model in {folder} only {shape.vocabulary}; "
                "they do not belong together."
            )
        if not self.from_scratch:
            self._require_sizes(vars(shape))
