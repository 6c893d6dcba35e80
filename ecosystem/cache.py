"""The cache folder: foundations, tokenizers and other results that are slow to compute but reproducible."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "ECOSYSTEM_CACHE"


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Return the cache folder: ``chosen``, else that of ``ECOSYSTEM_CACHE``, else the user's cache folder.

    The cache may be deleted at any time; its contents are rebuilt bit for bit.
    """
    folder = chosen_cache(chosen)
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("ecosystem", appauthor=False)
    return folder


def chosen_cache(chosen: str | Path | None = None) -> Path | None:
    """Return the absolute path of ``chosen``, else of the folder in ``ECOSYSTEM_CACHE``, else None."""
    folder = chosen or os.environ.get(CACHE_VARIABLE)
    return Path(folder).expanduser().absolute() if folder else None


def keep(path: Path, text: str) -> None:
    """Write a file of the cache folder atomically; do nothing if the folder cannot be written."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
