"""The interactive page from a notebook: a process of its own, in a frame that has the page's cookie."""

from __future__ import annotations

import re
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import ecosystem
from ecosystem.app.notebook import View
from ecosystem.errors import EcosystemError
from tests.test_view_browser import CHROMIUM, SCENARIO, WAIT

pytestmark = pytest.mark.slow
pytest.importorskip("solara", reason="the extra view is not installed")


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch) -> ecosystem.Scenario:
    (tmp_path / "texts").mkdir()
    for number in range(120):
        (tmp_path / "texts" / f"{number}.txt").write_text(" ".join(f"w{(number * k) % 37}" for k in range(1, 30)))
    (tmp_path / "seen.toml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)  # the notebook's folder: relative paths of its scenarios start there
    return ecosystem.Scenario.load("seen.toml")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ((), "not 0 things"),
        (("a", "b", "c"), "not 3 things"),
        ((7,), "expected a Run or the path of its folder"),
        (("no_such_run_or_file",), "no_such_run_or_file"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_sentence_of_the_command(what, words):
    with pytest.raises(EcosystemError, match=words) as refused:
        ecosystem.view(*what)
    assert "Traceback" not in str(refused.value) and not str(refused.value).startswith("Error")


def test_a_scenario_and_a_run_are_not_compared(scenario):
    with pytest.raises(EcosystemError, match="two runs can be compared"):
        ecosystem.view(scenario, "seen.toml")


def test_a_page_is_served_until_it_is_stopped(scenario, cache):
    run = ecosystem.run(scenario.override({"steps": 1}), out="runs", cache=cache)
    with ecosystem.view(run) as page:
        with urllib.request.urlopen(page.address) as answer:
            policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*" in policy
        assert page.running and page.address in repr(page) and "<iframe" in page._repr_html_()
    assert not page.running and "stopped" in repr(page) and "<iframe" not in page._repr_html_()


def test_pages_outside_notebooks_cannot_be_framed():
    from ecosystem.app.server import EMBEDDED, POLICY

    assert EMBEDDED[0] in POLICY


@pytest.fixture
def notebook(tmp_path):
    """A server of pages at another port, as a notebook's is."""
    folder = tmp_path / "site"
    folder.mkdir()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (set CHROMIUM, or install the package)")
def test_the_frame_of_a_world_shows_its_present_step(scenario, cache, notebook):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    world = ecosystem.World(scenario, seed=5, cache=cache)
    world.step()
    world.step()
    folder, port = notebook
    with ecosystem.view(world) as page, sync_api.sync_playwright() as player:
        assert isinstance(page, View)
        (folder / "cell.html").write_text(f"<!doctype html><title>notebook</title>{page._repr_html_()}")
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            for host in ("localhost", "127.0.0.1"):
                tab = browser.new_page()
                tab.goto(f"http://{host}:{port}/cell.html")
                step = tab.frame_locator("iframe").get_by_text(re.compile("step 2 of 6"), exact=False)
                sync_api.expect(step.first).to_be_visible(timeout=WAIT)
        finally:
            browser.close()
