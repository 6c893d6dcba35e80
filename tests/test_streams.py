"""Laws of named streams: pure, independent of one another, and keyed noise that knows only its own id."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.streams import Stream, Streams


def test_a_stream_is_a_pure_function_of_seed_name_and_step():
    a = Streams(7).at("trainers/naive/0/scrape", 3)
    assert a.rng().random() == a.rng().random()
    assert a.integer() == a.integer()
    others = [Streams(8).at(a.name, 3), Streams(7).at("trainers/naive/1/scrape", 3), Streams(7).at(a.name, 4)]
    for other in others:
        assert a.rng().random() != other.rng().random()
        assert a.integer() != other.integer()
        assert a.uniform([5])[0] != other.uniform([5])[0]


def test_the_numbers_are_the_same_in_another_process():
    code = (
        "from ecosystem.streams import Stream; s = Stream(3, 'a/b', 2); print(s.integer(), s.uniform([1, 2]).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    s = Stream(3, "a/b", 2)
    assert other == f"{s.integer()} {s.uniform([1, 2]).tolist()}\n"


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True), st.randoms())
def test_keyed_noise_is_blind_to_row_order_and_to_other_rows(ids, random):
    stream = Stream(1, "x")
    alone = {i: stream.uniform([i])[0] for i in ids}
    random.shuffle(ids)
    assert stream.uniform(ids).tolist() == [alone[i] for i in ids]


@pytest.mark.parametrize("name", ["a", "a/b"])
def test_keyed_noise_is_uniform_and_uncorrelated(name):
    n = 200_000
    u = Stream(11, name, 1).uniform(np.arange(n))
    assert u.min() > 0 and u.max() < 1
    # Mean and lag-one correlation within 4 standard errors of a uniform sample's.
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / n)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(n)
    v = Stream(11, name, 2).uniform(np.arange(n))
    assert abs(np.corrcoef(u, v)[0, 1]) < 4 / np.sqrt(n)
    counts, _ = np.histogram(u, bins=64, range=(0, 1))
    chi2 = ((counts - n / 64) ** 2 / (n / 64)).sum()
    assert abs(chi2 - 63) < 4 * np.sqrt(2 * 63)
