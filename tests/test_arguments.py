"""Arguments of a wrong type from Python are refused in a sentence, or used as they are meant."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import ecosystem
from ecosystem import EcosystemError, Frontier, Run, Scenario, Study, World
from tests.conftest import ROOT, SMOKE, tiny

STUDY = ROOT / "scenarios/studies/monoculture.toml"
FRONTIER = ROOT / "scenarios/studies/seddik_real.toml"

WRONG = {
    "run: no scenario": (lambda _: ecosystem.run(None), "expected a Scenario or the path of its file"),
    "run: seed": (lambda _: ecosystem.run(str(SMOKE), seed="x"), "seed: give a whole number of at least 0, not 'x'"),
    "run: negative seed": (lambda _: ecosystem.run(tiny(), seed=-1), "seed: give a whole number of at least 0, not -1"),
    "run: seed of True": (lambda _: ecosystem.run(tiny(), seed=True), "seed: give a whole number"),
    "run: out": (lambda _: ecosystem.run(tiny(), out=5), "out: give a path, as text or a Path, not 5"),
    "run: threads": (lambda _: ecosystem.run(tiny(), threads="2"), "--threads 2: give a whole number"),
    "run: device": (lambda _: ecosystem.run(tiny(), device=3), "--device 3: unknown device"),
    "run: cache": (lambda _: ecosystem.run(tiny(), cache=7), "cache: give a path, as text or a Path, not 7"),
    "branch: parent": (lambda _: ecosystem.branch(4, 1), "expected a Run or the path of its folder"),
    "branch: step": (lambda run: ecosystem.branch(run, "one"), "'one' is no step; give its number"),
    "branch: step of True": (lambda run: ecosystem.branch(run, True), "step: give a whole number"),
    "branch: values": (lambda run: ecosystem.branch(run, 1, ["steps"]), "give a dict from dotted paths to values"),
    "branch: steps": (lambda run: ecosystem.branch(run, 1, steps="9"), "steps: give a whole number of at least 1"),
    "branch: name": (lambda run: ecosystem.branch(run, 1, name=3), "name: must be text in quotes, not 3"),
    "branch: out": (lambda run: ecosystem.branch(run, 1, {"steps": 9}, out=5), "out: give a path"),
    "study: file": (lambda _: ecosystem.study(3), "expected a Study or the path of its file"),
    "study: out": (lambda _: ecosystem.study(STUDY, out=5), "out: give a path"),
    "study: option": (lambda _: ecosystem.study(STUDY, job=1), r'unknown option "job" \(did you mean "jobs"\?\)'),
    "study: jobs": (lambda _: ecosystem.study(STUDY, jobs="2"), "--jobs: give a whole number of at least 1, not '2'"),
    "study: gpus": (lambda _: ecosystem.study(STUDY, engine="ray", gpus="1"), "--gpus 1: give a number"),
    "study: cache": (lambda _: ecosystem.study(STUDY, cache=1), "cache: give a path"),
    "study: base": (lambda _: ecosystem.study(Study.load(STUDY), base=3), "base: give a path"),
    "frontier: file": (lambda _: ecosystem.frontier([]), "expected a Frontier or the path of its file"),
    "frontier: out": (lambda _: ecosystem.frontier(FRONTIER, out=5), "out: give a path"),
    "frontier: option": (lambda _: ecosystem.frontier(FRONTIER, thread=1), 'unknown option "thread"'),
    "Scenario.load": (lambda _: Scenario.load({"steps": 3}), "expected a Scenario or the path of its file"),
    "Scenario.override": (lambda _: tiny().override(["steps"]), "give a dict from dotted paths to values"),
    "Scenario.variant": (lambda _: tiny().variant(["large"]), "no variant"),
    "Scenario.at": (lambda _: tiny().at("2"), "step: give a whole number"),
    "Scenario.forked": (lambda _: tiny().forked("2", {}), "step: give a whole number"),
    "Scenario.parse": (lambda _: Scenario.parse(3), "must be a table of keys and values, not 3"),
    "Study.load": (lambda _: Study.load(3), "expected a Study or the path of its file"),
    "Study.with_settings": (lambda _: Study.load(STUDY).with_settings(["a"]), "give a dict from dotted paths"),
    "Study.with_settings: seeds": (lambda _: Study.load(STUDY).with_settings({}, "2"), "seeds: give a whole number"),
    "Frontier.load": (lambda _: Frontier.load(None), "expected a Frontier or the path of its file"),
    "Run.open": (lambda _: Run.open(3), "expected a Run or the path of its folder"),
    "Run": (lambda _: Run(None), "expected a Run or the path of its folder"),
    "Run.lineage": (lambda run: run.lineage("5"), "document: give a whole number of at least 0, not '5'"),
    "Run.lineage of a share": (lambda run: run.lineage(2.5), "document: give a whole number of at least 0, not 2.5"),
    "Run.model": (lambda run: run.model("plain/0", "3"), "step: give a whole number of at least 0, not '3'"),
    "Run.model: trainer": (lambda run: run.model(0), 'there is no trainer "0"'),
    "Run.save_model": (lambda run: run.save_model("plain/0", 3), "folder: give a path"),
    "World": (lambda _: World("smoke.toml"), r"World: give a Scenario \(see Scenario\.load\), not 'smoke\.toml'"),
    "World: seed": (lambda _: World(tiny(), "1"), "seed: give a whole number of at least 0, not '1'"),
    "World: threads": (lambda _: World(tiny(), threads=0), "threads: give a whole number of at least 1, not 0"),
    "World: device": (lambda _: World(tiny(), device="tpu"), "device: choose from cpu, cuda, mps, not 'tpu'"),
    "World: base": (lambda _: World(tiny(), base=3), "base: give a path"),
    "World: cache": (lambda _: World(tiny(), cache=3), "cache: give a path"),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current folder, which refusals leave empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def stored():
    """A finished run of a text scenario."""
    return Run.open(next((ROOT / "tests/data/run-v1").glob("text-*")) / "1")


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_type_is_refused_in_a_sentence(call, place, stored):
    use, sentence = WRONG[call]
    with pytest.raises(EcosystemError, match=sentence):
        use(stored)
    assert not list(place.iterdir())


def test_what_is_meant_is_used(place, stored):
    shutil.copy(SMOKE, place / "a.toml")
    assert Scenario.load("a.toml") == Scenario.load(Path("a.toml"))
    assert Run.open(str(stored.path)).last_step == stored.last_step == Run(str(stored.path)).last_step
    assert stored.lineage(np.int64(5)) == stored.lineage(5)
    assert Study.load(str(STUDY)).cells(str(STUDY.parent))


@pytest.mark.slow
def test_numbers_of_numpy_and_paths_as_text_are_used(place, cache):
    scenario = tiny(steps=1)
    run = ecosystem.run(scenario, seed=np.int64(3), out=str(place), device="cpu", threads=1, cache=str(cache))
    assert run.seed == 3
    other = ecosystem.branch(
        str(run.path), np.int64(0), {"trainers.naive.publish": 1}, out=str(place), cache=str(cache)
    )
    assert other.scenario.trainers["naive"].publish == 12 and other.last_step == 1
    assert World(scenario, np.int64(3), base=str(place), cache=str(cache)).t == 0
