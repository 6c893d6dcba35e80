"""Local files: write atomically, move aside instead of deleting, and explain I/O errors."""

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
        partial = path.with_name(f".{path.name}.part")
        with partial.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def relative_path(path: Path, folder: Path) -> str:
    """Return a path relative to ``folder``, or the absolute path if there is none (another drive on Windows)."""
    base, target = folder.resolve(), path.resolve()
    return Path(os.path.relpath(target, base)).as_posix() if target.drive == base.drive else target.as_posix()


@contextmanager
def io_errors(path: Path) -> Iterator[None]:
    """Turn an I/O error into a StoreError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "Free some space and run the same command again; it continues after the last committed step"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            remedy = "Choose another folder with --out, or change its permissions"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            remedy = "There is a file where a folder is needed; choose another folder with --out"
        else:
            remedy = "Fix the cause and run the same command again; it continues after the last committed step"
        raise StoreError(f"{path}: cannot be written ({error.strerror}). {remedy}.") from error


def archive_existing(folder: Path) -> Path | None:
    """Move an existing run folder aside without deleting anything; return its new path, None if there was none."""
    if not folder.exists():
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    with io_errors(target):
        folder.rename(target)
    return target


def require_local_path(out: str | Path) -> Path:
    """Return a local path; raise EcosystemError for a URL, including one that was turned into a Path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(out)):
        raise EcosystemError(
            f"{out}: is a URL, but a local folder is needed; only studies and frontiers take a URL. "
            "Give a folder with --out."
        )
    return Path(out)
