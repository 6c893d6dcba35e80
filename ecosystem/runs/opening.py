"""The opening of a large web in a run folder: batches of initial documents, kept until step 0 is committed."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from ecosystem.input_files import digest_of
from ecosystem.runs.records import OPENING, batch_file, read_opening, record_digest
from ecosystem.runs.store import Store, parquet


class OpeningBatches:
    """The stored batches of the opening of one run; hold the lock of its store.

    ``files`` holds the size and the hash of every batch, by path, for the record of step 0. The record of the opening
    is written after each batch, so a killed opening loses the batch in progress.
    """

    def __init__(self, store: Store) -> None:
        """Read nothing yet; see :meth:`stored`."""
        self.files: dict[str, dict[str, Any]] = {}
        self._store = store
        self._identity = ""

    def stored(self, identity: str) -> int:
        """Return how many batches are stored, and intact, of the opening with this identity; forget all others."""
        self._identity, self.files = identity, {}
        stored_identity, files = read_opening(self._store.folder)
        while stored_identity == identity:
            name = batch_file(len(self.files))
            if name not in files or not self._is_intact(name, files[name]):
                break
            self.files[name] = files[name]
        return len(self.files)

    def _is_intact(self, name: str, entry: dict[str, Any]) -> bool:
        path = self._store.folder / name
        try:
            return entry == {"size": path.stat().st_size, "sha256": digest_of(path)}
        except OSError:
            return False

    def read(self, batch: int) -> pl.DataFrame:
        """Return the documents of a stored batch."""
        return pl.read_parquet(self._store.folder / batch_file(batch), glob=False)

    def write(self, batch: int, segment: pl.DataFrame) -> None:
        """Store the documents of the next batch, then note it."""
        name = batch_file(batch)
        self.files[name] = self._store.write(name, parquet(segment))
        record: dict[str, Any] = {"identity": self._identity, "files": self.files}
        record["digest"] = record_digest(record)
        self._store.write(OPENING, json.dumps(record, indent=1).encode())
