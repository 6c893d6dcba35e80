"""The examination of an installation: what it lists, and a self-test that finds a fault."""

import json
import sys

import pytest
from click.testing import CliRunner

from ecosystem.beginning import doctor
from ecosystem.cli.main import cli
from ecosystem.runs.execute import World


def asked(*arguments):
    return CliRunner().invoke(cli, ["doctor", *arguments])


@pytest.mark.slow
def test_it_lists_what_runs_depend_on_and_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = asked("--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.output)
    assert found["self_test"]["passed"] and found["self_test"]["problem"] == ""
    assert found["python"] == sys.version.split()[0] and found["packages"]["torch"]
    assert found["cores"] >= 1 and found["memory"] > 1e8 and "cpu" in found["devices"]
    assert found["disks"]["out"]["free"] > 0 and found["disks"]["out"]["writable"]
    assert {"view", "ray", "hub", "gguf"} <= set(found["extras"]) and not {"dev", "test"} & set(found["extras"])
    assert not list(tmp_path.iterdir())


def test_missing_extras_come_with_their_command(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "ray" else "99")
    found = doctor.examine(doctor.Path("outputs"))
    assert found["extras"]["ray"]["missing"] == ["ray"] and not found["extras"]["ray"]["installed"]
    assert 'ray        not installed: pip install "ecosystem[ray]"' in doctor.text(found)
    assert found["extras"]["hub"]["installed"]


def test_a_version_that_is_too_old_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "0.1")
    assert doctor.extras()["hub"]["missing"] == ["datasets>=4"]


def test_without_a_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert "there is no C++ compiler" in doctor.compiler()["reason"]


def test_an_unwritable_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert "NOT WRITABLE: choose another folder with --out" in doctor.text(doctor.examine(tmp_path / "deep/er"))


@pytest.mark.slow
def test_the_self_test_finds_a_resume_that_differs(monkeypatch):
    """The fault: what a step does depends on how many steps this object has made."""
    step = World.step

    def counting(world):
        world.made = getattr(world, "made", 0) + 1
        if world.made == 2:
            object.__setattr__(world.state.streams, "seed", world.state.streams.seed + 1)
        step(world)

    monkeypatch.setattr(World, "step", counting)
    said = asked("--out", "nowhere")
    assert said.exit_code == 1 and "FAILED" in said.output
    assert "a resumed run differs from an uninterrupted one" in said.output


@pytest.mark.slow
def test_the_self_test_reports_what_a_broken_library_raises(monkeypatch):
    monkeypatch.setattr(World, "step", lambda world: [][1])
    found = doctor.self_test()
    assert not found["passed"] and found["problem"].startswith("IndexError: ")
    assert asked("--no-test").exit_code == 0
