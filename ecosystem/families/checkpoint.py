"""Checkpoints in the format of ``transformers``: folders with config.json, weights and tokenizer files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.parsing import parse_json

if TYPE_CHECKING:
    from torch import Tensor

_FILE_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.bin"]


def is_local(where: str) -> bool:
    """Whether ``where`` is a folder (it exists or looks like a path) and not a Hub id (``gpt2``, ``owner/name``)."""
    looks_local = where.startswith((".", "/", "~")) or "\\" in where or where.count("/") > 1
    return looks_local or Path(where).is_dir()


def folder_of(where: str, key: str) -> Path:
    """Return the local folder of a checkpoint, downloading it from the Hub if ``where`` is a Hub id.

    ``key`` is the name of the field, for error messages. Raises DataError if the checkpoint cannot be found.
    """
    if is_local(where):
        folder = Path(where).expanduser()
        if not folder.is_dir():
            raise DataError(
                f'{key} = "{where}": no such folder; give a checkpoint folder (with a config.json) or a Hub id.'
            )
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(where, allow_patterns=_FILE_PATTERNS, ignore_patterns=["*/*", "flax*", "tf_*", "rust*"])
        )
    except Exception as error:  # offline, not found, gated, …: many types, one remedy
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f'{key} = "{where}" could not be downloaded from the Hugging Face Hub ({reason.rstrip(".")}); check the '
            "name and the connection, or give the path of a local checkpoint folder."
        ) from error


def fingerprint(folder: Path) -> str:
    """Return 16 hexadecimal digits that change with any file of the checkpoint."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_config(folder: Path) -> Mapping[str, Any]:
    """Read the ``config.json`` of a checkpoint folder; raise DataError if it is missing or malformed."""
    path = folder / "config.json"
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; a checkpoint folder needs a config.json beside its weights.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(config, dict):
        raise DataError(f"{path} is not a JSON table.")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read weights written by :func:`write_weights`."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return weights


def write_weights(folder: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write ``model.safetensors``: arrays by their checkpoint names, without a member axis."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(values) for name, values in weights.items()}
    save_file(arrays, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the ``config.json`` of a checkpoint folder."""
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
