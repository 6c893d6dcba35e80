"""Scratch folders: files larger than memory that can be made again, and so are deleted with their owner."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class Scratch:
    """A folder for files that can be made again; it is created on first use and deleted with this object."""

    def __init__(self, parent: Path | None = None) -> None:
        """``parent`` is the folder that it is created in; absent: that of the system's temporary files."""
        self._parent = parent
        self._folder: Path | None = None
        self._files = 0

    def file(self, suffix: str = "") -> Path:
        """Return the path of a new file, which does not exist yet."""
        if self._folder is None:
            if self._parent is not None:
                self._parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="ecosystem-", dir=self._parent))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files += 1
        return self._folder / f"{self._files:06d}{suffix}"
