"""Build wheel and sdist, install the wheel in empty environments, and use it outside the checkout.

``python -m tests.wheels --python python3.11 --python python3.12 --python python3.13`` installs with constraints.txt,
from the package index that pip uses, and then walks through the commands of a beginning in an empty folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "ECOSYSTEM_CACHE")  # variables that lead to other code or files
SHELLS = {"bash": "complete ", "zsh": "compdef ", "fish": "complete "}


class Walk:
    """Commands of an installed wheel in an empty folder, with a cache of its own."""

    def __init__(self, scripts: Path, folder: Path) -> None:
        self.scripts, self.folder = scripts, folder
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.environment = kept | {"XDG_CACHE_HOME": str(folder / "cache"), "PATH": f"{scripts}:{kept['PATH']}"}

    def say(self, *arguments: object, **variables: str) -> str:
        """Run ``ecosystem``; return its standard output; raise AssertionError with what it said if it fails."""
        done = subprocess.run(
            [self.scripts / "ecosystem", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def version(self) -> str:
        """The version is that of the checkout."""
        text = (ROOT / "ecosystem/version.py").read_text()
        said = self.say("--version").strip()
        assert said.split()[-1] == re.findall('"(.+)"', text)[-1], said
        return said

    def doctor(self) -> str:
        """The self-test passes; versions are those of constraints.txt."""
        found = json.loads(self.say("doctor", "--json"))
        assert found["self_test"]["passed"], found["self_test"]
        python = ".".join(found["python"].split(".")[:2])
        wanted = pins(python)
        differ = {
            name: version
            for name, version in found["packages"].items()
            if version.partition("+")[0] != wanted[name.replace("_", "-").lower()]
        }
        assert not differ, f"not the versions of constraints.txt: {differ}"
        return f"Python {found['python']}, Mesa {found['packages']['mesa']}, torch {found['packages']['torch']}"

    def shipped(self) -> str:
        """Files of the wheel are found by name, and their schemas lie where their first lines say."""
        scenarios = self.say("list", "scenarios")
        assert f"{self.scripts.parent}" in scenarios and str(ROOT) not in scenarios.replace(str(self.folder), "")
        self.say("check", "finite_web", "papers/vu_gpt2", "remedies", "seddik_real", "mixed_loop")
        files = re.findall(r"^(/\S+\.toml)$", scenarios, re.MULTILINE)
        for file in map(Path, files):
            line = file.read_text().splitlines()[0]
            assert (file.parent / line.removeprefix("#:schema ")).is_file(), f"{file}: {line}"
        return f"{len(files)} scenarios"

    def schema(self) -> str:
        """A schema is printed."""
        return f"{len(json.loads(self.say('schema'))['$defs'])} definitions"

    def smoke(self) -> str:
        """A run by name, and its report."""
        report = self.folder / self.say("run", "smoke", "--quiet").splitlines()[-1]
        assert "<html" in report.read_text()
        self.say("check", report.parent)
        return f"report of {report.stat().st_size // 1000} kB"

    def new(self) -> str:
        """A scenario for texts of one's own, which are those of this file's folder."""
        (self.folder / "texts.txt").write_text("\n\n".join(f"Text number {i} of a few words." for i in range(300)))
        self.say("new", "own", "--text", "texts.txt")
        assert (self.folder / "schemas/scenario.json").is_file()
        return self.say("check", "own.toml").strip().splitlines()[-1]

    def study(self) -> str:
        """A study by name, made small."""
        done = self.say("study", "monoculture", "--seeds", 2, "--set", "steps=2", "--quiet").splitlines()[-1]
        assert (self.folder / done).is_file()
        return done

    def view(self) -> str:
        """The interactive page answers."""
        command = [self.scripts / "ecosystem", "view", "policy_web", "--no-browser", "--port", "0"]
        with (
            (self.folder / "view.log").open("w+") as log,
            subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log) as server,
        ):
            try:
                for _ in range(600):
                    said = (self.folder / "view.log").read_text()
                    if address := re.search(r"http://127\.0\.0\.1:\d+", said):
                        with urllib.request.urlopen(address[0], timeout=60) as answer:
                            page = answer.read().decode()
                        assert "solara" in page
                        return f"{len(page) // 1000} kB"
                    assert server.poll() is None, said
                    time.sleep(0.1)
                raise AssertionError(f"no address within a minute: {said}")
            finally:
                server.terminate()

    def completion(self) -> str:
        """Every shell gets a script, and names are completed."""
        for shell, word in SHELLS.items():
            assert word in self.say(_ECOSYSTEM_COMPLETE=f"{shell}_source")
        names = self.say(_ECOSYSTEM_COMPLETE="bash_complete", COMP_WORDS="ecosystem run finite", COMP_CWORD="2")
        assert "finite_web" in names
        return ", ".join(SHELLS)


STEPS: tuple[Callable[[Walk], str], ...] = (
    Walk.version,
    Walk.doctor,
    Walk.shipped,
    Walk.schema,
    Walk.smoke,
    Walk.new,
    Walk.study,
    Walk.view,
    Walk.completion,
)


def pins(python: str) -> dict[str, str]:
    """Return the versions in constraints.txt by canonical name, as they hold for a version of Python (``3.12``)."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text and ((pin := Requirement(text)).marker is None or pin.marker.evaluate({"python_version": python})):
            found[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    return found


def build(python: str, out: Path) -> Path:
    """Build sdist, and from it the wheel, with a build environment of its own; return the wheel."""
    environment = out / "builder"
    subprocess.run([python, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin/pip", "install", "--quiet", "build"], check=True)
    subprocess.run([environment / "bin/python", "-m", "build", "--outdir", out, ROOT], check=True, capture_output=True)
    [wheel] = out.glob("*.whl")
    return wheel


def install(python: str, wheel: Path, folder: Path, torch: str) -> Path:
    """Install a wheel with the extra ``view`` in an empty environment; return its folder of scripts."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin/pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *torch.split()], check=True)
    subprocess.run([*pip, f"{wheel}[view]"], check=True)
    return folder / "bin"


@click.command()
@click.option("--python", "pythons", multiple=True, default=[sys.executable], help="Interpreter; repeatable.")
@click.option("--torch", default="torch", help="What pip installs first, such as: torch --index-url URL.")
@click.option("--wheel", type=click.Path(path_type=Path, exists=True), help="A wheel that is there (default: built).")
@click.option("--environments", type=click.Path(path_type=Path), help="Keep the environments in this folder.")
def main(pythons: tuple[str, ...], torch: str, wheel: Path | None, environments: Path | None) -> None:
    """Test wheels outside the checkout; the exit code is 1 if a step fails."""
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        wheel = (wheel or build(pythons[0], place)).resolve()
        for number, python in enumerate(pythons):
            click.echo(f"{python}, {wheel.name}")
            scripts = install(python, wheel, (environments or place).resolve() / f"environment-{number}", torch)
            empty = place / f"empty-{number}"
            empty.mkdir()
            walk = Walk(scripts, empty)
            for step in STEPS:
                start = time.monotonic()
                try:
                    said = step(walk)
                except AssertionError as error:
                    failed, said = failed + 1, f"FAILED: {error}"
                click.echo(f"  {step.__name__:<12}{time.monotonic() - start:6.1f} s  {said}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
