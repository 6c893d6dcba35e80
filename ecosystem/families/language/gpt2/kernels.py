"""The compiled kernels: the C++ sources in ``native``, compiled at first use and kept in the cache folder.

Compiling takes several seconds. Wherever it is not possible (no compiler, another processor than x86-64, a PyTorch
without MKL), PyTorch computes the same numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock, Thread

import torch
from torch import Tensor

from ecosystem.cache import cache_folder, keep
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.input_files import digest_of

_INSTRUCTIONS = {
    "AVX2": ["-mavx2", "-mfma", "-mf16c"],
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}
"""Options of the compiler for the instructions that PyTorch uses on this processor."""
LANES = 16
"""Floats of the longest vector."""
_building = Lock()


def fit(weights: Mapping[str, Tensor], shape: Shape) -> bool:
    """Tell whether the kernels are made for weights of this kind and shape."""
    # PyTorch computes GELU in pairs of vectors, and the rest with another tangent.
    widths = (shape.n_embd // shape.n_head) % LANES == 0 and shape.n_inner % (2 * LANES) == 0
    return widths and all(
        w.dtype == torch.float32 and w.device.type == "cpu" and w.is_contiguous() for w in weights.values()
    )


def prepare() -> None:
    """Begin to compile the kernels in a thread, if they are not in the cache, before they are needed."""
    Thread(target=library, name="compiling kernels", daemon=True).start()


def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, compiling them if necessary; None if that is not possible here."""
    with _building:  # several worker threads may ask at once
        return _load()


@lru_cache(maxsize=1)
def _load() -> ctypes.CDLL | None:
    instructions = torch.backends.cpu.get_cpu_capability()
    try:
        name, *options = shlex.split(os.environ.get("CXX") or "") or ["c++"]
    except ValueError:  # a quotation mark without its pair
        return None
    compiler = shutil.which(name)
    if compiler is None or instructions not in _INSTRUCTIONS or platform.system() != "Linux":
        return None
    try:
        return ctypes.CDLL(str(_build([compiler, *options], instructions)))
    except (OSError, subprocess.CalledProcessError):
        return None


def _build(compiler: list[str], instructions: str) -> Path:
    """Compile the sources unless that was done before; return the library."""
    sources = Path(__file__).parent / "native"
    objects, link = _commands(compiler, instructions, sources)
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    contents = [path.read_bytes() for path in sorted(sources.iterdir()) if path.suffix in (".cpp", ".h")]
    key = hashlib.sha256(b"\0".join([*contents, repr((objects, link)).encode(), torch.__version__.encode(), version]))
    path = cache_folder() / "native" / f"gpt2-{key.hexdigest()[:16]}.so"
    # A damaged library would end the process when it is loaded.
    known = path.with_suffix(".sha256")
    if not (path.is_file() and known.is_file() and known.read_text() == digest_of(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:

            def run(command: list[str]) -> None:
                subprocess.run(command, cwd=folder, capture_output=True, check=True)

            with ThreadPoolExecutor(len(objects)) as pool:
                list(pool.map(run, objects))
            run(link)
            made = Path(folder) / "gpt2.so"
            digest = digest_of(made)
            made.replace(path)
            keep(known, digest)
    return path


def _commands(compiler: list[str], instructions: str, sources: Path) -> tuple[list[list[str]], list[str]]:
    """Return the commands that compile the sources, and the command that links them."""
    package = Path(torch.__file__).parent
    common = [*compiler, "-O3", "-std=c++20", "-fPIC", "-fno-math-errno", "-w", f"-I{package / 'include'}"]

    def compile_one(name: str, level: str, contraction: str) -> list[str]:
        capability = [f"-DCPU_CAPABILITY={level}", f"-DCPU_CAPABILITY_{level}"]
        options = [*_INSTRUCTIONS[level], *capability, f"-ffp-contract={contraction}"]
        return [*common, *options, "-c", str(sources / f"{name}.cpp"), "-o", f"{name}.o"]

    objects = [
        compile_one("layer_norm", "AVX2", "fast"),
        compile_one("layer_norm_backward", "AVX2", "off"),
        compile_one("gpt2", instructions, "off"),
    ]
    link = [*compiler, "-shared", *(command[-1] for command in objects), "-o", "gpt2.so"]
    return objects, [*link, f"-L{package / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{package / 'lib'}"]
