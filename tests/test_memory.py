"""Memory and disk of runs: estimates, and batches in smaller parts."""

import json

import pytest

from ecosystem.api import run_scenario
from ecosystem.errors import EcosystemError
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.planning.memory import memory_budget, resources
from ecosystem.runs.progress import RunProgress
from ecosystem.runs.run import Run, folder_of
from tests.conftest import MACHINE, tiny
from tests.test_resume import fingerprints

GPT2 = {"kind": "gpt2", "init": "random", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocabulary": 50257}
LARGE = tiny(models__large={**GPT2, "context": 256}, trainers__naive__model="large", trainers__naive__count=1)


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4e9), ("1.5 GiB", 1.5 * 2**30), ("512mb", 512e6), ("900b", 900), (7, 7), (None, None)]
)
def test_sizes_are_read(text, size):
    assert memory_budget(text) == size


@pytest.mark.parametrize("text", ["4", "4 GBs", "-1GB", "0GB", "x", 0, True])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(EcosystemError, match=r"--memory .*: give a number with a unit"):
        memory_budget(text)


def test_parts_become_smaller_only_where_memory_demands_it(tmp_path):
    most = resources(LARGE, tmp_path, threads=2)
    assert most.parts == () and most.problem() == "" and 3.5e9 < most.memory < 4.5e9
    for budget, tokens in ((most.memory, None), (most.memory - 1, 512), (most.memory - 4e8, 256)):
        found = resources(LARGE, tmp_path, threads=2, budget=int(budget))
        assert dict(found.parts) == ({} if tokens is None else {"large": tokens}), "never that of the small model"
        assert found.memory <= budget and found.problem() == ""
    least = resources(LARGE, tmp_path, threads=2, budget=2 * 10**9)
    assert dict(least.parts)["large"] == 256, "one row"
    assert "needs about 3.3 GB of memory, but --memory allows 2.0 GB; choose smaller" in least.problem()
    fixed = resources(LARGE, tmp_path, threads=2, budget=int(3.7e9), parts=())
    assert fixed.memory == most.memory and "--fresh, or give more memory" in fixed.problem()
    assert resources(LARGE, tmp_path, threads=2, workers=2).budget is None


def test_disk_is_that_of_the_steps_that_are_kept(tmp_path):
    def disk(**changes):
        """Return the bytes in units of the model's exact weights."""
        return resources(LARGE.override(changes), tmp_path, threads=2).disk / 0.496e9

    assert 5 <= round(disk(), 1) < 5.1 and 5 <= round(disk(weights_precision="bfloat16"), 1) < 5.1
    assert 53 <= round(disk(steps=99, weights_precision="bfloat16"), 1) < 54  # half of 100 steps, 3 exact copies
    assert 4 <= round(disk(weights_every=4), 1) < 4.1 and disk(steps=1000) > 1000


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    with pytest.raises(EcosystemError, match=r"^This run needs about .* of memory, but --memory allows 500 MB; "):
        run_scenario(tiny(), RunProgress(quiet=True), out=tmp_path, memory=5 * 10**8)
    monkeypatch.setattr("ecosystem.runs.planning.memory._free", lambda folder: 10**5)
    with pytest.raises(EcosystemError, match=r"^This run needs about \d MB of disk, but 100 kB are free; free some"):
        run_scenario(tiny(), RunProgress(quiet=True), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_keeps_its_parts(finished, cache, tmp_path):
    machine = Machine("cpu", 2, (("tiny", 128),))
    for out, steps in (("whole", (3,)), ("resumed", (2, 3))):
        for last in steps:
            for _ in begin(tiny(steps=last), out=tmp_path / out, machine=machine, cache=cache):
                pass
            machine = MACHINE  # another setting in a resume changes nothing
        machine = Machine("cpu", 2, (("tiny", 128),))
    whole, resumed = (folder_of(tiny(), tmp_path / out) for out in ("whole", "resumed"))
    assert fingerprints(whole) == fingerprints(resumed) != fingerprints(finished.path)
    assert json.loads((resumed / "environment.json").read_text())["parts"] == {"tiny": 128}
    assert Run(resumed).machine == machine and "parts" not in finished.environment
    losses = [run.metrics.filter(metric="cross_entropy", scope="trainer")["value"] for run in (Run(whole), finished)]
    assert abs(losses[0] - losses[1]).max() < 0.01, "only the order of sums differs"
