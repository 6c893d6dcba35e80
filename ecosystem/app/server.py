"""Serve the page: Solara's application in production mode, the drawing library, and a content security policy.

Nothing is fetched from outside: Solara's assets come from a package, telemetry and proxies are off, and the policy
restricts the browser to this server.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from ecosystem.app import LIBRARY
from ecosystem.app.worlds.run_view import stored
from ecosystem.app.worlds.session_model import SessionConfig
from ecosystem.errors import EcosystemError
from ecosystem.report.html import library

LOCAL = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
EMBEDDED = "frame-ancestors 'none'", "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
_KERNELS, _CLOSE = "/jupyter/api/kernels/", "/_solara/api/close/"  # addresses of a tab's connection and its end
_TAB = re.compile(r"[0-9A-Za-z_-]{1,64}")  # browsers make a UUID
_SETTINGS = {
    "SOLARA_MODE": "production",
    "SOLARA_TELEMETRY_MIXPANEL_ENABLE": "false",
    "SOLARA_ASSETS_PROXY": "true",  # served from the package solara-assets
    "SOLARA_ASSETS_CDN": "http://127.0.0.1:9/",  # unreachable: a missing asset is not fetched from elsewhere
    "SOLARA_KERNEL_CULL_TIMEOUT": "5m",  # for a tab whose connection was lost
    "SOLARA_THEME_SHOW_BANNER": "false",
    "SOLARA_SESSION_SAME_SITE": "lax",
    "SOLARA_CHECK_HOOKS": "off",  # Mesa's components fail them
    "SOLARA_APP": "ecosystem.app.page",
}


def serve(config: SessionConfig, host: str, port: int, ready: Callable[[str], None], *, embed: bool = False) -> None:
    """Serve the page of a session until Ctrl-C; ``ready`` is called with its address once it can be opened.

    Port 0 means any free port. ``embed`` lets pages of this machine, such as notebooks, show it in a frame.
    Raises EcosystemError if the address cannot be bound or the extra is not installed.
    """
    os.environ.update(_SETTINGS)
    warnings.filterwarnings("ignore", module=r"solara\.|reacton\.")  # meant for developers of Solara applications
    try:
        import uvicorn
        from solara.server import starlette as solara
    except ImportError as error:
        raise EcosystemError(
            f"the interactive page needs the extra view ({error.name} is missing): pip install 'ecosystem[view]'."
        ) from None
    from ecosystem.app import page

    page.CONFIG = config
    library()  # prepare it, and the views below, before the first request
    for path in config.runs:
        stored(path)
    names = set(LOCAL) if host in LOCAL else None
    listening = _listen(host, port)
    address = f"http://{_bracketed(host)}:{listening.getsockname()[1]}"
    settings = uvicorn.Config(
        _Guard(solara.app, names, POLICY.replace(*EMBEDDED) if embed else POLICY),
        log_level="warning",
        ws_max_size=2**26,
        ws_ping_interval=60,
        ws_ping_timeout=600,  # a machine that trains models may be slow to answer
        timeout_graceful_shutdown=3,
        lifespan="on",
    )
    server = uvicorn.Server(settings)

    @contextmanager
    def until_stopped() -> Iterator[None]:
        """Stop at Ctrl-C without raising the signal again, as uvicorn would: it would prevent the cleanup."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stopping(server))
        yield

    server.capture_signals = until_stopped
    original = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await original(sockets)
        ready(address)

    server.startup = startup
    server.run(sockets=[listening])


def _stopping(server: Any) -> Callable[[int, FrameType | None], None]:
    """Return a signal handler that ends the server and says, at the first signal, that it may take a while."""

    def stop(number: int, frame: FrameType | None) -> None:
        if not server.should_exit:  # not through a stream, which the handler may have interrupted while it writes
            os.write(2, b"\nStopping after what is being computed.\n")
        server.handle_exit(number, frame)

    return stop


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise EcosystemError(
            f"--host {host} --port {port}: cannot listen on this address ({error.strerror})."
        ) from None
    return listening


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, ``name`` or ``name:port``; None if it is malformed."""
    try:
        address = urlsplit(f"//{host}")
        _ = address.port  # raises ValueError if it is not a port
    except ValueError:
        return None
    return address.hostname if address.netloc == host and "@" not in host else None


def _host_of(origin: str) -> str | None:
    """Return the host in an Origin header; None if it is malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _refusal(scope: dict[str, Any]) -> tuple[int, str] | None:
    """Return a status and a reason if a request is for a tab but does not name one properly; else None.

    Solara takes both identifiers for granted. Browsers choose them, so a new connection may bring unknown ones; but
    only the browser that opened a tab may connect to it again, and only an open tab can be closed.
    """
    start = next((start for start in (_KERNELS, _CLOSE) if scope["path"].startswith(start)), None)
    if start is None or (start == _KERNELS and scope["type"] == "http"):
        return None
    from solara.server.kernel_context import contexts
    from solara.server.server import COOKIE_KEY_SESSION_ID
    from starlette.requests import HTTPConnection

    connection = HTTPConnection(scope)
    kernel, tabs = scope["path"].removeprefix(start).split("/")[0], connection.query_params.getlist("session_id")
    if len(tabs) != 1 or not _TAB.fullmatch(tabs[0]) or not _TAB.fullmatch(kernel):
        return 400, "This address is for the page itself: it must name a tab as session_id=… and its kernel."
    context = contexts.get(kernel)
    if start == _CLOSE and (context is None or tabs[0] not in context.page_status):
        return 404, "No such tab is open."
    owner = connection.cookies.get(COOKIE_KEY_SESSION_ID)
    if start == _KERNELS and context is not None and owner != context.session_id:
        return 403, "This tab was opened by another browser."
    return None


class _Guard:
    """Add the security policy to every response, serve the drawing library, and reject requests from other sites.

    Another site open in the same browser could otherwise reach this server, by its address or by DNS rebinding.
    Requests that Solara would answer with a traceback are rejected too.
    """

    def __init__(self, app: Any, names: set[str] | None, policy: str = POLICY) -> None:
        self.app, self.names, self.policy = app, names, policy

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if self.names is not None:  # compression is wasted on a local connection
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"accept-encoding"]}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        foreign = origin is not None and _host_of(origin) != host
        unknown = self.names is not None and _name_of(host) not in self.names
        refusal = _refusal(scope)
        if scope["type"] == "websocket":
            if foreign or unknown or refusal is not None:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.app(scope, receive, send)
            return

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", self.policy.encode()), (b"referrer-policy", b"no-referrer")]
                if scope["path"] == "/":
                    added.append((b"link", f"<{LIBRARY}>; rel=preload; as=script".encode()))
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        from starlette.responses import Response

        answer: Any = self.app
        if foreign or unknown:
            answer = Response("This page is for the machine it runs on.", status_code=403)
        elif refusal is not None:
            answer = Response(refusal[1], status_code=refusal[0])
        elif scope["path"] == LIBRARY:
            answer = Response(library(), media_type="text/javascript", headers={"cache-control": "max-age=86400"})
        await answer(scope, receive, guarded)
