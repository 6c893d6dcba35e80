"""The interactive page in a real browser: what a reader does, what leaves the machine (nothing), and what it shows.

Needs Chromium (Debian's package, or CHROMIUM naming a program) and the extra view; skipped with a reason without them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

import ecosystem
from tests.conftest import with_kernels

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytest.importorskip("solara", reason="the extra view is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (set CHROMIUM, or install the package)"),
    pytest.mark.slow,
]
COMMAND = [sys.executable, "-X", "faulthandler", "-m", "ecosystem"]
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
[[knobs]]
path = "writers.people.rate"
label = "written"
low = 5.0
high = 10.0
step = 1.0
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
    command = [*COMMAND, "view", *map(str, arguments), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read() if process.stderr else line
        yield line.split()[0], process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says then where every thread of it is
            pytest.fail(f"the server did not end: {process.communicate()[1][-8000:]}")


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
        self.page.set_default_timeout(WAIT)
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

    def shown(self) -> int:
        """Return the step that the first chart shows."""
        return int(self.page.evaluate("+document.querySelector('.eco-chart').dataset.drawn.split('/')[0]"))

    def reached(self, step: int) -> None:
        """Wait until a chart shows this step or a later one: of those that are played, quick ones pass by undrawn."""
        past = "(step) => +document.querySelector('.eco-chart').dataset.drawn.split('/')[0] >= step"
        self.page.wait_for_function(past, arg=step, timeout=WAIT)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def says(self, text: str | re.Pattern[str]) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=WAIT)

    def turn(self, label: str, presses: int, until: str) -> None:
        """Turn a slider by so many of its steps, until it says this."""
        self.page.wait_for_timeout(1000)  # what was drawn last may still be settling
        slider = self.page.locator(".v-input__slider", has_text=label).locator(".v-slider__thumb-container").first
        slider.focus()
        for _ in range(presses):
            self.page.keyboard.press("ArrowRight")
        self.says(f"{label}: {until}")


def test_a_world_is_stepped_and_nothing_is_asked_of_another_machine(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    for step in (1, 2):
        seen.press("Step")
        seen.drawn(step)
    assert seen.page.get_by_text("From step").count() == 0  # nobody turned the knob whose value lies outside its range
    seen.press("Reset")
    seen.drawn(0)
    outside = [url for url in seen.asked if not url.startswith((live, "data:", "blob:"))]
    assert not outside
    assert len([url for url in seen.asked if url.startswith(live)]) > 5  # the listening was on
    assert not seen.failed
    seen.page.close()


def test_playing_goes_on_by_itself_until_it_is_paused(browser: object, scenario: Path) -> None:
    with served(scenario, "--threads", "1", "--steps", "500") as (address, _):
        seen = Seen(browser, address)
        seen.press("▶")
        seen.reached(2)
        seen.press("❚❚")
        seen.page.get_by_role("button", name="▶", exact=True).wait_for(timeout=WAIT)
        seen.page.locator(".eco-going", has_text=re.compile("At step")).wait_for(timeout=WAIT)  # after one under way
        seen.page.wait_for_timeout(1000)  # and after it was drawn
        at = seen.shown()
        seen.page.wait_for_timeout(1500)
        assert seen.shown() == at
        seen.page.close()


def test_a_knob_acts_from_the_next_step_on(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    seen.press("Step")
    seen.drawn(1)
    seen.turn("published", 3, "25")
    seen.says("From step 2 on: trainers.labs.publish = 25")
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


def test_text_of_documents_is_text(browser: object, live: str) -> None:
    """Every document of this web holds a script, an image whose error runs one, HTML and Markdown."""
    seen = Seen(browser, live)
    seen.page.get_by_role("button", name=re.compile("^Reading")).click()
    seen.says(re.compile("document.title='taken'"))
    assert seen.page.title() == "seen · ecosystem"
    assert "**bold** <b>fat</b> <img src=x" in seen.page.locator(".eco-words").first.inner_text()
    assert seen.page.locator(".eco-words :is(script, b, img, strong)").count() == 0
    assert not [url for url in seen.asked if url.endswith("/x")]
    seen.page.close()


def test_closing_the_tab_stops_the_work(browser: object, scenario: Path, tmp_path: Path) -> None:
    os.environ["TMPDIR"] = str(tmp_path)
    try:
        with served(scenario, "--threads", "1") as (address, _):
            seen = Seen(browser, address)
            assert list(tmp_path.glob("ecosystem-*"))
            seen.press("▶")
            seen.reached(1)
            seen.page.goto("about:blank")  # a headless browser says nothing when a tab is closed from outside
            deadline = time.monotonic() + WAIT / 1000
            while list(tmp_path.glob("ecosystem-*")) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert not list(tmp_path.glob("ecosystem-*"))
    finally:
        del os.environ["TMPDIR"]


def test_a_stored_run_is_scrubbed_and_played_to_its_end(browser: object, scenario: Path, tmp_path: Path) -> None:
    run = ecosystem.run(scenario, out=tmp_path)
    with served(run.path) as (address, _):
        seen = Seen(browser, address)
        slider = seen.page.locator(".v-input__slider", has_text="Step 0 of 6").locator(".v-slider__thumb-container")
        slider.focus()
        for step in range(1, 4):
            seen.page.keyboard.press("ArrowRight")
            seen.drawn(step)
        seen.says("The web at step 3")
        seen.press("▶")
        seen.drawn(6)
        seen.page.wait_for_timeout(2000)
        assert seen.shown() == 6  # it has ended, and does not begin again
        seen.press("Reset")
        seen.drawn(0)
        seen.press("▶")
        seen.reached(2)
        seen.press("❚❚")
        seen.page.get_by_role("button", name="▶", exact=True).wait_for(timeout=WAIT)
        seen.page.wait_for_timeout(1000)
        at = seen.shown()
        seen.page.wait_for_timeout(1500)
        assert seen.shown() == at < 6
        assert not seen.failed
        seen.page.close()


def test_a_session_that_is_saved_is_replayed_to_the_same_numbers(
    browser: object, live: str, scenario: Path, tmp_path: Path
) -> None:
    seen = Seen(browser, live, accept_downloads=True)
    seen.press("Step")
    seen.drawn(1)
    seen.turn("published", 2, "20")
    seen.says("From step 2 on: trainers.labs.publish = 20")
    for step in (2, 3):
        seen.press("Step")
        seen.drawn(step)
    with seen.page.expect_download() as download:
        seen.press("Save scenario")
    saved = scenario.with_name("saved.toml")  # beside the texts it reads
    download.value.save_as(saved)
    seen.page.get_by_role("button", name=re.compile("^Reading")).click()
    seen.says("Its first documents")

    command = [*COMMAND, "run", str(saved), "--steps", "3", "--threads", "1", "--quiet"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, capture_output=True)
    [folder] = tmp_path.glob("seen-*/3")
    run = ecosystem.Run.open(folder)
    published = run.documents.filter(pl.col("synthetic") & (pl.col("t") > 0)).group_by("t").len().sort("t").collect()
    assert published.rows() == [(1, 20), (2, 40), (3, 40)]  # two trainers; 10 each, then 20
    first = run.documents.filter((pl.col("t") == 3) & (pl.col("author") == "labs/0")).collect()["content"][0]
    deadline = time.monotonic() + WAIT / 1000  # what is read comes a moment after the panel
    while first[:60].strip() not in seen.page.locator(".eco-world").inner_text() and time.monotonic() < deadline:
        seen.page.wait_for_timeout(500)
    assert first[:60].strip() in seen.page.locator(".eco-world").inner_text()
    seen.page.close()


def test_a_fork_stands_beside_its_parent_and_goes_its_own_way(browser: object, live: str) -> None:
    seen = Seen(browser, live)
    seen.press("Step")
    seen.drawn(1)
    seen.page.get_by_role("button", name="Fork here (step 1)").click()
    seen.says("Second: seen, seed 3")
    seen.turn("published", 4, "30")
    seen.press("Step")
    seen.drawn(2)
    seen.says("From step 2 on: trainers.labs.publish = 30")
    seen.page.wait_for_function("document.querySelectorAll(\".eco-chart[data-drawn='2/2']\").length >= 8")
    seen.press("Reset")
    seen.drawn(0)
    assert seen.page.locator(".eco-world").count() == 1
    assert not seen.failed
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
    assert status({"Origin": "http://[malformed"}) == status({"Host": "[malformed"}) == 403


def test_connections_without_a_tab_are_refused_without_a_traceback(scenario: Path) -> None:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    with served(scenario, "--threads", "1") as (address, process):
        channels = f"{address.replace('http', 'ws')}/jupyter/api/kernels/one/channels"
        for query in ("", "?session_id=", "?session_id=a&session_id=b", "?session_id=%00"):
            with pytest.raises(Exception, match="HTTP 403"):
                client.connect(channels + query)
        for query, status in (("", 400), ("?session_id=unknown", 404)):
            with pytest.raises(urllib.error.HTTPError, match=str(status)):
                urllib.request.urlopen(f"{address}/_solara/api/close/one{query}", data=b"")
        with client.connect(channels + "?session_id=fresh"):
            time.sleep(1)  # Solara registers the tab after it has accepted the connection
            with pytest.raises(Exception, match="HTTP 403"):  # the tab of another browser
                client.connect(channels + "?session_id=fresh", additional_headers={"Cookie": "solara-session-id=x"})
            with pytest.raises(urllib.error.HTTPError, match="404"):  # an open kernel, another tab
                urllib.request.urlopen(f"{address}/_solara/api/close/one?session_id=unknown", data=b"")
        process.terminate()
        _, log = process.communicate(timeout=60)
        assert "Traceback" not in log and "KeyError" not in log


def test_steps_pressed_while_a_world_opens_or_steps_are_made(browser: object, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(400):
        words = " ".join(f"word{(number * k) % 97}" for k in range(1, 60))
        (tmp_path / "texts" / f"{number:03d}.txt").write_text(f"document {number} {words}", encoding="utf-8")
    gpt2 = 'preset = "gpt2-nano"\nfoundation.tokens = 60_000'  # opens within seconds rather than at once
    slow = SCENARIO.replace('preset = "unigram"', gpt2).replace("documents = 40", "documents = 200")
    (tmp_path / "slow.toml").write_text(slow, encoding="utf-8")
    with served(tmp_path / "slow.toml", "--threads", "1", "--cache", with_kernels(tmp_path / "cache")) as (address, _):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})  # type: ignore[attr-defined]
        page.set_default_timeout(WAIT)
        page.goto(address)
        going = page.locator(".eco-going")
        going.filter(has_text="Opening the web").wait_for()
        step = page.get_by_role("button", name="Step", exact=True)
        step.click()
        going.filter(has_text="Opening the web, then 1 more step").wait_for()
        step.click()
        going.filter(has_text="Opening the web, then 2 more steps").wait_for()
        going.filter(has_text="Step 1 of 6, then 1 more step").wait_for()
        going.filter(has_text="At step 2 of 6").wait_for()
        step.click()
        going.filter(has_text="Step 3 of 6").wait_for()
        step.click()
        going.filter(has_text="Step 3 of 6, then 1 more step").wait_for()
        page.get_by_role("button", name="Cancel the further steps", exact=True).click()
        going.filter(has_text="At step 3 of 6").wait_for()
        page.wait_for_timeout(1500)
        assert "At step 3 of 6" in going.inner_text()
        page.close()
