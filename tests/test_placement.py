"""Runs whose models are computed by workers of a Ray cluster: the same files as in one process, whatever dies."""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from ecosystem.cli.main import cli
from ecosystem.errors import DataError, EcosystemError
from ecosystem.families.base import BuildContext, Cohort, MapsMembers, MemberError, SupportsWatermark, TextCohort
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest, ScoreRequest
from ecosystem.families.tensor_files import ArrayFile
from ecosystem.input_files import digest_of
from ecosystem.placement.cohort import Placement
from ecosystem.placement.parts import DividedArrays, Together, open_divided
from ecosystem.placement.spec import IGNORED_BY_PAGE, IGNORED_BY_STUDIES, PlacementSpec, chosen_placement
from ecosystem.placement.texts import Texts, encoded, joined, unpack
from ecosystem.placement.worker import Blueprint, Process, Refusal, Worker, versions
from ecosystem.placement.workers import Workers
from ecosystem.runs.records import Commit, format_of
from ecosystem.streams import Streams
from tests.conftest import SMOKE, tiny

CACHE = Path(os.environ["ECOSYSTEM_CACHE"])

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
        ({"engine": "ray", "workers": 0}, "--workers 0: give a whole number from 1 to 100,000."),
        ({"engine": "ray", "workers": 10**6}, "--workers 1000000: give a whole number from 1 to 100,000."),
        (
            {"engine": "ray", "address": ""},
            '--address "": give the address of a Ray cluster (HOST:PORT or auto), or omit it.',
        ),
        (
            {"engine": "ray", "gpus_per_worker": 1.5},
            "--gpus-per-worker 1.5: give a number from 0 to 1, or a whole number above it.",
        ),
    ],
)
def test_wrong_options_are_told(options, sentence):
    with pytest.raises(EcosystemError) as error:
        chosen_placement(None, options)
    assert str(error.value) == sentence


def test_wrong_keys_of_the_table_are_told_with_their_path():
    with pytest.raises(EcosystemError, match=r"placement.gpus_per_worker: .* 1, or a whole number"):
        tiny(placement={"gpus_per_worker": 2.5})
    with pytest.raises(EcosystemError, match=r"placement.gpus: unknown key"):
        tiny(placement={"gpus": 1})
    with pytest.raises(EcosystemError, match=r"placement.address: give the address of a Ray cluster \(HOST:PORT or"):
        tiny(placement={"address": " "})
    sentence = r"placement: workers and gpus_per_worker: only the engine ray has workers; .* or remove them"
    with pytest.raises(EcosystemError, match=sentence):
        tiny(placement={"engine": "local", "workers": 2, "gpus_per_worker": 1})
    assert tiny(placement={"engine": "local"}).placement == PlacementSpec(engine="local")


def test_workers_of_ray_do_not_compute_on_mps(tmp_path):
    options = ["--engine", "ray", "--device", "mps", "--dry-run", "--out", str(tmp_path)]
    refused = CliRunner().invoke(cli, ["run", str(SMOKE), *options]).exception
    assert isinstance(refused, EcosystemError) and str(refused).startswith("--device mps: workers of Ray compute on")


def test_a_cluster_started_on_a_machine_without_a_gpu_is_refused(monkeypatch):
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2}}], shutdown=list)
    monkeypatch.setattr("ecosystem.placement.workers.connect", lambda address, cpus: (ray, True))
    with pytest.raises(EcosystemError, match=r"^--device cuda: the Ray cluster started on this machine has no GPU; "):
        Workers(PlacementSpec(), 1, 4, print, "cuda")


