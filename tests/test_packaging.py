"""The wheel has what it needs and works outside the checkout; all files that say versions say the same ones."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml

from ecosystem.version import __version__
from tests.conftest import ROOT
from tests.wheels import pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def built(source: Path, out: Path) -> Path:
    """Build sdist and wheel of a source tree into a folder with the installed hatchling; return the wheel."""
    code = "import sys; from hatchling import build as b; print(b.build_sdist(sys.argv[1]), b.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel of the checkout, unpacked."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    out = tmp_path_factory.mktemp("built")
    wheel = built(ROOT, out)
    zipfile.ZipFile(wheel).extractall(out / "wheel")
    return out / "wheel"


def inside(folder: Path) -> set[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package_and_no_others(unpacked):
    package, bundled = unpacked / "ecosystem", unpacked / "ecosystem/_bundled"
    assert inside(package) - {f"_bundled/{name}" for name in inside(bundled)} == inside(ROOT / "ecosystem")
    assert inside(bundled / "scenarios") == inside(ROOT / "scenarios")
    assert inside(bundled / "models") == {file.name for file in (ROOT / "models").glob("*.toml")}
    assert {path.name for path in unpacked.iterdir()} == {"ecosystem", f"ecosystem-{__version__}.dist-info"}
    assert {"py.typed", "version.py"} <= inside(package)
    metadata = PathDistribution(unpacked / f"ecosystem-{__version__}.dist-info")
    assert metadata.version == __version__ and metadata.read_text("licenses/LICENSE") == (ROOT / "LICENSE").read_text()


@pytest.mark.slow
def test_a_wheel_from_the_sdist_is_the_same(unpacked, tmp_path):
    [sdist] = unpacked.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    with zipfile.ZipFile(built(source, tmp_path)) as again:
        assert set(again.namelist()) == inside(unpacked)


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(unpacked, tmp_path):
    """Files are found by name; of the checkout nothing is."""
    place = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-P", "-m", "ecosystem"]
    check = subprocess.run([*command, "check", "finite_web"], cwd=tmp_path, env=place, capture_output=True, text=True)
    assert check.stdout.startswith(f"{unpacked}/ecosystem/_bundled/scenarios/finite_web.toml: valid"), check
    listed = subprocess.run([*command, "list", "models"], cwd=tmp_path, env=place, capture_output=True, text=True)
    assert "gpt2-nano" in listed.stdout


def test_one_version_everywhere():
    assert CITATION["version"] == __version__
    latest = re.search(r"^## (\S+)(?: \((.*)\))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest[1] in ("Unreleased", __version__)
    if latest[2]:
        assert str(CITATION["date-released"]) == latest[2]
    assert "version" not in PROJECT and CITATION["authors"] == PROJECT["authors"]
    assert CITATION["license"] == PROJECT["license"]


def test_every_version_of_a_package_is_in_the_constraints():
    """Dockerfile and conda environment install with them, and name no other version than that of Python."""
    named = pins("3.12")
    steps = re.findall(r"^RUN (pip install .+)$", DOCKERFILE, re.MULTILINE)
    assert steps and all("-c constraints.txt" in step for step in steps)
    [conda] = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert "--constraint constraints.txt" in conda
    for name, version in re.findall(r"([\w-]+)==?([\d.]+\S*)", "\n".join([*steps, *conda])):
        assert named[name] == version, f"{name}=={version}, but constraints.txt has {named[name]}"


def test_docker_and_conda_take_one_python_that_the_package_supports():
    docker = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert f"python={docker}" in CONDA["dependencies"]
    assert f"Programming Language :: Python :: {docker}" in PROJECT["classifiers"]
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:${PYTHON}-slim-bookworm"}


def test_docker_and_conda_take_the_same_extras_and_builds_of_torch():
    extras = re.search(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    [conda] = [" ".join(entry["pip"]) for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert f"--editable .[{extras}]" in conda and set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    index = re.search(r"^ARG TORCH_INDEX=(\S+)$", DOCKERFILE, re.MULTILINE)[1]
    assert f"--extra-index-url {index}" in conda


def test_the_docker_build_gets_every_file_that_it_copies():
    """An ignored file would end the build; a file that is not ignored makes every build send it."""
    [*copied] = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    needed = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in needed)
    assert needed == set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert set(PROJECT["license-files"]) | {PROJECT["readme"], "pyproject.toml", "constraints.txt"} <= needed


def test_constraints_name_every_requirement():
    named = {name.replace("_", "-").lower() for name in re.findall(r"^([\w.-]+)==", CONSTRAINTS, re.MULTILINE)}
    wanted = {re.match(r"[\w-]+", line)[0].replace("_", "-").lower() for line in PROJECT["dependencies"]}
    wanted |= {re.match(r"[\w-]+", line)[0].lower() for line in PROJECT["optional-dependencies"]["dev"]}
    assert wanted - named - {"ecosystem"} == set()
