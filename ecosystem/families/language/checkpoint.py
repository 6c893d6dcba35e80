"""Checkpoints as ``transformers`` writes and reads them: folders with config.json, weights and tokenizer files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.families.language.gpt2.shape import Shape

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.bin"]


def is_local(where: str) -> bool:
    """Tell a folder (existing, or written like a path) from a Hub id such as ``gpt2`` or ``owner/name``."""
    looks_local = where.startswith((".", "/", "~")) or "\\" in where or where.count("/") > 1
    return looks_local or Path(where).is_dir()


def folder_of(where: str, key: str) -> Path:
    """Return the local folder of a checkpoint, downloading it from the Hub if ``where`` is a Hub id.

    ``key`` is the field that named it, for the message. Raises DataError if it is not there or cannot be had.
    """
    if is_local(where):
        folder = Path(where).expanduser()
        if not folder.is_dir():
            raise DataError(
                f'{key} = "{where}" is no folder; give a checkpoint folder (with a config.json) or a Hub id.'
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=_WANTED, ignore_patterns=["*/*", "flax*", "tf_*", "rust*"]))
    except Exception as error:  # the Hub's client raises many kinds; offline, not found, gated: the remedy is one
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f'{key} = "{where}" could not be had from the Hugging Face Hub ({reason.rstrip(".")}); check the name and '
            "the connection, or download it elsewhere and give the path of the local checkpoint folder instead."
        ) from error


def mark(folder: Path) -> str:
    """Return 16 hexadecimal digits that change whenever a file of the checkpoint does."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_gpt2(folder: Path, shape: Shape) -> dict[str, Any]:
    """Read the weights of a GPT-2 checkpoint as tensors under the names of ``GPT2LMHeadModel``, in float32.

    Accepts one or several safetensors files or a ``pytorch_model.bin``, with or without the ``transformer.`` prefix
    (the Hub's oldest files lack it). Raises DataError for a missing, misshapen or unreadable weight.
    """
    import torch
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise DataError(f"{folder} holds no weights; a checkpoint has a model.safetensors beside its config.json.")
    for path in files:
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        except Exception as error:  # safetensors and torch raise many kinds for a file that is cut off or altered
            raise DataError(f"{path} cannot be read as weights ({error}); write or download it again.") from error
        found |= {name if name.startswith("transformer.") else f"transformer.{name}": t for name, t in tensors.items()}
    weights = {}
    for name, size in shape.parameters().items():
        if name not in found:
            raise DataError(
                f'{folder} lacks the weight "{name}"; it does not hold the GPT-2 its config.json describes.'
            )
        if tuple(found[name].shape) != size:
            raise DataError(f'the weight "{name}" in {folder} has shape {tuple(found[name].shape)}, not {size}.')
        weights[name] = found[name].float()
    return weights


def write_weights(folder: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write ``model.safetensors``; arrays under their checkpoint names, without a member axis."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(values) for name, values in weights.items()}
    save_file(arrays, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json``."""
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
