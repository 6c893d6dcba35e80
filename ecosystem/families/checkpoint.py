"""Checkpoints in the format of ``transformers``: folders with config.json, weights and tokenizer files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError, nearest
from ecosystem.families import gguf
from ecosystem.input_files import digest_of, expanded, is_folder
from ecosystem.parsing import parse_json

if TYPE_CHECKING:
    from torch import Tensor

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_WEIGHTS = ("*.safetensors", "*.bin")
_FILE_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.bin"]


@contextmanager
def quietly() -> Iterator[Any]:
    """Import transformers, and suppress its progress bars and warnings."""
    import transformers
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def is_local(where: str) -> bool:
    """Whether ``where`` is on this machine: a folder or a GGUF file (it exists, or is not of the Hub's form: ``gpt2``,
    ``owner/name``), or a packaged model.
    """
    path = Path(where)
    return _HUB_NAME.fullmatch(where) is None or is_folder(path) or gguf.is_named(path) or where in gguf.PACKAGED


def is_installed(where: str) -> bool:
    """Whether ``where`` is not the name of a packaged model whose package is missing."""
    return where not in gguf.PACKAGED or is_folder(Path(where)) or gguf.is_installed(where)


def beside(where: str, base: Path) -> str:
    """Return the path of a checkpoint that is not in the current folder but in ``base``, else ``where``."""
    path = expanded(where)
    found = path.is_absolute() or _exists(path) or not _exists(base / path)
    return where if found else str((base / path).resolve())


def hub_ids(fields: Mapping[str, str | None]) -> dict[str, str]:
    """Return the fields whose checkpoint is looked up on the Hub."""
    return {key: where for key, where in fields.items() if where is not None and not is_local(where)}


def packaged_hint(where: str) -> str:
    """Return a question after the packaged model whose name is similar to the Hub id ``where``, or an empty string."""
    return nearest(where.lower(), gguf.PACKAGED)


def folder_of(where: str, key: str) -> Path:
    """Return the local folder of a checkpoint, downloading it from the Hub if ``where`` is a Hub id.

    ``key`` is the name of the field, for error messages. Raises DataError if the checkpoint cannot be found.
    """
    if is_local(where):
        folder = expanded(where)
        if not is_folder(folder):
            raise DataError(
                f'{key} = "{where}": {_not_a_folder(folder)}; give a checkpoint folder (with a config.json), a GGUF '
                "file or a Hub id. Relative paths start from the current folder or that of the scenario."
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
            f'{key} = "{where}"{packaged_hint(where)} could not be downloaded from the Hugging Face Hub '
            f"({reason.rstrip('.')}); check the name and the connection, or give the path of a local checkpoint "
            "folder."
        ) from error


def _exists(path: Path) -> bool:
    return is_folder(path) or (gguf.is_named(path) and path.is_file())


def _not_a_folder(path: Path) -> str:
    if os.path.exists(path):  # noqa: PTH110 (raises no errors)
        return "this is a file"
    return "no such file" if gguf.is_named(path) else "no such folder"


def check_folders(fields: Mapping[str, str | None]) -> None:
    """Raise DataError if a field names a local folder or file that is missing or cannot be read."""
    for key, where in fields.items():
        if where is not None and is_local(where):
            if not is_installed(where):
                continue  # a scenario may be checked without its packages
            if (file := gguf.find(where, key)) is not None:
                gguf.require_package(file)
                gguf.sizes(file)
                continue
            folder = folder_of(where, key)
            try:
                next(folder.iterdir(), None)
            except OSError as error:
                raise DataError(f'{key} = "{where}": cannot be read ({error.strerror}); give another folder.') from None


def check_format(folder: Path) -> None:
    """Raise DataError for a folder with only an adapter, which has to be merged first."""
    if any(path for pattern in _WEIGHTS for path in folder.glob(pattern) if not path.name.startswith("adapter_")):
        return
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder} contains an adapter (LoRA or similar), not a model; merge it into its base model with peft: "
            "AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload().save_pretrained(new_folder), and save "
            "the tokenizer of the base model there."
        )


def check_finite(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise DataError if a weight of a checkpoint is infinite or not a number."""
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wrong:
        raise DataError(
            f"{folder}: {len(wrong)} of {len(weights)} weights contain values that are not finite, such as "
            f'"{wrong[0]}"; the checkpoint is damaged, or its training diverged. Use an earlier one.'
        )


def fingerprint(place: Path) -> str:
    """Return 16 hexadecimal digits that change with any file of the checkpoint, a folder or a GGUF file."""
    if place.is_file():
        return digest_of(place)[:16]
    digest = hashlib.sha256()
    for path in sorted(place.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model"):
            digest.update(path.name.encode() + bytes.fromhex(digest_of(path)))
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

    stored: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return {name: tensor.clone() for name, tensor in stored.items()}  # they are views of the file, and change with it


def write_weights(folder: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write ``model.safetensors``: arrays by their checkpoint names, without a member axis."""
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(values) for name, values in weights.items()}
    save_file(arrays, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the ``config.json`` of a checkpoint folder."""
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
