"""Files from users: find them by path or pattern, decompress them, and decode them as text.

All sources and graph files follow one set of rules:

| subject | rule |
|---|---|
| folder | relative paths are sought in the current folder, then in the scenario's |
| pattern | `*`, `?`, `[…]` and `**` match names; a name that exists literally, such as `a[1].jsonl`, is itself |
| compression | gzip, bzip2, xz and Zstandard, recognised by content; others are refused |
| encoding | UTF-8, with or without a byte order mark; other encodings and NUL characters are refused |
| text | documents end at blank lines, at line ends, or with the file (`split`) |
| JSON lines | one object per line; other columns may hold anything, including `NaN` |
| Parquet | columns of strings, categories or enumerations |
| Hugging Face datasets | splits and slices such as `train[:100]`, also of folders written by `save_to_disk` |
| missing text | a document that is missing or `null`, or has no visible characters, is left out |
| other types | a value that is not text is refused with its line or column; no value is converted |
| duplicates | the first of exact copies is kept; a source of copies of one text is refused |
| GraphML, GML | recognised by content; nested graphs, hyperedges and several graphs in a file are refused |
| edge list | two names and an optional weight per line, or one name: a site without links; other formats are refused |
| separators | `,`, `;`, `\\|`, tab or space; where all lines use the first three or tabs, names may contain spaces |
| quotes | a name that contains a separator is written in double quotes |
| comments | lines that start with `#` or `%`; later in a line, `#` between white space; `#` inside a name is kept |
| header | a first line such as `source,target,weight` is skipped |
| parallel links | their weights are added; in an undirected graph, a–b and b–a are parallel |
| names of sites | control characters are refused |
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import IO, Any

from ecosystem.errors import DataError, nearest

_START = 8_192  # bytes in which a binary file is expected to have a NUL
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_REFUSED = {
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"\x04\x22\x4d\x18": "compressed with LZ4; decompress it",
    b"%PDF-": "a PDF; convert it to text",
    b"\x89PNG": "a picture; give text",
    b"\xff\xd8\xff": "a picture; give text",
    b"\xd0\xcf\x11\xe0": "a document of an office program; save it as text",
    b"Rar!": "a RAR archive; unpack it",
    b"PAR1": 'a Parquet file; read it as a source of kind = "parquet"',
}


@dataclass(frozen=True)
class InputFiles:
    """The place of files in a scenario, for lookups and error messages.

    ``subject`` begins every message, for instance ``sources.NAME``; ``key`` is the dotted path of the value that names
    the files; ``base`` is the folder of the scenario.
    """

    subject: str
    key: str
    base: Path

    def locations(self, path: str) -> list[Path]:
        """Return where a path may be: in the current folder, then in the scenario's."""
        relative = expanded(path)
        return list(dict.fromkeys([Path.cwd() / relative, self.base / relative]))

    def matches(self, path: str) -> list[Path]:
        """Return what a path or pattern matches beside the scenario; nothing if that cannot be looked up."""
        try:
            return _matches(self.base / expanded(path))
        except OSError:
            return []

    def find(self, path: str, no_files: str, endings: Collection[str] = ()) -> list[Path]:
        """Return the files that a path or pattern names, in the first folder with any, sorted by name.

        Leading folders that exist, or the whole path if it does, are taken literally, also if they contain brackets.
        A folder stands for its files with one of ``endings``. Raises DataError if there are no files; ``no_files``
        says what is wrong with a folder without any, and what to give instead.
        """
        found: list[Path] = []
        try:
            for location in self.locations(path):
                found += _matches(location)
                files = [file for match in found for file in _files_of(match, endings)]
                if files:
                    return sorted(files)
            siblings = {str(Path(path).with_name(name)) for name in self._names_beside(path)}
        except OSError as error:
            raise self.unreadable(path, error, "a path that can be read") from None
        special = [match for match in found if not is_folder(match)]
        if special:
            raise DataError(
                f"{self._about(special[0])}: is neither a file nor a folder, but a link to nothing or a device; "
                f"correct {self.key}."
            )
        if found:
            raise DataError(f"{self._about(path)}: {no_files}.")
        problem = "no file matches this pattern" if re.search(r"[*?\[]", path) else "no such file"
        raise DataError(
            f"{self._about(path)}: {problem}, neither in the current folder nor in the scenario's"
            f"{nearest(path, siblings)}; correct {self.key}."
        )

    def _names_beside(self, path: str) -> Iterator[str]:
        for location in self.locations(path):
            if location.parent.is_dir():
                yield from (file.name for file in location.parent.iterdir() if file.is_file())

    def _about(self, file: Path | str) -> str:
        return f"{self.subject}: {file}"

    @contextmanager
    def open(self, file: Path) -> Iterator[IO[bytes]]:
        """Open a file for reading bytes, decompressed if necessary; raise DataError if it cannot be read."""
        try:
            with file.open("rb") as raw, _decompressed(raw) as stream:
                yield stream
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise self.unreadable(file, error) from None

    def require_readable(self, files: Iterable[Path]) -> None:
        """Raise DataError for the first file that cannot be opened; read none of them."""
        for file in files:
            try:
                file.open("rb").close()
            except OSError as error:
                raise self.unreadable(file, error) from None

    def read_bytes(self, file: Path) -> bytes:
        """Return the decompressed bytes of a file; raise DataError if it cannot be read."""
        with self.open(file) as stream:
            return stream.read()

    def read_text(self, file: Path) -> str:
        """Return the text of a file; raise DataError as :meth:`decode` does, or if it cannot be read."""
        return self.decode(file, self.read_bytes(file))

    def decode(self, file: Path, data: bytes) -> str:
        """Return bytes of a file as text with line ends ``\\n``; raise DataError if they are not UTF-8 text."""
        self.require_text(file, data)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.not_utf8(file, error) from None
        if "\0" in text:
            raise DataError(
                f"{self._about(file)}: is not text: it contains NUL characters (the first after {text.index(chr(0)):,} "
                f"characters), as binary files and other encodings do; convert it, or leave it out of {self.key}."
            )
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def require_text(self, file: Path, start: bytes) -> None:
        """Raise DataError if the first bytes of a file are those of a format that is no text."""
        for magic, description in _REFUSED.items():
            if start.startswith(magic):
                raise DataError(f"{self._about(file)}: is {description}, or leave it out of {self.key}.")

    def not_utf8(self, file: Path, error: UnicodeDecodeError, where: str = "") -> DataError:
        """Return the error of a file in another encoding; ``where`` names the line, if the position is in one."""
        if b"\0" in error.object[:_START] and error.object[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            return DataError(
                f"{self._about(file)}: is not text: it contains NUL bytes, as programs, pictures and other "
                f"binary files do; leave it out of {self.key}."
            )
        encoding = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        return DataError(
            f"{self._about(file)}: is not UTF-8 text ({error.reason} at byte {error.start:,}{where}); convert it, for "
            f'instance with "iconv -f {encoding} -t UTF-8", or leave it out of {self.key}.'
        )

    def unreadable(self, file: Path | str, error: Exception, expected: str = "a file that can be read") -> DataError:
        """Return the error of a file that is damaged or cannot be opened."""
        return DataError(f"{self._about(file)}: cannot be read ({summary(error)}); give {expected} in {self.key}.")


def expanded(path: str) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced by the home folder, if there is such a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; also of paths that cannot be looked up, which are none."""
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a folder around it that cannot be entered
        return False


def is_url(place: object) -> bool:
    """Return whether a place is a URL rather than a folder."""
    return isinstance(place, str) and "://" in place


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(error: Exception) -> str:
    """Return the first line of an error without full stop, since messages of libraries may be pages long."""
    text = getattr(error, "strerror", None) or str(error).strip().split("\n")[0] or type(error).__name__
    return str(text)[:200].rstrip(".")


def _matches(location: Path) -> list[Path]:
    if location.exists():
        return [location]
    # The longest leading folder that exists is literal; only the rest is a pattern.
    root = next((folder for folder in location.parents if folder.is_dir()), None)
    if root is None:
        return []
    pattern = str(location.relative_to(root))
    if "**" in pattern:  # glob passes over folders that cannot be read
        for _ in os.walk(root, onerror=_raise):
            pass
    return sorted(root / match for match in glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 (Path.glob leaves brackets no escape)


def _raise(error: OSError) -> None:
    raise error


def _files_of(match: Path, endings: Collection[str]) -> Iterator[Path]:
    if match.is_file() or (match.is_symlink() and not match.exists()):  # a link to nothing is refused when it is opened
        yield match
    elif endings and match.is_dir():
        yield from (file for file in match.iterdir() if file.suffix.lower() in endings and file.is_file())


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    """Return a stream of the decompressed bytes, or ``raw`` itself; the format is recognised by its first bytes."""
    start = raw.read(10)
    raw.seek(0)
    stream: Any = raw
    if start.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=raw)
    elif re.match(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)", start):
        stream = bz2.BZ2File(raw)
    elif start.startswith(b"\xfd7zXZ\0"):
        stream = lzma.LZMAFile(raw)  # noqa: SIM115
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        stream = io.BytesIO(_decompress_zstd(raw))
    result: IO[bytes] = stream
    return result


def _decompress_zstd(raw: IO[bytes]) -> bytes:
    """Decompress all frames; raise EOFError if the last one is incomplete, which stream readers do not report."""
    import zstandard

    parts, frame = [], None
    try:
        while data := raw.read(1 << 20):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                parts.append(frame.decompress(data))
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from None
    if frame is not None:
        raise EOFError("the compressed data ends early")
    return b"".join(parts)
