"""Laws of the run folder: a step is there in full or not at all, and damage is found and named."""

import errno
import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus.schema import ARCHIVE, INDEX_CHANGE, LEDGER, METRICS, SEGMENT, Snapshot, empty
from ecosystem.errors import StoreError
from ecosystem.runs import store as store_module
from ecosystem.runs.files import archive_existing
from ecosystem.runs.leftovers import other_files, sweep
from ecosystem.runs.records import DIGESTS, is_altered, require_unaltered
from ecosystem.runs.store import Store


def snapshot(t: int) -> Snapshot:
    row = {
        "doc": t,
        "t": t,
        "site": 0,
        "size": 5,
        "weight": 1.0,
        "author": "naive/0",
        "synthetic": True,
        "content": f"doc {t}",
    }
    segment = pl.DataFrame([row]).with_columns(
        pl.lit(None).cast(dtype).alias(name) for name, dtype in SEGMENT.items() if name not in row
    )
    metrics = {
        "step": [t],
        "scope": ["web"],
        "id": ["web"],
        "metric": ["documents"],
        "value": [t + 1.0],
        "error": [None],
    }
    return Snapshot(
        t=t,
        segment=segment.select(pl.col(name).cast(dtype) for name, dtype in SEGMENT.items()),
        changes=empty(INDEX_CHANGE),
        ledger=empty(LEDGER),
        metrics=pl.DataFrame(metrics, schema=METRICS),
        archive=empty(ARCHIVE),
        state={"t": t, "events": []},
        weights={"small": {"w": np.full((2, 3), t, np.float32)}},
    )


def committed(folder, steps, kept=lambda t: True):
    store = Store(folder)
    for t in range(steps):
        store.commit(snapshot(t), kept=kept(t), seconds=0.0)
    return store


def test_a_table_written_before_it_had_a_column_is_read_with_it(tmp_path):
    store, row = Store(tmp_path), {"reader": ["a/0"], "document": [7], "source": ["docs"]}
    for t, more in ((0, {}), (1, {"added_by": ["archive"]})):
        left = [n for n in LEDGER if n != "added_by" or more]
        ledger = pl.DataFrame({n: {**row, **more}.get(n, [None]) for n in left}, schema={n: LEDGER[n] for n in left})
        store.commit(replace(snapshot(t), ledger=ledger), kept=True, seconds=0.0)
    found = Store(tmp_path).table("ledger")
    assert dict(found.schema) == LEDGER and found["added_by"].to_list() == [None, "archive"]
    assert found["document"].to_list() == [7, 7] and store.verify() > 0


def test_what_is_committed_is_what_is_read(tmp_path):
    store = committed(tmp_path, 3)
    past = Store(tmp_path).past()
    assert past.latest.t == 2 and store.last() == 2
    assert pl.concat(past.segments)["content"].to_list() == ["doc 0", "doc 1", "doc 2"]
    assert past.latest.weights["small"]["w"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert store.table("metrics")["value"].to_list() == [1, 2, 3]
    assert sweep(store) == []


def test_the_same_snapshot_gives_the_same_bytes(tmp_path):
    a, b = committed(tmp_path / "a", 2), committed(tmp_path / "b", 2)
    assert [c.digest for c in a.commits()] == [c.digest for c in b.commits()]


def test_files_no_record_names_are_swept(tmp_path):
    store = committed(tmp_path, 2)
    (tmp_path / "corpus/000002.parquet").write_bytes(b"half")
    (tmp_path / "commits/.000002.json.part").write_bytes(b"{")
    assert sorted(sweep(store)) == ["commits/.000002.json.part", "corpus/000002.parquet"]
    assert store.last() == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", ["corpus", "index", "metrics", "weights", "state"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_file_is_named(tmp_path, table, damage):
    store = committed(tmp_path, 3)
    [path] = (tmp_path / table).glob("000002.*")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StoreError, match=path.name) as error:
        store.past()
    assert "step 2" in str(error.value) and "continue from step 1" in str(error.value)
    for later in (tmp_path / "commits").glob("000002.json"):  # the remedy works
        later.unlink()
    sweep(store)
    assert store.past().latest.t == 1


