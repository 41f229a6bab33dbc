"""The port for those who watch: /metrics, /healthz (the process lives) and /readyz (mail is taken; else 503 and why).
/metrics needs prometheus_client (extra `daemon`); without it, it is answered 501 and what to install.

One request at a time in a thread of its own, each within its seconds: a watcher that dawdles holds up watchers only.
Thread: start() and stop() from main.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

from smtpd_core.accounts.extras import ExtraMissing, needed
from smtpd_core.app.figures import Figure
from smtpd_core.threads import Loop, start_loop

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

Gather = Callable[[], Iterable[Figure]]

# A watcher's whole request. It comes from this machine and fits into one packet.
PATIENCE = 5.0


class WatchPort:
    """Bound when it is made (OSError), serving from start() to stop()."""

    def __init__(self, bind: str, figures: Gather, why_not_ready: Callable[[], str]) -> None:
        host, _, port = bind.rpartition(":")
        self._server = _Server((host.strip("[]"), int(port)), figures, why_not_ready)
        self._loop: Loop | None = None
        self._stopping = False

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        try:
            needed("prometheus_client", extra="daemon", purpose="/metrics")
        except ExtraMissing as missing:
            self._server.missing = str(missing)
        self._loop = start_loop("watch-port", self._serve)

    def _serve(self) -> None:
        while not self._stopping:
            self._server.handle_request()

    def stop(self) -> None:
        """Idempotent."""
        self._stopping = True
        if self._loop is not None:
            try:
                # Ends the wait for a next watcher without waking up now and then just to look (2 is SHUT_RDWR).
                self._server.socket.shutdown(2)
            except OSError:
                pass  # only Linux does that to a listener; elsewhere the thread ends with the process
            self._loop.join(0.5)
            self._loop = None
        self._server.server_close()


class _Server(HTTPServer):
    def __init__(self, address: tuple[str, int], figures: Gather, why_not_ready: Callable[[], str]) -> None:
        self.figures = figures
        self.missing = ""
        self.why_not_ready = why_not_ready
        super().__init__(address, _Watcher)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for our own name, which may take long and is of no use here.
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("a watcher's request failed", exc_info=True)


class _Patient(io.RawIOBase):
    """What a watcher says until a deadline, however little at a time; then TimeoutError."""

    def __init__(self, connection: Any, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, room: WriteableBuffer, /) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return int(self._connection.recv_into(room))


class _Watcher(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Patient(self.connection, time.monotonic() + PATIENCE))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            self._say(200, "ok\n")
        elif path == "/readyz":
            reason = self.server.why_not_ready()
            self._say(503 if reason else 200, f"{reason or 'ready'}\n")
        else:
            self._say(404, "there are /metrics, /healthz and /readyz\n")

    do_HEAD = do_GET

    def _metrics(self) -> None:
        if self.server.missing:
            self._say(501, f"{self.server.missing}\n")
            return
        from smtpd_core.app.exposition import as_text  # can't be imported where the library is missing

        try:
            text, kind = as_text(self.server.figures(), self.headers.get("Accept", ""))
        except Exception as error:
            # Whatever is wrong with one of the things that are looked at, its watcher has to hear of it.
            log.exception("the figures can't be gathered")
            self._say(500, f"the figures can't be gathered: {error}\n")
            return
        self._send(200, text, kind)

    def _say(self, code: int, text: str) -> None:
        self._send(code, text.encode(), "text/plain; charset=utf-8")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.connection.settimeout(PATIENCE)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("watcher %s: %s", self.client_address[0], format % arguments)
