"""Runs whose models are computed by workers of a Ray cluster: the same files as in one process, whatever dies."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save

from ecosystem.errors import DataError, EcosystemError
from ecosystem.families.base import MemberError
from ecosystem.families.requests import Budget, FitRequest
from ecosystem.placement.spec import PlacementSpec, chosen_placement
from ecosystem.placement.texts import Texts, encoded, joined, unpack
from ecosystem.placement.weights_file import stored_weights, write_together
from ecosystem.placement.worker import Refusal
from ecosystem.streams import Streams
from tests.conftest import tiny

# Values.


def test_the_table_changes_neither_the_fingerprint_nor_the_stored_scenario():
    placed = tiny(placement={"workers": 4, "gpus_per_worker": 0.25})
    assert placed.placement == PlacementSpec(workers=4, gpus_per_worker=0.25)
    assert placed.fingerprint() == tiny().fingerprint() and placed.to_toml() == tiny().to_toml()


def test_options_replace_keys_of_the_table():
    table = PlacementSpec(workers=4, address="auto")
    assert chosen_placement(None, {"engine": None, "workers": None}) is None
    assert chosen_placement(table, {"engine": "local"}) is None
    assert chosen_placement(table, {"workers": 2}) == PlacementSpec(workers=2, address="auto")
    assert chosen_placement(None, {"engine": "ray"}) == PlacementSpec()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 2}, "--workers: only the engine ray has workers; add --engine ray, or omit it."),
        ({"engine": "rey"}, '--engine rey: unknown engine (did you mean "ray"?); choose from local, ray.'),
        ({"engine": "ray", "workers": 0}, "--workers 0: give a whole number of at least 1."),
        ({"engine": "ray", "gpus_per_worker": 2.0}, "--gpus-per-worker 2.0: give a number from 0 to 1."),
    ],
)
def test_wrong_options_are_told(options, sentence):
    with pytest.raises(EcosystemError) as error:
        chosen_placement(None, options)
    assert str(error.value) == sentence


def test_wrong_keys_of_the_table_are_told_with_their_path():
    with pytest.raises(EcosystemError, match=r"placement.gpus_per_worker: .* 1"):
        tiny(placement={"gpus_per_worker": 3.0})
    with pytest.raises(EcosystemError, match=r"placement.gpus: unknown key"):
        tiny(placement={"gpus": 1})


# Texts.


def test_a_text_is_sent_once_and_shared_only_if_several_workers_read_it():
    both, one, two = pl.Series(["a", "b", "a"]), pl.Series(["b", "c", ""]), pl.Series(["d"])
    texts = Texts()
    packed = {0: texts.pack(0, (both, [one, 7])), 1: texts.pack(1, [both, two])}
    assert packed[0][0] is texts.pack(0, both)  # the same series twice for one worker
    shared, own = texts.tables()
    assert sorted(shared) == ["a", "b"] and sorted(own[0]) == ["", "c"] and list(own[1]) == ["d"]
    table = encoded(shared)
    first = unpack(packed[0], joined(table, encoded(own[0])))
    assert first[0].to_list() == both.to_list() and first[1][0].to_list() == one.to_list() and first[1][1] == 7
    second = unpack(packed[1], joined(table, encoded(own[1])))
    assert [series.to_list() for series in second] == [both.to_list(), two.to_list()]


def test_requests_keep_everything_but_their_texts():
    stream = Streams(1).at("fit")
    request = FitRequest(1, pl.Series(["x", "y"]), np.array([1.0, 2.0]), Budget(epochs=1), 0.1, "previous", stream)
    vectors = FitRequest(
        0, pl.Series([[1.0], [2.0]], dtype=pl.Array(pl.Float64, 1)), np.ones(2), None, None, "scratch", 1
    )
    texts = Texts()
    packed = texts.pack(3, [request, vectors])
    assert packed[0].value.docs.is_empty()
    shared, own = texts.tables()
    assert shared.is_empty()
    found, others = unpack(packed, joined(None, encoded(own[3])))
    assert found.docs.to_list() == ["x", "y"] and found.weight.tolist() == [1, 2] and found.start == "previous"
    assert others.docs.equals(vectors.docs)


# Files of weights.

_TYPES = (
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)


def test_a_file_written_in_parts_is_that_of_safetensors(tmp_path):
    arrays = {f"{place}/{kind}": np.arange(6).reshape(2, 3).astype(kind) for place, kind in enumerate(_TYPES)}
    weights = {"small": arrays, "ü": {"none": np.zeros((0, 4), np.float32), "wte.weight": np.ones((3, 1), np.float32)}}
    path = tmp_path / "weights" / "000001.safetensors"
    written = write_together(path, weights)
    whole = save({f"{model}/{name}": array for model, state in weights.items() for name, array in state.items()})
    assert path.read_bytes() == whole and written["size"] == len(whole)
    assert list(path.parent.iterdir()) == [path]
    for model, state in stored_weights(path).items():
        assert set(state) == set(weights[model])
        for name in state:
            assert np.array_equal(state[name], weights[model][name]) and state[name].dtype == weights[model][name].dtype


def test_errors_of_members_survive_being_sent_with_their_number_in_the_cohort():
    error = Refusal.of(MemberError(1, "the loss of member 1 is not finite at step 1 of 9"), first=10).error()
    assert isinstance(error, MemberError) and error.member == 11
    assert str(error) == "the loss of member 11 is not finite at step 1 of 9"
    assert isinstance(Refusal.of(DataError("no."), 3).error(), DataError)
