"""Local files: write atomically, lock, move aside instead of deleting, and explain I/O errors."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from ecosystem.errors import EcosystemError, StoreError, is_full_disk, path_argument
from ecosystem.input_files import expanded


def write_atomically(path: Path, content: bytes | Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file, or its pieces, in full or not at all, also after a power cut; return its size and SHA-256.

    Raises StoreError if it cannot be written.
    """
    size, digest = 0, hashlib.sha256()
    with io_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        with partial.open("wb") as handle:
            for piece in [content] if isinstance(content, bytes) else content:
                handle.write(piece)
                digest.update(piece)
                size += len(piece)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    return {"size": size, "sha256": digest.hexdigest()}


def flush_folder(folder: Path) -> None:
    """Flush the names of files in a folder to disk."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # file systems without locks, such as some NFS


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Lock a folder; raise StoreError if another process still holds the lock after ``patience`` seconds.

    On a file system without locks, a file with the owner's process and host takes their place. Any thread may release
    the lock, because a generator of steps may be closed by another thread than it ran in.
    """
    with io_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock: Any = FileLock(folder / ".lock", timeout=patience, thread_local=False)
        owner: Any = SoftFileLock(folder / ".lock-owner", timeout=patience, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"{folder}: another process is working on this run; wait until it ends, or stop it."
            ) from None
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
            lock = owner
            try:
                lock.acquire()
            except Timeout:
                raise StoreError(
                    f"{folder}: another process is working on this run ({_owner(folder / '.lock-owner')}); wait until "
                    f"it ends, or stop it. If it no longer exists, delete {folder / '.lock-owner'}."
                ) from None
    try:
        yield
    finally:
        lock.release()


def _owner(file: Path) -> str:
    """Return the process and host in a lock file."""
    try:
        process, host = file.read_text(encoding="utf-8").split()[:2]
    except (OSError, ValueError):
        return "its lock file does not say which"
    return f"process {process} on {host}"


def unreadable(path: Path, error: OSError) -> StoreError:
    """Return the error for a file or folder that cannot be read, which says nothing about damage."""
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "Give this user the permission to read it"
    elif error.errno == errno.ENAMETOOLONG:
        remedy = "Choose shorter names for the run and for the folder given with --out"
    else:
        remedy = "Fix the cause and run the same command again; nothing has been changed"
    return StoreError(f"{path}: cannot be read ({error.strerror}). {remedy}.")


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
        raise _unwritable(path, error) from error


@contextmanager
def full_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk, wherever it was raised, into a StoreError; it names ``folder`` or the file."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise _unwritable(Path(getattr(error, "filename", None) or folder), error) from error


def _unwritable(path: Path, error: Exception) -> StoreError:
    """Return the error for a file or folder that cannot be written."""
    number = getattr(error, "errno", None)
    remedy = "Fix the cause and run the same command again; it continues after the last committed step"
    if is_full_disk(error) or number == errno.EFBIG:
        remedy = "Free some space and run the same command again; it continues after the last committed step"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        remedy = "Choose another folder (for runs: --out), or change its permissions"
    elif number == errno.ENAMETOOLONG:
        remedy = "Choose a shorter name, or a shorter folder"
    elif number in (errno.ENOTDIR, errno.EEXIST):
        remedy = "There is a file where a folder is needed; choose another folder (for runs: --out)"
    return StoreError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}). {remedy}.")


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


def is_url_as_path(place: str | Path) -> bool:
    """Return whether a place is a URL, perhaps one that was turned into a Path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(place)) is not None


def require_local_path(out: str | Path) -> Path:
    """Return a local path; raise EcosystemError for a URL, including one that was turned into a Path."""
    path_argument(out, "out")
    if is_url_as_path(out):
        raise EcosystemError(
            f"{out}: is a URL, but a local folder is needed; only runs, studies and frontiers take a URL. "
            "Give a folder with --out."
        )
    return expanded(str(out))