def test_a_machine_without_a_gpu_is_not_told_to_install_cuda(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plan = Blueprint(tiny().models["tiny"], "tiny", 1, 0, Streams(1), "cuda", 1, tmp_path)
    for found, sentence in ((None, "give --device cpu."), ("nvidia-smi", "or install a CUDA build of PyTorch there.")):
        monkeypatch.setattr("ecosystem.placement.worker.shutil.which", lambda name, found=found: found)
        with pytest.raises(EcosystemError, match=rf"^--device cuda: .* {sentence}$") as error:
            Worker(".").build("tiny", plan, pl.Series(["a"]), [])
        assert not isinstance(error.value, DataError), "one of a model would begin with its name"


def test_check_says_where_models_are_computed_and_run_refuses_workers_without_ray(tmp_path):
    file = tmp_path / "placed.toml"
    file.write_text(SMOKE.read_text() + '\n[placement]\nworkers = 4\naddress = "head:6379"\ngpus_per_worker = 0.5\n')
    checked = CliRunner().invoke(cli, ["check", str(file)])
    assert "models are computed by 4 workers of the Ray cluster at head:6379, 0.5 GPU each" in checked.output
    refused = CliRunner().invoke(cli, ["run", str(SMOKE), "--workers", "2", "--out", str(tmp_path)])
    assert str(refused.exception).startswith("--workers: only the engine ray has workers")


def test_studies_and_the_page_say_that_they_place_nothing(tmp_path, monkeypatch):
    (tmp_path / "placed.toml").write_text(SMOKE.read_text() + "\n[placement]\nworkers = 4\n")
    study = ['name = "s"', 'base = "placed.toml"', "seeds = [1, 2]", "[arms.a]", "[arms.b]", "steps = 2"]
    (tmp_path / "study.toml").write_text("\n".join([*study, "[[measures]]", 'metric = "cross_entropy"']))
    said = CliRunner().invoke(cli, ["check", str(tmp_path / "study.toml")])
    assert f"note: {IGNORED_BY_STUDIES}" in said.output, said.exception
    monkeypatch.setattr("ecosystem.studies.run_study.study_folder", None)  # nothing is run
    computed = CliRunner().invoke(cli, ["study", str(tmp_path / "study.toml"), "--out", str(tmp_path)])
    assert computed.output.startswith(f"note: {IGNORED_BY_STUDIES}.") and isinstance(computed.exception, TypeError)
    monkeypatch.setattr("ecosystem.app.server.serve", lambda *arguments: None)
    shown = CliRunner().invoke(cli, ["view", str(tmp_path / "placed.toml"), "--device", "cpu"])
    assert f"note: {IGNORED_BY_PAGE}." in shown.output, shown.exception


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


def test_large_arrays_are_shared_if_several_workers_read_them():
    common, own, small = np.arange(20_000), np.ones(20_000), np.arange(3)
    texts = Texts()
    packed = [texts.pack(0, [common, own, small]), texts.pack(1, [common])]
    [shared] = texts.arrays()
    assert shared is common and packed[0][2] is small
    for worker, expected in enumerate(([common, own, small], [common])):
        found = unpack(pickle.loads(pickle.dumps(packed[worker])), joined(None, None), [shared])
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


# Files of weights.


def stacked(members: range) -> dict[str, np.ndarray]:
    """Arrays of some members: two with members as their leading axis, and one of every member."""
    own = {f"{m}/counts": np.arange(m + 1, dtype=np.int64) for m in members}
    return {"w": np.array([[m, m + 0.5] for m in members], np.float32), "b": np.array(members, np.int8), **own}


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (1, 1, 2, 1)])
def test_members_are_read_from_files_that_are_divided_otherwise(tmp_path, sizes):
    first, files = 0, []
    for number, size in enumerate(sizes):
        part = {"tiny": stacked(range(first, first + size))}
        [file] = Together.write(tmp_path, number, part).files("weights")
        files.append(tmp_path / file.removeprefix("weights/"))
        first += size
    divided = open_divided(files)["tiny"]
    assert same(divided, stacked(range(5))) and divided.shapes()["w"].shape == (5, 2)
    for begin, count in ((0, 5), (1, 3), (4, 1)):
        expected = stacked(range(begin, begin + count))
        local = {name if "/" not in name else f"{int(name[0]) - begin}/counts": a for name, a in expected.items()}
        assert same(divided.members(begin, count), local)
    with pytest.raises(KeyError):
        divided["none"]


@pytest.mark.parametrize("url", [False, True])
def test_every_file_may_be_rounded_as_well(tmp_path, url):
    weights = {"nets": {"w": np.array([[1.00390625]], np.float32)}, "tables": {"0/n": np.arange(3)}}
    place = f"memory://{tmp_path}/weights" if url else tmp_path / "weights"
    files = Together.write(place, 7, weights, rounds=True).files("weights")
    commit = Commit(7, "", files, kept=True, seconds=0.0, digest="", format=format_of(files))
    exact, rounded = commit.weights(), commit.weights(rounded=True)
    assert len(files) == 3 and commit.format == 3 and exact[1:] == rounded[1:] and commit.pruned() == exact[:1]
    store = fsspec.filesystem("memory" if url else "file")
    for names, expected in ((exact, 1.00390625), (rounded, 1.0)):
        for name, local in zip(names, ("one", "two"), strict=True):
            content = store.cat_file(f"{tmp_path}/{name}")
            assert hashlib.sha256(content).hexdigest() == files[name]["sha256"]
            (tmp_path / local).write_bytes(content)
        models = open_divided([tmp_path / "one", tmp_path / "two"])
        assert models["nets"]["w"].item() == expected and models["tables"]["0/n"].tolist() == [0, 1, 2]