@pytest.mark.parametrize("change", [b"", b"{", b'{"step": 1}'])
def test_a_damaged_record_is_named(tmp_path, change):
    store = committed(tmp_path, 3)
    (tmp_path / "commits/000001.json").write_bytes(change)
    with pytest.raises(StoreError, match=r"000001\.json.*damaged"):
        store.commits()


def test_a_record_cannot_be_edited_or_left_out(tmp_path):
    store = committed(tmp_path, 3)
    path = tmp_path / "commits/000001.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"seconds": 1.0}))
    with pytest.raises(StoreError, match="do not match its digest"):
        store.commits()
    path.unlink()
    with pytest.raises(StoreError, match="record of step 1 is missing"):
        store.commits()


def test_weights_are_pruned_but_never_those_a_resume_needs(tmp_path):
    store = committed(tmp_path, 6, kept=lambda t: t % 2 == 0)
    assert store.steps_with_weights() == [0, 2, 4, 5]
    assert store.past().latest.weights["small"]["w"][0, 0] == 5
    with pytest.raises(StoreError, match="models of step 3 were not kept"):
        store.weights(3)


def rounding(folder, steps=range(4)):
    store, value = Store(folder), np.float32(1 / 3)
    for t in steps:
        weights = {"small": {"w": np.full((1, 3), t + value), "count": np.full(1, 2**24 + 1)}}
        store.commit(replace(snapshot(t), weights=weights), kept=t % 2 == 0, seconds=0.0, rounds=True)
    return store


def test_past_weights_are_rounded_but_never_those_a_resume_needs(tmp_path):
    store = rounding(tmp_path / "run")
    assert store.steps_with_weights() == [0, 2, 3] and store.verify() == 4 * 6 - 1 + 3
    assert [commit.format for commit in store.commits()] == [3, 1, 3, 1]
    assert [store.weights_rounded(t) for t in range(4)] == [True, False, True, False]
    assert store.past().latest.weights["small"]["w"][0, 0] == np.float32(3 + 1 / 3)
    rounded = store.weights(2)["small"]
    assert rounded["w"].tolist() == [[2.328125] * 3] and rounded["w"].dtype == np.float32  # 7 bits after the first
    assert rounded["count"] == [2**24 + 1]
    assert other_files(store) == [] and sweep(store) == []
    whole = rounding(tmp_path / "whole").commits()
    assert [c.digest for c in whole] == [c.digest for c in store.commits()]

    branch = Store(tmp_path / "branch")
    branch.branch_off(store, 2)
    assert branch.verify() and branch.past().latest.weights["small"]["w"][0, 0] == 2.328125
    store.pin(3)  # a branch from the last step stays exact
    rounding(tmp_path / "run", steps=[4, 5])
    assert store.weights(3)["small"]["w"][0, 0] == np.float32(3 + 1 / 3) and not store.weights_rounded(3)
    (tmp_path / "run/weights/000002-bfloat16.safetensors").unlink()
    with pytest.raises(StoreError, match=r"000002-bfloat16\.safetensors: this file of step 2 is missing"):
        store.verify()


def test_a_run_does_not_go_on_from_rounded_weights(tmp_path):
    store = rounding(tmp_path)
    for path in (tmp_path / "commits/000003.json", tmp_path / "weights/000003.safetensors"):
        path.unlink()
    with pytest.raises(StoreError, match=r"000002\.safetensors: this file of step 2 is missing"):
        store.past()


def test_one_process_at_a_time(tmp_path):
    with Store(tmp_path).lock(), pytest.raises(StoreError, match="another process"), Store(tmp_path).lock():
        pass


def test_an_old_run_is_set_aside_not_deleted(tmp_path):
    committed(tmp_path / "1", 1)
    first, second = archive_existing(tmp_path / "1"), None
    committed(tmp_path / "1", 2)
    second = archive_existing(tmp_path / "1")
    assert Store(first).last() == 0 and Store(second).last() == 1
    assert archive_existing(tmp_path / "nothing") is None


