"""Where results that take long to make and can be made again are kept: foundations, tokenizers, the text of Python."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "ECOSYSTEM_CACHE"


def cache_folder(chosen: str | Path | None = None) -> Path:
    """Return the cache folder: the one chosen, else that of ``ECOSYSTEM_CACHE``, else this user's own.

    Losing it costs time only: what was in it is made again, bit for bit.
    """
    folder = chosen_cache(chosen)
    if folder is None:
        from platformdirs import user_cache_path

        folder = user_cache_path("ecosystem", appauthor=False)
    return folder


def chosen_cache(chosen: str | Path | None = None) -> Path | None:
    """Return the absolute path of the cache folder that was chosen, or that ``ECOSYSTEM_CACHE`` names, if any."""
    folder = chosen or os.environ.get(CACHE_VARIABLE)
    return Path(folder).expanduser().absolute() if folder else None
