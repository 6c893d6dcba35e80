"""Sorted runs, the arrays under them, and the indexes of duplicates on top of them, in memory and in files."""

import itertools
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.storage import sorted_runs, stored_arrays
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.storage.sorted_runs import FirstCopies, SortedRuns
from ecosystem.corpus.storage.stored_arrays import FileArray, StoredRows
from ecosystem.policies import duplicates
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.simulation import services
from ecosystem.simulation.services import CorpusService


@pytest.fixture(params=[False, True], ids=["memory", "files"], scope="module")
def files(request):
    """Limits at which tiny arrays are in files, and are read and merged in many parts, or the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            for name, limit in {"_MEMORY": 20, "_BLOCK": 4, "_MERGED": 8, "_SEARCHED": 6}.items():
                patch.setattr(sorted_runs, name, limit)
            for name, limit in {"_RECENT": 600, "_TAKEN": 4, "_GAP": 16}.items():
                patch.setattr(stored_arrays, name, limit)
            for name, limit in {"_TEXT": 300, "_CONVERTED": 3, "_PAIRS": 5}.items():
                patch.setattr(duplicates, name, limit)
        yield request.param


KEYS = st.one_of(st.integers(0, 12), st.sampled_from([2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
BATCHES = st.lists(st.lists(KEYS, max_size=60), max_size=8)


def runs_of(batches):
    """Runs whose values are the numbers of the keys, and the values of each key."""
    runs, values, count = SortedRuns(Scratch()), {}, 0
    for batch in batches:
        keys = np.array(batch, np.uint64)
        order = np.argsort(keys, kind="stable")
        runs.append(keys[order], count + order)
        for key in batch:
            values.setdefault(key, []).append(count)
            count += 1
    return runs, values


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.lists(KEYS, max_size=30))
def test_runs_agree_with_a_dictionary(files, batches, others):
    runs, values = runs_of(batches)
    assert len(runs) == sum(map(len, batches))
    asked = np.array(sorted({*values, *others}), np.uint64)
    first = [values.get(int(key), [-1])[0] for key in asked]
    assert runs.first(asked).tolist() == first
    walked = {int(key): [] for key in asked}
    for run in runs.runs:
        start, stop = run.find(asked)
        for key, a, b in zip(asked.tolist(), start.tolist(), stop.tolist(), strict=True):
            walked[key] += run.values(np.arange(a, b)).tolist()
    assert walked == {key: values.get(key, []) for key in walked}


def test_a_key_of_many_values_is_merged_in_order(files):
    runs, values = runs_of([[7] * 50, [7] * 30 + [8], [6] + [7] * 45, *[[7, 9]] * 30])
    [start], [stop] = np.transpose([run.find(np.array([7], np.uint64)) for run in runs.runs[:1]], (1, 2, 0))
    assert runs.runs[0].values(np.arange(start[0], stop[0])).tolist() == values[7][: stop[0] - start[0]]
    assert stop[0] - start[0] >= 125


def test_there_are_few_runs_and_no_files_are_left_behind(files, tmp_path):
    scratch = Scratch(tmp_path)
    runs = SortedRuns(scratch)
    for i in range(300):
        runs.append(np.arange(10, dtype=np.uint64), np.full(10, i))
        sizes = [len(run) for run in runs.runs]
        assert all(2 * size >= sum(sizes[k + 1 :]) for k, size in enumerate(sizes))  # so at most 3 in a factor of 4
    assert len(runs) == 3000 and len(runs.runs) <= 12
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written == 16 * sum(size for size in sizes if size > 20) if files else not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 1000, 64_000, 65_535])
def test_a_filter_knows_all_keys_and_few_others(count):
    keys, others = np.random.default_rng(count).integers(0, 2**64, (2, count), dtype=np.uint64)
    known = sorted_runs._Filter(count)
    for part in np.array_split(np.sort(keys), 3):
        if part.size:
            known.add(part)
    assert known.may_contain(keys).all()
    assert known.may_contain(others).mean() <= max(0.06, 1 / count)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=30), st.lists(st.integers(0, 12), max_size=8))
def test_rows_are_read_by_number(files, numbers, batches):
    rows = np.arange(sum(batches) * 3, dtype=np.uint32).reshape(-1, 3)
    stored, file = StoredRows(Scratch(), np.uint32, (3,)), FileArray(Scratch(), np.uint32, (3,))
    for first, count in zip(itertools.accumulate(batches, initial=0), batches, strict=False):
        stored.append(rows[first : first + count])
        file.append(rows[first : first + count])
    wanted = np.array([n for n in numbers if n < len(rows)], np.int64)
    assert np.array_equal(stored.take(wanted), rows[wanted])
    assert np.array_equal(file.take(wanted), rows[wanted])
    assert np.array_equal(file.read(2, 7), rows[2:7])


@settings(max_examples=60, deadline=None)
@given(BATCHES)
def test_first_copies_agree_with_a_dictionary(files, batches):
    first, copies, count = {}, FirstCopies(Scratch()), 0
    for batch in batches:
        expected = [first.setdefault(key, doc) for doc, key in enumerate(batch, start=count)]
        expected = [-1 if of == doc else of for doc, of in enumerate(expected, start=count)]
        assert copies.register(np.array(batch, np.uint64), count).tolist() == expected
        count += len(batch)


def test_drafts_that_are_prepared_again_are_no_copies_of_themselves(files):
    copies = FirstCopies(Scratch())
    for _ in range(2):
        assert copies.register(np.array([5, 6, 5], np.uint64), 10).tolist() == [-1, -1, 10]


# Near-duplicates.


def collection(seed, size=200):
    """Texts of which many are copies, or change a few words of an earlier one."""
    rng, texts = np.random.default_rng(seed), []
    for _ in range(size):
        words = [f"w{k}" for k in rng.integers(0, 200, rng.choice([0, 1, 8, 40, 80]))]
        if texts and rng.random() < 0.5:
            words = texts[rng.integers(len(texts))].split()
            for at in rng.integers(0, max(len(words), 1), rng.integers(0, 3) if words else 0):
                words[at] = "changed"
        texts.append(" ".join(words))
    return texts


def indexed(texts, cuts=(), **fields):
    index = NearDuplicates(**fields)
    for a, b in itertools.pairwise([0, *cuts, len(texts)]):
        index.add(range(a, b), pl.Series(texts[a:b], dtype=pl.String))
    return index


def brute_force(index, count):
    """Compare each document with every earlier one that has a band in common."""
    earliest = [None] * count
    for part in (index._characters, index._words):
        signatures = part.signature(np.arange(part.ids.size))
        keys = part._band_keys(signatures)
        empty = (signatures == 2**32 - 1).all(axis=1)
        similar = (signatures[:, None] == signatures).sum(axis=2) >= part.threshold * part.num_perm
        meet = (keys[:, None] == keys).any(axis=2) & similar & ~empty
        for place, doc in enumerate(part.ids.tolist()):
            earlier = part.ids[:place][meet[place, :place]].tolist()
            earliest[doc] = min([*earlier[:1], *([] if earliest[doc] is None else [earliest[doc]])], default=None)
    return earliest


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_near_duplicates_agree_with_comparing_all_that_meet(files, threshold):
    texts = collection(seed=int(threshold * 10))
    fields = {"num_perm": 32, "shingle": 2, "threshold": threshold}
    whole = indexed(texts, **fields)
    expected = brute_force(whole, len(texts))
    assert 20 < sum(match is not None for match in expected) < 190
    assert whole.earliest(range(200)).to_list() == expected
    parts = indexed(texts, cuts=[1, 2, 30, 31, 90, 150], **fields)
    assert parts.earliest(range(200)).to_list() == expected


def test_the_index_of_a_corpus_grows_in_blocks_with_progress(files, monkeypatch):
    monkeypatch.setattr(services, "_INDEXED", 64)
    texts, reports = collection(seed=3), []
    corpus = Corpus()
    service = CorpusService(corpus, Scratch(), lambda *report: reports.append(report))
    whole = indexed(texts)
    for first, last in ((0, 150), (150, 200)):
        drafts = pl.DataFrame({"content": texts[first:last]}).with_columns(
            site=0, author=pl.lit("a"), synthetic=False, depth=0.0, model=None, source=pl.lit("s"), row=0
        )
        segment = corpus.prepare(drafts, 1)
        found = service.near_duplicates(128, 3, 0.8, segment["doc"])
        assert found.to_list() == whole.earliest(segment["doc"]).to_list()
        corpus.publish(segment)
    assert [done for _, done, _ in reports] == [64, 128, 150]  # the second time there was a single block


@pytest.mark.slow
def test_memory_of_a_large_index_is_bounded(tmp_path):
    """Six million pairs have 96 MB; merging and searching them in files takes less than 60 MB."""
    program = """if True:
        import resource, sys, numpy as np
        from pathlib import Path
        from ecosystem.corpus.storage import sorted_runs
        from ecosystem.corpus.storage.scratch import Scratch
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sorted_runs._MEMORY = 1 << 18
        runs, rng, before = sorted_runs.SortedRuns(Scratch(Path(sys.argv[1]))), np.random.default_rng(1), peak()
        for i in range(24):
            runs.append(np.sort(rng.integers(0, 2**64, 1 << 18, dtype=np.uint64)), np.arange(1 << 18) + (i << 18))
        runs.first(np.sort(rng.integers(0, 2**64, 1 << 18, dtype=np.uint64)))
        print(len(runs), peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    pairs, kilobytes = map(int, done.stdout.split())
    assert pairs == 24 << 18
    assert kilobytes < 60 * 1024