def test_errors_of_members_survive_being_sent_with_their_number_in_the_cohort():
    error = Refusal.of(MemberError(1, "the loss of member 1 is not finite at step 1 of 9"), first=10).error()
    assert isinstance(error, MemberError) and error.member == 11
    assert str(error) == "the loss of member 11 is not finite at step 1 of 9"
    assert isinstance(Refusal.of(DataError("no."), 3).error(), DataError)


# Cohorts, with workers in this process.


class Here:
    """Workers in this process instead of a cluster: each holds its parts, and calls come one after another."""

    def __init__(self, count: int, blind: tuple[int, ...] = ()) -> None:
        self.count, self.spec = count, PlacementSpec()
        self.processes = [Process("here", number, versions()) for number in range(count)]
        self.workers = [Blind(".") if number in blind else Worker(".") for number in range(count)]

    def start(self) -> None:
        """Nothing to start."""

    def put(self, value):
        return value

    def build(self, parts, progress):
        return self.run([call for part in parts for call in part.building])

    def tell(self, call):
        self.run([call])

    def run(self, calls, what="", progress=None):
        results = []
        for call in calls:
            arguments = pickle.loads(pickle.dumps(list(call.arguments)))  # as if they were sent
            worker = self.workers[call.part.worker]
            result, refusal = worker.call(call.method, call.part.model, arguments, call.shared, call.own)
            if refusal is not None:
                raise refusal.error()
            results.append(result)
            if call.changes:
                call.part.journal.append(call)
        return results


class Blind(Worker):
    """A worker on a machine that does not see the folder of the run."""

    def load_files(self, model, arrays, marker):
        return super().load_files(model, arrays, Path("missing") / marker.name)

    def write(self, model, token, target, number):
        return super().write(model, token, replace(target, place="missing"), number)


PAIRS = [(who, where) for who in ("cat", "dog", "cow") for where in ("mat", "log")]
HUMAN = pl.Series([f"the {who} sat on the {where} and left" for who, where in PAIRS])


def counting(members: int, workers=None) -> Cohort:
    """Trigram models, here or with workers."""
    family = tiny(models={"tiny": {"preset": "trigram", "vocabulary": 300}}).models["tiny"]
    context = BuildContext(HUMAN, Streams(1), "cpu", 1, CACHE)
    return (family.cohort if workers is None else partial(Placement(workers).cohort, family))("tiny", members, context)


def fits(members, docs=HUMAN, step=1) -> list[FitRequest]:
    stream, budget = Streams(1).at("fit", step), Budget(epochs=1)
    own = {member: docs[member % 3 :] for member in members}
    return [FitRequest(m, docs, np.ones(docs.len()), budget, None, "foundation", stream) for m, docs in own.items()]


def same(state, other) -> bool:
    return set(state) == set(other) and all(np.array_equal(state[name], other[name]) for name in other)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_a_placed_cohort_answers_like_one_in_one_process(workers):
    here, there = counting(5), counting(5, Here(workers))
    assert isinstance(there, TextCohort) and isinstance(there, SupportsWatermark) and isinstance(there, MapsMembers)
    assert there.fingerprint == here.fingerprint and there.context == here.context
    order = [4, 0, 3, 1]
    for mine, theirs in zip(here.fit(fits(order)), there.fit(fits(order)), strict=True):
        assert mine.loss == theirs.loss and mine.tokens == theirs.tokens
    requests = [GenerateRequest(m, 3, Decoding(max_tokens=8), None, Streams(1).at(f"g/{m}")) for m in (2, 4, 0, 4)]
    assert [docs.to_list() for docs in here.generate(requests)] == [docs.to_list() for docs in there.generate(requests)]
    assert [record.drawn.tolist() for record in here.written] == [record.drawn.tolist() for record in there.written]
    questions = [ScoreRequest(m, HUMAN) for m in (3, "initial", 1, "random")]
    for mine, theirs in zip(here.score(questions), there.score(questions), strict=True):
        assert np.array_equal(mine.nll, theirs.nll) and np.array_equal(mine.offsets, theirs.offsets)
    assert np.array_equal(here.next_token(4, HUMAN, 3), there.next_token(4, HUMAN, 3))
    assert np.array_equal(here.type_counts(HUMAN), there.type_counts(HUMAN))
    assert here.excerpts(HUMAN, 1, 3).to_list() == there.excerpts(HUMAN, 1, 3).to_list()
    assert same(there.state(), here.state())


