"""The interactive page in a real browser: what a reader does, what leaves the machine (nothing), and what it shows.

Needs Chromium (Debian's package, or CHROMIUM naming a program) and the extra view; skipped with a reason without them.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ecosystem

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytest.importorskip("solara", reason="the extra view is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (set CHROMIUM, or install the package)")
WAIT = 60_000  # milliseconds: a busy machine draws late, and a test of what is drawn is no test of speed

SCENARIO = """
name = "seen"
seed = 3
steps = 6
[sources.words]
kind = "text"
path = "texts/*.txt"
[web]
sites = 20
initial = { source = "words", documents = 40 }
retain = ["online"]
[models.small]
preset = "unigram"
[policies.online]
kind = "window"
steps = 4
[policies.gate]
kind = "exact_dedup"
[trainers.labs]
count = 2
model = "small"
select = ["gate"]
scrape = { docs = 30 }
publish = 10
decoding = { max_tokens = 24 }
[writers.people]
source = "words"
count = 1
rate = 2.0
[curators.editors]
reviews = 5
[measure]
words = 50
groups = 2
[[knobs]]
path = "trainers.labs.publish"
label = "published"
low = 0
high = 40
step = 5
"""
TRAP = "<script>document.title='taken'</script> **bold** <b>fat</b> <img src=x onerror=\"document.title='taken'\"> "


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    (folder / "texts").mkdir()
    for number in range(120):
        words = " ".join(f"word{(number * k) % 37}" for k in range(1, 30))
        (folder / "texts" / f"{number:03d}.txt").write_text(f"{TRAP} document {number} {words}", encoding="utf-8")
    (folder / "seen.toml").write_text(SCENARIO, encoding="utf-8")
    return folder / "seen.toml"


@contextmanager
def served(*arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve ``ecosystem view`` with these arguments at a free port; yield its address and process."""
    command = [sys.executable, "-m", "ecosystem", "view", *map(str, arguments), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read() if process.stderr else line
        yield line.split()[0], process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def live(scenario: Path) -> Iterator[str]:
    with served(scenario, "--threads", "1") as (address, _):
        yield address


class Seen:
    """A page that was opened: what it asked for, what went wrong in it, and what a test does with it."""

    def __init__(self, browser: object, address: str, **how: object) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 1000}, **how)  # type: ignore[attr-defined]
        self.asked: list[str] = []
        self.failed: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", lambda r: self.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        self.page.on("pageerror", lambda error: self.failed.append(str(error)))
        self.page.goto(address)
        self.drawn(0)

    def drawn(self, step: int) -> None:
        """Wait until the charts show this step."""
        self.page.wait_for_selector(f".eco-chart[data-drawn^='{step}/']", timeout=WAIT, state="attached")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def says(self, text: str | re.Pattern[str]) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=WAIT)

    def turn(self, label: str, presses: int) -> None:
        """Turn a slider by so many of its steps."""
        slider = self.page.locator(".v-input__slider", has_text=label).locator(".v-slider__thumb-container").first
        slider.focus()
        for _ in range(presses):
            self.page.keyboard.press("ArrowRight")


def test_a_world_is_stepped_and_nothing_is_asked_of_another_machine(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    for step in (1, 2):
        seen.press("Step")
        seen.drawn(step)
    seen.press("Reset")
    seen.drawn(0)
    outside = [url for url in seen.asked if not url.startswith((live, "data:", "blob:"))]
    assert not outside
    assert len([url for url in seen.asked if url.startswith(live)]) > 5  # the listening was on
    assert not seen.failed
    seen.page.close()


def test_playing_goes_on_by_itself_until_it_is_paused(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    seen.press("▶")
    seen.drawn(2)
    seen.press("❚❚")
    seen.page.get_by_role("button", name="▶", exact=True).wait_for(timeout=WAIT)
    time.sleep(1.0)  # the step under way
    at = seen.page.locator(".eco-chart").first.get_attribute("data-drawn")
    time.sleep(1.5)
    assert seen.page.locator(".eco-chart").first.get_attribute("data-drawn") == at
    seen.page.close()


def test_a_knob_acts_from_the_next_step_on(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    seen.press("Step")
    seen.drawn(1)
    seen.turn("published", 3)
    seen.says(re.compile("published: 25"))
    seen.press("Step")
    seen.drawn(2)
    seen.page.close()


def test_a_second_tab_has_a_world_of_its_own(browser: object, live: str) -> None:
    first, second = Seen(browser, live), Seen(browser, live)
    first.press("Step")
    first.drawn(1)
    assert second.page.locator(".eco-chart").first.get_attribute("data-drawn").startswith("0/")  # type: ignore[union-attr]
    second.page.close()
    first.press("Step")
    first.drawn(2)
    first.page.close()


def test_text_is_text(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    assert seen.page.title() == "seen · ecosystem"
    assert seen.page.locator(".eco-panel script").count() == 0
    seen.page.close()


def test_closing_the_tab_stops_the_work(browser: object, scenario: Path, tmp_path: Path) -> None:
    os.environ["TMPDIR"] = str(tmp_path)
    try:
        with served(scenario, "--threads", "1") as (address, _):
            seen = Seen(browser, address)
            assert list(tmp_path.glob("ecosystem-*"))
            seen.press("▶")
            seen.drawn(1)
            seen.page.goto("about:blank")  # a headless browser says nothing when a tab is closed from outside
            deadline = time.monotonic() + WAIT / 1000
            while list(tmp_path.glob("ecosystem-*")) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not list(tmp_path.glob("ecosystem-*"))
    finally:
        del os.environ["TMPDIR"]


def test_a_stored_run_is_scrubbed(browser: object, scenario: Path, tmp_path: Path) -> None:
    run = ecosystem.run(scenario, out=tmp_path)
    with served(run.path) as (address, _):
        seen = Seen(browser, address)
        seen.page.close()


def test_other_sites_are_turned_away(live: str) -> None:
    def status(headers: dict[str, str]) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(live, headers=headers)) as answer:
                assert "connect-src 'self'" in answer.headers["content-security-policy"]
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert status({}) == 200
    assert status({"Host": "attacker.example"}) == 403
    assert status({"Origin": "http://attacker.example"}) == 403