@contextmanager
def full_disk(bytes_left):
    """No file may grow beyond this size, as if the disk were full (the write fails with EFBIG)."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    store = committed(tmp_path, 2)
    with (
        full_disk(200),
        pytest.raises(StoreError, match=r"cannot be written .*Free some space and run the same command"),
    ):
        store.commit(snapshot(2), kept=True, seconds=0.0)
    assert store.past().latest.t == 1
    sweep(store)
    store.commit(snapshot(2), kept=True, seconds=0.0)
    assert store.past().latest.t == 2


def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--out"), Store(tmp_path / "file" / "run").lock():
        pass


def test_a_file_without_a_step_is_checked_against_its_digest(tmp_path):
    store = Store(tmp_path)
    store.write("scenario.toml", b"steps = 3")
    require_unaltered(tmp_path, "scenario.toml")
    (tmp_path / "scenario.toml").write_bytes(b"steps = 4")
    with pytest.raises(StoreError, match=r"scenario\.toml: has been altered .* Restore it from a copy"):
        require_unaltered(tmp_path, "scenario.toml")
    store.write("scenario.toml", b"steps = 5")  # a timed update
    require_unaltered(tmp_path, "scenario.toml")
    (tmp_path / DIGESTS).unlink()  # as in a run of the first release
    (tmp_path / "scenario.toml").write_bytes(b"steps = 6")
    require_unaltered(tmp_path, "scenario.toml")


def test_a_process_killed_between_a_digest_and_its_file_leaves_the_file_valid(tmp_path, monkeypatch):
    store, write = Store(tmp_path), store_module.write_atomically
    store.write("environment.json", b"{}")

    def killed(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write("environment.json", b"[]")
    assert not is_altered(tmp_path / DIGESTS, "environment.json")
    monkeypatch.setattr(store_module, "write_atomically", write)
    store.write("environment.json", b"[]")
    assert not is_altered(tmp_path / DIGESTS, "environment.json")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": {}, "digest": "0"}', b"[" * 100_000])
def test_a_damaged_record_of_digests_is_a_sentence(tmp_path, content):
    (tmp_path / DIGESTS).write_bytes(content)
    with pytest.raises(StoreError, match=r"digests\.json: this record of digests is damaged"):
        is_altered(tmp_path / DIGESTS, "scenario.toml")


@pytest.mark.parametrize("name", ["commits/._000000.json", "commits/000000 (conflicted copy).json", ".DS_Store"])
def test_files_of_other_programs_are_named_and_left_alone(tmp_path, name):
    store = committed(tmp_path, 2)
    (tmp_path / name).write_bytes(b"\0")
    assert store.last() == 1 and sweep(store) == []
    assert other_files(store) == [name] and (tmp_path / name).exists()


def test_a_renamed_record_is_named_and_no_advice_loses_data(tmp_path):
    committed(tmp_path, 3)
    (tmp_path / "commits/000001.json").rename(tmp_path / "commits/000001 (conflicted copy).json")
    with pytest.raises(StoreError, match=r'contains "000001 \(conflicted copy\)\.json".* rename it back') as raised:
        Store(tmp_path).commits()
    assert "make a copy of" in str(raised.value)


@pytest.mark.parametrize(("code", "remedy"), [(errno.EACCES, "permission to read"), (errno.ENAMETOOLONG, "shorter")])
def test_a_folder_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch, code, remedy):
    committed(tmp_path, 1)

    def refused(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(StoreError, match=remedy) as raised:
        Store(tmp_path).last()
    assert "damaged" not in str(raised.value)


def test_a_file_system_without_locks_is_locked_by_a_file_that_names_its_owner(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refused(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with Store(tmp_path).lock():
        owner = rf"process {os.getpid()} on .*delete .*\.lock-owner"
        with pytest.raises(StoreError, match=owner), Store(tmp_path).lock():
            pass
    with Store(tmp_path).lock():
        assert (tmp_path / ".lock-owner").exists()
    assert not (tmp_path / ".lock-owner").exists()
