"""Files on this machine: written in full or not at all, never deleted, and I/O errors as sentences."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecosystem.errors import EcosystemError, StoreError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in full or not at all, also after a power cut; raise StoreError if it cannot be written."""
    with io_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        with beside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def relative_path(path: Path, folder: Path) -> str:
    """Return a path as seen from ``folder``, or whole where none leads there (another drive of Windows)."""
    require_local_path, there = folder.resolve(), path.resolve()
    return (
        Path(os.path.relpath(there, require_local_path)).as_posix()
        if there.drive == require_local_path.drive
        else there.as_posix()
    )


@contextmanager
def io_errors(path: Path) -> Iterator[None]:
    """Turn an I/O error into a sentence that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "Make room and run the same command again: it goes on after the last committed step"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            remedy = "Choose another folder with --out, or change its permissions"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            remedy = "A file stands where a folder is needed: choose another folder with --out"
        else:
            remedy = "Run the same command again once it is mended: it goes on after the last committed step"
        raise StoreError(f"{path}: cannot be written ({error.strerror}). {remedy}.") from error


def archive_existing(folder: Path) -> Path | None:
    """Move an existing run folder out of the way, never deleting it; return where it went."""
    if not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    with io_errors(target):
        folder.rename(target)
    return target


def require_local_path(out: str | Path) -> Path:
    """Return a place on this machine; raise EcosystemError for a URL, also one that became a path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):
        raise EcosystemError(
            f"{out}: is a URL, and this goes into a folder of this machine; only studies and frontiers take a URL. "
            "Give a folder (--out)."
        )
    return Path(out)
