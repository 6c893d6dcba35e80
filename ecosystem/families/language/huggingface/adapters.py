"""Low-rank adapters (LoRA, Hu et al. 2022) through ``peft``: small matrices that are trained instead of a model.

The weight W of a linear layer becomes W + (alpha / rank) B A; only A and B are trained. B begins as zeros, so that an
untrained adapter changes nothing. Weights of adapters have the names of ``peft``'s own files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ecosystem.errors import DataError
from ecosystem.spec import ScenarioParts, Spec
from ecosystem.streams import Stream
from ecosystem.types import Positive

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."  # of peft's names


class Adapter(Spec):
    """Sizes of low-rank adapters and the layers that have one."""

    rank: Positive = Field(16, description="rank of the matrices")
    alpha: Annotated[float, Field(gt=0)] | None = Field(
        None, description="scale: the adapter's product is multiplied by alpha / rank; absent: twice the rank"
    )
    targets: list[str] = Field(
        ["all-linear"],
        min_length=1,
        description='names of the layers with an adapter, such as "q_proj"; all-linear: every linear layer but the '
        "output",
    )

    @property
    def scale(self) -> float:
        """The factor of the product of the matrices."""
        return 2.0 if self.alpha is None else self.alpha / self.rank

    def adapts(self, layer: str) -> bool:
        """Tell whether the linear layer of a name has an adapter, by the rule of ``peft``."""
        every = self.targets == ["all-linear"]
        return every or any(layer == target or layer.endswith(f".{target}") for target in self.targets)

    def require_rank(self, width: int) -> None:
        """Raise DataError if the rank exceeds the width of the model (0: unknown)."""
        if 0 < width < self.rank:
            raise DataError(
                f"adapter.rank = {self.rank}, but the model is only {width} wide, so that a larger rank can do no more "
                "than training all weights; lower rank, or remove adapter."
            )

    def require_targets(self, architecture: str, layers: Iterable[str]) -> None:
        """Raise DataError if a target is none of the layers of a model, by the last part of their names."""
        names = {layer.split(".")[-1] for layer in layers}
        unknown = [target for target in self.targets if target.split(".")[-1] not in names]
        if unknown and self.targets != ["all-linear"]:
            raise _no_layers(unknown, architecture, names)

    def configuration(self, base: str | None = None) -> Any:
        """Return the configuration for ``peft``; ``base`` is the folder of the base model."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            target_modules="all-linear" if self.targets == ["all-linear"] else self.targets,
            bias="none",
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
        )


def require_peft() -> None:
    """Raise DataError if the package ``peft`` is missing."""
    if find_spec("peft") is None:
        raise DataError('adapter: needs the package peft; install it with pip install "ecosystem[lora]".')


def add_adapter(module: Any, adapter: Adapter, stream: Stream) -> None:
    """Add an adapter to a module, in place; its A is drawn from a stream, and all else is frozen.

    Raises DataError if ``peft`` is missing, the rank too large, or a target no layer.
    """
    require_peft()
    import torch
    from peft import inject_adapter_in_model

    architecture = module.config.model_type
    layers = [name for name, part in module.named_modules() if getattr(getattr(part, "weight", None), "ndim", 0) == 2]
    adapter.require_rank(getattr(module.config, "hidden_size", 0))
    adapter.require_targets(architecture, layers)
    # peft draws from PyTorch's global generator, which is seeded from the stream and then restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.integer())
        try:
            inject_adapter_in_model(adapter.configuration(), module)
        except ValueError as error:
            raise _no_layers(adapter.targets, architecture, {name.split(".")[-1] for name in layers}) from error


def _no_layers(targets: list[str], architecture: str, names: Iterable[str]) -> DataError:
    return DataError(
        f"adapter.targets = {targets}: the {architecture} has no layers that can have an adapter by these names; it "
        f'has {", ".join(sorted(names)) or "none"}, and "all-linear", alone, is every linear layer but the output.'
    )


def trained_parameters(module: Any) -> dict[str, Any]:
    """Return the parameters of a module that are trained: those of its adapter under peft's names, or all."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not any(".lora_A." in name for name in parameters):
        return parameters
    return {PREFIX + name.replace(".default.", "."): p for name, p in parameters.items()}


def merged(module: Any, adapter: Adapter, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a module with those of an adapter added to them."""
    import torch
    from peft.tuners.lora import LoraLayer

    original = dict(module.named_parameters())
    add_adapter(module, adapter, Stream(0, "merged"))
    for name, parameter in trained_parameters(module).items():
        parameter.data = weights[name]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, LoraLayer):
                part.get_base_layer().weight.data += part.get_delta_weight("default")
    return {name: parameter.detach() for name, parameter in original.items()}


def problems_on_random(path: str, scenario: ScenarioParts) -> list[str]:
    """Return a message for every use of random weights, which the adapter of the model at ``path`` cannot train."""
    trainers = [name for name, trainer in scenario.trainers.items() if f"models.{trainer.model}" == path]
    said = "an adapter trains the weights of its checkpoint only"
    problems = [
        f'trainers.{name}.from: {said}; choose "foundation" or "previous"'
        for name in trainers
        if scenario.trainers[name].start == "scratch"
    ]
    downstream = scenario.measure.downstream
    if trainers and downstream is not None and downstream.tasks:
        problems.append(
            f"measure.downstream.tasks: {said}, not the random ones of the baseline; remove tasks (zero_shot is "
            f"measured), or {path}.adapter"
        )
    return problems


def write_adapter(
    folder: Path, adapter: Adapter, weights: Mapping[str, Tensor], base: str, *, transposed: bool = False
) -> None:
    """Write a folder that ``peft`` opens: the weights of an adapter and its configuration.

    ``transposed``: the weights of the base model are stored [in, out], as those of GPT-2.
    """
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    configuration = adapter.configuration(base).to_dict()
    configuration |= {"inference_mode": True, "fan_in_fan_out": transposed}
    for key, value in configuration.items():
        if isinstance(value, set):
            configuration[key] = sorted(value)
    (folder / "adapter_config.json").write_text(json.dumps(configuration, indent=2, sort_keys=True, default=str) + "\n")
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
