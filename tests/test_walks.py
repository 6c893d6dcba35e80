"""The walks of docs/walks.md: every command is run, and what it prints is compared with the page, figures masked."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/walks.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"(?:`(?P<file>[\w.]+)`:\n\n)?```(?P<sort>\w+)\n(?P<text>.*?)```", re.DOTALL)
_FIGURE = re.compile(r"-?\b[0-9a-f]{12}\b|[+-]?\d[\d,.:]*(?: ?(?:min|s|%|[kMG]B)\b)?")
_MARK = "@@ exit code "
_PORT = "6379"  # of the cluster on the page


@dataclass
class Step:
    """A command, or a file that is written, with the lines that the page shows of what it prints."""

    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """The exit code that the page states; 0 if it states none."""
        stated = re.search(r"# exit code (\d+)$", self.command)
        return int(stated[1]) if stated else 0


def walk(title: str) -> list[Step]:
    """Return the steps of the section of the page with this title."""
    [section] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    steps: list[Step] = []
    for block in _BLOCK.finditer(section):
        text = block["text"]
        if block["file"]:
            steps.append(Step(f"cat > {block['file']} <<'END'\n{text}END"))
        elif block["sort"] == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    steps.append(Step(line[2:]))
                elif steps[-1].command.endswith("\\"):
                    steps[-1].command += f"\n{line}"
                elif line.strip() and line != "…":
                    steps[-1].shown.append(line)
    return steps


def masked(line: str) -> str:
    """Return a line without its figures and the width of its spaces."""
    return " ".join(_FIGURE.sub("#", line).split())


def free_port() -> str:
    """Return a port of this machine that nothing listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def printed(steps: list[Step], folder, cache) -> list[tuple[int, str]]:
    """Run the commands in one shell; return the exit code of each and what it printed."""
    (folder / "bin").mkdir()
    for name in ("ecosystem", "ray", "python"):
        command = f'"{sys.executable}"' + {"ecosystem": " -m ecosystem", "ray": " -m ray.scripts.scripts"}.get(name, "")
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    script = "\n".join(f'{{ {step.command}\n}} 2>&1\necho "{_MARK}$?"' for step in steps).replace(_PORT, free_port())
    work = folder / "work"
    work.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ECOSYSTEM_CACHE": str(cache),
        "COLUMNS": "120",
        "HOME": str(folder),  # of Ray's token
    }
    shell = subprocess.run(
        ["bash"], input=script, cwd=work, env=environment, capture_output=True, text=True, timeout=600
    )
    parts = re.split(rf"^{_MARK}(\d+)\n", shell.stdout, flags=re.MULTILINE)
    return [(int(code), output) for output, code in zip(parts[0::2], parts[1::2], strict=False)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash")
@pytest.mark.parametrize("title", ["Research with texts of your own", "Policy analysis", "A cluster"])
def test_a_walk_prints_what_the_page_shows(title, tmp_path, cache):
    if title == "A cluster":
        pytest.importorskip("ray")
        pytest.importorskip("tensorboard")
    steps = walk(title)
    results = printed(steps, tmp_path, cache)
    assert len(results) == len(steps) > 5
    for step, (code, output) in zip(steps, results, strict=True):
        assert code == step.exit_code, f"$ {step.command}\n{output}"
        lines = iter([masked(line) for line in output.splitlines()])
        for shown in step.shown:
            start = masked(shown.removesuffix("…"))
            found = (line.startswith(start) if shown.endswith("…") else line == start for line in lines)
            assert any(found), f"$ {step.command}\nno line, or not in this order: {shown}\n{output}"


def test_the_page_shows_mistakes_with_their_exit_codes():
    steps = [step for title in re.findall(r"^## (.*)", PAGE, re.MULTILINE) for step in walk(title)]
    mistakes = [step for step in steps if step.exit_code == 2]
    assert len(mistakes) >= 6 and all(step.shown and step.shown[0].startswith("Error: ") for step in mistakes)
