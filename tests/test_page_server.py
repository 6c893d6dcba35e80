"""The page's server: which requests reach Solara, what is said to the others, and threads that outlive their tab."""

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("solara", reason="the extra view is not installed")

from solara.server import kernel_context

from ecosystem.app.server import LOCAL, _Guard, _stopping
from ecosystem.app.worlds.actions import in_background
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.session_model import SessionConfig
from tests.conftest import MACHINE
from tests.test_branch import words

KERNELS, CLOSE = "/jupyter/api/kernels", "/_solara/api/close"
TAB = "0b8e7c1e-6f0e-4a7e-9f43-0d8a3d1c2b4f"
GOOD = {"host": "127.0.0.1:8000", "cookie": "solara-session-id=mine"}


@pytest.fixture(autouse=True)
def open_tab(monkeypatch):
    """One tab of the browser ``mine`` is open."""
    tab = SimpleNamespace(session_id="mine", page_status={TAB: "connected"})
    monkeypatch.setattr(kernel_context, "contexts", {"open": tab})


def answer(path, headers=GOOD, kind="http"):
    """Return what the guard answers: a status, "closed" for a refused websocket, or "passed"."""
    sent = []

    async def app(scope, receive, send):
        sent.append({"passed": True})

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": pairs, "method": "GET"}
    asyncio.run(_Guard(app, set(LOCAL))(scope, None, send))
    if "passed" in sent[0]:
        return "passed"
    return sent[0].get("status") or sent[0]["type"].replace("websocket.close", "closed")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "[::1]:8000", "LOCALHOST"])
def test_hosts_of_this_machine_are_answered(host):
    assert answer("/", {"host": host}) == answer("/", {"host": host}, "websocket") == "passed"


HOSTS = [
    "",
    "attacker.example",
    "127.0.0.1.example",
    "[malformed",
    "[::1",
    "[::g]",
    "[localhost]",
    "a b",
    "localhost:x",
]
HOSTS += ["localhost:99999999", "localhost:80:90", "me@localhost", "localhost@a", "localhost/..", "localhost?x", "\xff"]
HOSTS += ["http://localhost", "//localhost", "localhost#", "localhost\t", "\u2100".encode().decode("latin-1")]


@pytest.mark.parametrize("host", HOSTS)
def test_malformed_and_foreign_hosts_are_refused(host):
    assert answer("/", {"host": host}) == 403
    assert answer(f"{KERNELS}/new/channels?session_id=a", {"host": host}, "websocket") == "closed"


@pytest.mark.parametrize(
    "origin", ["", "null", "http://attacker.example", "http://[malformed", "http://127.0.0.1:9", "127.0.0.1:8000", "["]
)
def test_malformed_and_foreign_origins_are_refused(origin):
    assert answer("/", {**GOOD, "origin": origin}) == 403
    assert answer(f"{KERNELS}/new/channels?session_id=a", {**GOOD, "origin": origin}, "websocket") == "closed"
    assert answer("/", {**GOOD, "origin": "http://127.0.0.1:8000"}) == "passed"


BAD_TABS = ["", "?", "?session_id", "?session_id=", "?session_id=a&session_id=b", "?session_id=%00", "?session_id=a b"]
BAD_TABS += ["?session_id=../x", "?session_id=%ff", "?session_id=" + "a" * 65, "?other=a", "?session_id=%F0%9F%98%80"]


@pytest.mark.parametrize("query", BAD_TABS)
def test_a_connection_without_a_proper_tab_is_refused(query):
    assert answer(f"{KERNELS}/new/channels{query}", kind="websocket") == "closed"
    assert answer(f"{CLOSE}/open{query}") == 400


def test_new_tabs_connect_and_open_ones_belong_to_their_browser():
    for kernel, cookie, expected in (
        ("new", "solara-session-id=mine", "passed"),
        ("new", "", "passed"),  # a browser that keeps no cookies
        ("open", "solara-session-id=mine", "passed"),
        ("open", "solara-session-id=other", "closed"),
        ("open", "", "closed"),
        ("..", "solara-session-id=mine", "closed"),
    ):
        headers = {**GOOD, "cookie": cookie}
        assert answer(f"{KERNELS}/{kernel}/channels?session_id={TAB}", headers, "websocket") == expected


def test_only_an_open_tab_is_closed():
    assert answer(f"{CLOSE}/open?session_id={TAB}") == "passed"
    assert answer(f"{CLOSE}/open?session_id=unknown") == answer(f"{CLOSE}/unknown?session_id={TAB}") == 404


def test_ctrl_c_says_once_that_the_page_waits_for_what_is_computed(capfd):
    server = SimpleNamespace(should_exit=False)
    server.handle_exit = lambda number, frame: setattr(server, "should_exit", True)
    for _ in range(2):
        _stopping(server)(2, None)
    assert server.should_exit and capfd.readouterr().err == "\nStopping after what is being computed.\n"


def outlived(out):
    """Close a tab while threads of it begin others; return what these reached, and whether the tab was signalled."""
    import solara.server.app  # noqa: F401  replaces parts of the interpreter, its threads among them
    from solara.server.kernel import Kernel

    from ecosystem.app import page

    closed, reached, signalled = threading.Event(), [], []
    page.tell = lambda: signalled.append(kernel_context.get_current_context() is tab)

    def work(name):
        assert closed.wait(60)
        with ThreadPoolExecutor(1) as pool:
            reached.append(pool.submit(str, name).result(60))

    LiveRun._work = lambda _: work("world")
    tab = kernel_context.VirtualKernelContext("a tab", Kernel(), "mine")
    with tab:
        session = page.session_class(SessionConfig((), words(), out, MACHINE, out))()
        task = in_background(session, lambda _: work("task"))
    tab.kernel = None  # as Solara closes it
    closed.set()
    session.live_runs[0].join(20)
    task.join(20)
    return sorted(reached), signalled


def test_work_begun_in_a_tab_outlives_it_and_signals_to_it(tmp_path):
    """A thread of a closed tab never says that it has begun, so what starts it would wait for ever."""
    with multiprocessing.get_context("spawn").Pool(1) as process:  # ends what hangs
        assert process.apply_async(outlived, (tmp_path,)).get(120) == (["task", "world"], [True])
