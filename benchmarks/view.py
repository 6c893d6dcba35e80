"""The interactive page in a real browser: first paint, scrubbing a replay, a live step, and memory over many steps."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from ecosystem import Scenario
from ecosystem import run as run_of

SCENARIO = Path(__file__).parents[1] / "scenarios" / "policy_web.toml"
LARGE = {"web.sites": 200, "web.retain": [], "web.initial.documents": 5000, "trainers.labs.publish": 1000}
FILLED = 4  # steps after which the web of LARGE has DOCUMENTS, and its trainers publish as in the file again
SMALL = {
    "web.sites": 20,
    "web.initial.documents": 200,
    "trainers.labs.publish": 20,
    "trainers.labs.budget.tokens": 4000,
}
DOCUMENTS = 20_000
TARGETS = {"first_paint": 3.0, "scrub": 0.15, "live_step": 0.5}  # seconds
EARLY, LATE = 50, 250  # steps between which memory is compared

# Records when a key or button was last pressed, and when every chart had drawn the requested step.
_WATCH = """() => {
  const drawn = () => [...document.querySelectorAll('.eco-chart')].map((e) => e.dataset.drawn || '');
  for (const event of ['keydown', 'click']) {
    document.addEventListener(event, () => { window.pressed = performance.now(); }, true);
  }
  window.until = (wanted) => new Promise((resolve) => {
    const look = () => drawn().every((stamp) => stamp.split('/')[0] === wanted) && resolve(performance.now());
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
    look();
  });
}"""


def measure(rounds: int, *, memory: bool = True) -> dict[str, Any]:
    """Return seconds of all rounds by figure, and the server's resident memory in MiB at two steps.

    Raises ImportError if playwright is missing, and playwright's errors if no browser starts.
    """
    from playwright.sync_api import sync_playwright

    scenario = _large(rounds)
    figures: dict[str, Any] = {}
    with TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        run = run_of(scenario, out=folder)
        if run.documents.filter(pl.col("t") <= FILLED).select("doc").collect().height < DOCUMENTS:
            raise RuntimeError(f"the web of the benchmark has fewer than {DOCUMENTS:,} documents")
        with _server(str(run.path)) as (address, _):
            figures["first_paint"] = [_paint(browser, address) for _ in range(rounds)]
            figures["scrub"] = _scrub(browser, address, scenario.steps, rounds)
        live = Path(folder) / "live.toml"
        live.write_text(scenario.to_toml(), encoding="utf-8")
        with _server(str(live)) as (address, _):
            figures["live_step"] = _live(browser, address, rounds)
        if memory:
            with _server(str(SCENARIO), *_set(SMALL | {"steps": LATE})) as (address, process):
                figures["memory_mib"] = _memory(browser, address, process)
        browser.close()
    return figures


def summary(figures: dict[str, Any]) -> str:
    """Return the figures as lines, each with its target."""
    lines = [f"interactive page, 200 sites and {DOCUMENTS:,} documents"]
    for name, target in TARGETS.items():
        times = sorted(figures[name])
        lines.append(
            f"  {name.replace('_', ' '):12} {statistics.median(times) * 1e3:8.0f} ms  "
            f"[{times[0] * 1e3:.0f} to {times[-1] * 1e3:.0f}]  (to reach: {target * 1e3:.0f} ms)"
        )
    if "memory_mib" in figures:
        early, late = figures["memory_mib"]
        lines.append(f"  memory       {early:8.0f} MiB after {EARLY} steps, {late:.0f} MiB after {LATE}")
    return "\n".join(lines)


def _large(rounds: int) -> Scenario:
    """Return a scenario whose web is filled quickly and then grows as in the file."""
    plain = Scenario.load(SCENARIO)
    back = {"at": FILLED + 1, "set": {"trainers.labs.publish": plain.value("trainers.labs.publish")}}
    return plain.override(LARGE | {"steps": FILLED + rounds, "changes": [back]}, base=SCENARIO.parent)


def _set(values: dict[str, Any]) -> list[str]:
    return [f"--set={path}={value}" for path, value in values.items()]


@contextmanager
def _server(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a page at a free port; yield its address and process."""
    command = [sys.executable, "-W", "ignore", "-m", "ecosystem", "view", *arguments, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            match = next((m for line in process.stdout if (m := re.search(r"http://\S+", line))), None)
            if match is None:
                raise RuntimeError(f"the page was not served: {' '.join(command)}")
            yield match.group(), process
        finally:
            process.terminate()  # the server deletes the folders of its tabs


def _open(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    page.set_default_timeout(120_000)
    page.goto(address)
    return page


def _paint(browser: Any, address: str) -> float:
    started = time.perf_counter()
    page = _open(browser, address)
    page.wait_for_selector(".eco-chart[data-drawn]")
    seconds = time.perf_counter() - started
    page.close()
    return seconds


def _wait(page: Any, step: int) -> float:
    """Return the seconds from the last key or click until every chart shows a step."""
    drawn = page.evaluate("(step) => window.until(step)", str(step))
    return float(drawn - page.evaluate("window.pressed")) / 1e3


def _scrub(browser: Any, address: str, steps: int, rounds: int) -> list[float]:
    page = _open(browser, address)
    page.wait_for_selector(".eco-chart[data-drawn]")
    page.evaluate(_WATCH)
    page.locator(".eco-steps [role=slider]").first.focus()
    seconds: list[float] = []
    for _ in range(rounds):
        for step in [*range(1, steps + 1), *range(steps - 1, -1, -1)]:
            page.keyboard.press("ArrowRight" if not seconds or len(seconds) % (2 * steps) < steps else "ArrowLeft")
            seconds.append(_wait(page, step))
    page.close()
    return seconds[1:]  # the first scrub draws what had not been drawn


def _live(browser: Any, address: str, rounds: int) -> list[float]:
    page = _open(browser, address)
    page.wait_for_selector(".eco-chart[data-drawn]")
    page.evaluate(_WATCH)
    seconds = []
    for step in range(1, FILLED + rounds + 1):
        page.get_by_role("button", name="Step", exact=True).click()
        seconds.append(_wait(page, step))
    page.close()
    return seconds[FILLED:]


def _memory(browser: Any, address: str, process: subprocess.Popen[str]) -> tuple[float, float]:
    page = _open(browser, address)
    page.wait_for_selector(".eco-chart[data-drawn]")
    page.get_by_role("button", name="▶").click()
    mib = []
    for step in (EARLY, LATE):
        page.wait_for_function(
            "(step) => +(document.querySelector('.eco-chart').dataset.drawn || '0').split('/')[1] >= step",
            arg=step,
            timeout=3_600_000,
        )
        text = Path(f"/proc/{process.pid}/status").read_text()
        mib.append(int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024)  # type: ignore[union-attr]
    page.close()
    return mib[0], mib[1]