def test_states_are_kept_where_they_are_until_nobody_needs_them():
    here, workers = counting(4), Here(2)
    there = counting(4, workers)
    there.fit(fits([0, 1, 2, 3]))
    here.fit(fits([0, 1, 2, 3]))
    before, expected = there.state(), here.state()
    there.fit(fits([1], HUMAN.reverse(), step=2))
    assert not same(there.state(), expected) and same(before, expected)
    there.load(before)
    assert same(there.state(), expected)
    del before
    gc.collect()
    assert not any(worker._kept for worker in workers.workers)


@pytest.mark.parametrize("blind", [(), (1,), (0, 1, 2)])
def test_weights_reach_files_and_come_back_also_on_machines_that_do_not_see_them(tmp_path, blind):
    here, there = counting(5), counting(5, Here(3, blind))
    for cohort in (here, there):
        cohort.fit(fits(range(5)))
    folder, state = tmp_path / "weights", there.state()
    together = Together.write(folder, 1, {"tiny": state})
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"000001-00000{number}.safetensors" for number in range(3)]
    written = together.files("weights")
    assert {path.name: (path.stat().st_size, digest_of(path)) for path in paths} == {
        name.removeprefix("weights/"): (file["size"], file["sha256"]) for name, file in written.items()
    }
    whole = {name: array for path in paths for name, array in load_file(path).items()}
    assert same({name.removeprefix("tiny/"): array for name, array in whole.items()}, here.state())
    together.tell_committed({"tiny": state})
    assert all(isinstance(part.base, DividedArrays) and not part.journal for part in there.parts)
    assert [part.base.files[0].path for part in there.parts] == paths
    resumed = counting(5, Here(2, blind[:1]))
    resumed.load(open_divided(paths)["tiny"])
    assert same(resumed.state(), here.state()) and sorted(folder.iterdir()) == paths


def test_weights_go_straight_to_an_object_store_and_are_read_there(tmp_path):
    here, workers = counting(3), Here(2, (0, 1))
    there = counting(3, workers)
    for cohort in (here, there):
        cohort.fit(fits(range(3)))
    state = there.state()
    for _ in range(2):  # a repeated upload has other names, and leaves the first as it was
        together = Together.write(f"memory://{tmp_path}/weights", 4, {"tiny": state})
        together.tell_committed({"tiny": state})
    store = fsspec.filesystem("memory")
    assert len(store.ls(f"{tmp_path}/weights", detail=False)) == 4
    for name, file in together.files("weights").items():
        assert hashlib.sha256(store.cat_file(f"{tmp_path}/{name}")).hexdigest() == file["sha256"]
    there.fit(fits(range(3), HUMAN.reverse(), step=2))
    for part in there.parts:  # as in a worker that takes the place of a lost one
        assert same(part.base, dict(part.base)) and len(part.journal) == 1
        part.journal, part.kept = [], {}
        workers.run(part.restore_calls())
    assert same(there.state(), here.state())


def test_weights_of_another_number_of_members_are_refused(tmp_path):
    other = counting(3)
    [name] = Together.write(tmp_path, 1, {"tiny": other.state()}).files("weights")
    path = tmp_path / Path(name).name
    for state in (other.state(), ArrayFile.open(path).by_model()["tiny"], open_divided([path])["tiny"]):
        with pytest.raises(DataError, match="do not fit"):
            counting(2, Here(2)).load(state)


def test_a_part_is_restored_through_the_states_that_it_keeps():
    there = counting(2, Here(1))
    [part] = there.parts
    there.fit(fits([0, 1]))
    first = there.state()
    there.fit(fits([0, 1], HUMAN.reverse(), step=2))
    second = there.state()
    assert [call.method for call in part.restore_calls()] == ["fit", "keep", "fit", "keep"]
    there.load(first)
    there.fit(fits([1], step=3))
    assert [call.method for call in part.restore_calls()] == ["fit", "keep", "fit"]  # the second is not on the way
    assert len(second) and part.kept.keys() == {first._token}


def test_the_foundation_of_another_machine_is_taken_from_it(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(ray, "get", lambda reference: (reference, None))
    one, two = tmp_path / "one", tmp_path / "two"
    family = tiny(models={"tiny": {"preset": "trigram", "vocabulary": 300}}).models["tiny"]
    plans = [Blueprint(family, "tiny", 1, 0, Streams(1), "cpu", 1, cache) for cache in (one, two)]
    built = Worker(".").build("tiny", plans[0], HUMAN, [])
    folders = Worker(".").folders("tiny", one, built.folders)
    monkeypatch.setattr(Tokenizer, "train", None)  # nothing is made again
    assert Worker(".").build("tiny", plans[1], HUMAN, [folders]).fingerprint == built.fingerprint
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()} == set(built.folders)
