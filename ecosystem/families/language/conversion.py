"""Checkpoint folders of every sort of checkpoint; a GGUF file becomes one, once, in the cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path

from ecosystem.errors import DataError
from ecosystem.families import checkpoint, foundation, gguf
from ecosystem.families.checkpoint import quietly
from ecosystem.families.tensor_files import encoded


def folder_of(where: str, key: str, cache: Path) -> Path:
    """Return the folder of a checkpoint: a local one, a download, or the conversion of a GGUF file in ``cache``.

    ``key`` is the name of the field. Raises DataError if the checkpoint cannot be found or converted.
    """
    file = gguf.find(where, key)
    if file is None:
        return checkpoint.folder_of(where, key)
    gguf.require_package(file)
    # The library decides on the numbers of the weights and on the form of the tokenizer.
    name = f"gguf-{checkpoint.fingerprint(file)}-{version('transformers')}"
    return foundation.obtain(cache, name, lambda: _convert(file))


def _convert(file: Path) -> Callable[[Path], None]:
    """Read a GGUF file with transformers, in float32; return a function that writes a checkpoint folder."""
    with quietly() as transformers, redirect_stderr(StringIO()):  # which has a progress bar all the same
        import torch

        given = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        try:
            module = transformers.AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(**given)
        except Exception as error:  # transformers raises many types, for architectures and quantisations it cannot read
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{file} cannot be read by transformers ({reason}); give another file.") from error
    weights = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    module.config.architectures = [type(module).__name__]
    if hasattr(module.config, "quantization_config"):  # the weights are not quantised any more
        del module.config.quantization_config

    def write(folder: Path) -> None:
        module.config.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        with (folder / "model.safetensors").open("wb") as out:
            out.writelines(encoded(weights, metadata={"format": "pt"}))

    return write
