"""Modules of transformers, built from configurations and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ecosystem.errors import DataError, nearest
from ecosystem.families import checkpoint
from ecosystem.families.checkpoint import quietly
from ecosystem.streams import Stream


def configuration(architecture: str, sizes: Mapping[str, Any], end: int, context: int) -> Any:
    """Return the configuration of a new model with ``context`` positions, unless it needs none or ``sizes`` has others.

    Raises DataError for an unknown architecture or invalid sizes.
    """
    with quietly() as transformers:
        architectures = transformers.models.auto.configuration_auto.CONFIG_MAPPING
        if architecture not in architectures:
            raise DataError(
                f'transformers has no architecture "{architecture}"{nearest(architecture, architectures)}; '
                "give a model type such as opt, llama or gpt_neox."
            )
        empty = architectures[architecture]()
        names = {*empty.to_dict(), *empty.attribute_map}
        for name in sizes:  # transformers ignores unknown names, and might build billions of parameters by default
            if name not in names:
                raise DataError(f'config: {architecture} has no "{name}"{nearest(name, names)}.')
        defaults = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}
        if "max_position_embeddings" in names:
            defaults["max_position_embeddings"] = context
        try:
            config = transformers.AutoConfig.for_model(architecture, **{**defaults, **sizes})
            config.architectures = [type(build(config, Stream(0, "check"))).__name__]
        except Exception as error:  # configurations and model classes raise many types
            raise DataError(
                f"config: {architecture} cannot be built with these sizes: {_first_line(error)}."
            ) from error
        return config


def read_configuration(folder: Path) -> Any:
    """Return the configuration in a checkpoint folder."""
    with quietly() as transformers:
        return transformers.AutoConfig.from_pretrained(str(folder))


def build(config: Any, stream: Stream) -> Any:
    """Build the model of a configuration in float32, with its architecture's own random initialisation."""
    # transformers draws from PyTorch's global generator, which is seeded from the stream and then restored.
    with quietly() as transformers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.integer())
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def load(folder: Path) -> Any:
    """Load the model of a checkpoint folder in float32; raise DataError if it is incomplete."""
    with quietly() as transformers:
        try:
            module, report = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises many types, with one remedy
            raise DataError(f"{folder} cannot be opened as a causal language model: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise DataError(f'{folder} lacks {len(missing)} weights of its model, such as "{missing[0]}".')
    checkpoint.check_finite(folder, dict(module.named_parameters()))
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()  # it is a view of the file, and changes with it
    return module.eval()


def longest_input(module: Any) -> int | None:
    """Return the number of tokens for which a module has learned positions; None if it has no table of them."""
    tables = [
        # The first positions of some tables are unused: those up to the padding's (RoBERTa), or an offset (OPT).
        table.num_embeddings - (getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1)
        for name, table in module.named_modules()
        if isinstance(table, torch.nn.Embedding) and ("position" in name or name.endswith("wpe"))
    ]
    return min(tables, default=None)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
