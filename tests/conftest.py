"""What tests share: a tiny scenario in which everything happens, and one finished run of it."""

import os
from pathlib import Path

import pytest

from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario

ROOT = Path(__file__).parent.parent
# Never in the user's home; the same for all workers, and kept from one run of the tests to the next.
os.environ.setdefault("ECOSYSTEM_CACHE", str(ROOT / ".cache"))
KERNELS = Path(os.environ["ECOSYSTEM_CACHE"]).absolute() / "native"
# Several processes share the cores. Threads of OpenMP that spin while they wait then cost up to thirty times as much.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("SOLARA_CHECK_HOOKS", "off")  # as the server of the page does: Mesa's own components fail them
SMOKE = ROOT / "scenarios" / "smoke.toml"
MACHINE = Machine("cpu", 2)

# Small enough for many runs in the tests, with every phase at work.
TINY = {
    "web.initial.documents": 80,
    "models.tiny.n_layer": 1,
    "models.tiny.vocabulary": 300,
    "models.tiny.foundation.tokens": 6_000,
    "trainers.naive.scrape.docs": 30,
    "trainers.naive.publish": 12,
    "trainers.naive.decoding.max_tokens": 16,
    "trainers.careful.scrape.docs": 30,
    "trainers.careful.publish": 12,
    "trainers.careful.decoding.max_tokens": 16,
    "trainers.careful.budget.tokens": 1_500,
    "measure.held_out": 20,
    "measure.words": 30,
}


def tiny(**changes) -> Scenario:
    """The smoke scenario made tiny, with more dotted paths set (``__`` stands for a dot)."""
    return Scenario.load(SMOKE).override(TINY).override({k.replace("__", "."): v for k, v in changes.items()})


def with_kernels(cache: Path) -> Path:
    """Put the kernels that all tests share into a cache folder, since every compilation takes six seconds."""
    for folder in (KERNELS, cache):
        folder.mkdir(parents=True, exist_ok=True)
    (cache / "native").symlink_to(KERNELS)
    return cache


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Foundations, shared by all tests."""
    return with_kernels(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, cache) -> Run:
    """An uninterrupted run of the tiny scenario (3 steps)."""
    out = tmp_path_factory.mktemp("outputs")
    scenario = tiny()
    for _ in begin(scenario, out=out, machine=MACHINE, cache=cache):
        pass
    return Run.open(folder_of(scenario, out))


@pytest.fixture
def unreported(monkeypatch):
    """No report of a run in this process is drawn, which takes longer than to compute a small run."""
    monkeypatch.setattr("ecosystem.api._report", lambda folder: str(folder / "report.html"))
