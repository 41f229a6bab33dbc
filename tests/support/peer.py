"""A peer on loopback that plays a script: the same for every connection, or one script for each in turn.

A script is a transcript. `S:` lines are sent as they stand, with CRLF. `C: text` waits for a command that begins with
the text; `C: <content>` reads up to the final dot, `C: <swallow>` too but forgets it, `C: <chunk>` reads a BDAT command
with its bytes. A line that begins with `--` is an act: `-- close`, `-- reset`, `-- hang` (until the client goes away),
`-- say TEXT` (bytes without CRLF, with Python escapes), `-- drip TEXT` (the same again and again, a byte at a time,
until the client goes away), `-- idle SECONDS` (reads nothing meanwhile), `-- tls` (handshake as a server, with the
peer's certificate).
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import threading
from types import TracebackType


class Broken(Exception):
    """The client left, or did not say what the script waits for."""


class ScriptedPeer:
    """`with ScriptedPeer(script) as peer:` listens on 127.0.0.1:peer.port; `sessions` counts connections."""

    def __init__(self, *scripts: str, tls: ssl.SSLContext | None = None) -> None:
        self._scripts = [_parsed(script) for script in scripts]
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commands: list[str] = []
        self.contents: list[bytes] = []
        self.faults: list[str] = []
        self.sessions = 0
        self.leaving = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> ScriptedPeer:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it went first
        for thread in self._threads:
            thread.join(5)
        if kind is None:
            assert not self.faults, self.faults

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.sessions, len(self._scripts) - 1)]
            self.sessions += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._play, args=(connection, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, connection: socket.socket, script: list[tuple[str, str]]) -> None:
        connection.settimeout(20)
        session = _Session(self, connection)
        try:
            for kind, text in script:
                session.step(kind, text)
        except (Broken, OSError) as error:
            if isinstance(error, Broken):
                self.faults.append(str(error))
        finally:
            session.connection.close()

    @property
    def tls(self) -> ssl.SSLContext:
        assert self._tls is not None, "this script needs a TLS context"
        return self._tls


class _Session:
    def __init__(self, peer: ScriptedPeer, connection: socket.socket) -> None:
        self.peer = peer
        self.connection = connection
        self.buffer = b""

    def step(self, kind: str, text: str) -> None:
        if kind == "S":
            self.connection.sendall(text.encode() + b"\r\n")
        elif kind == "C":
            self._expect(text)
        else:
            self._act(text)

    def _act(self, text: str) -> None:
        verb, _, rest = text.partition(" ")
        if verb == "close":
            self.connection.close()
        elif verb == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif verb == "hang":
            while self.connection.recv(65_536):
                pass
        elif verb == "say":
            self.connection.sendall(_escaped(rest))
        elif verb == "drip":
            while not self._is_left():
                for byte in _escaped(rest):
                    self.connection.sendall(bytes([byte]))
                    self._is_left(0.05)
        elif verb == "idle":
            self.peer.leaving.wait(float(rest))
        elif verb == "tls":
            self.connection = self.peer.tls.wrap_socket(self.connection, server_side=True)
        else:
            raise AssertionError(f"unknown act {text!r}")

    def _is_left(self, seconds: float = 0.0) -> bool:
        """Whether the client said something, or went."""
        return bool(select.select([self.connection], [], [], seconds)[0])

    def _expect(self, text: str) -> None:
        if text == "<content>":
            self._content()
            return
        if text == "<swallow>":
            while not self.buffer.endswith(b"\r\n.\r\n"):
                self.buffer = self.buffer[-5:]
                self._more()
            self.buffer = b""
            return
        line = self._line()
        self.peer.commands.append(line)
        if text == "<chunk>":
            size = int(line.split()[1])
            while len(self.buffer) < size:
                self._more()
            self.peer.contents.append(self.buffer[:size])
            self.buffer = self.buffer[size:]
            return
        if not line.upper().startswith(text.upper()):
            raise Broken(f"expected {text!r}, the client said {line!r}")

    def _line(self) -> str:
        while b"\r\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode()

    def _content(self) -> None:
        while True:
            whole = b"\r\n" + self.buffer
            end = whole.find(b"\r\n.\r\n")
            if end >= 0:
                break
            self._more()
        self.peer.contents.append(re.sub(rb"\r\n\.", b"\r\n", whole[: end + 2])[2:])
        self.buffer = whole[end + 5 :]

    def _more(self) -> None:
        data = self.connection.recv(65_536)
        if not data:
            raise OSError("the client closed")
        self.buffer += data


def _escaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _parsed(script: str) -> list[tuple[str, str]]:
    steps = []
    for line in script.strip().splitlines():
        line = line.strip()
        if line.startswith("--"):
            steps.append(("--", line[2:].strip()))
        elif line[:2] in ("S:", "C:"):
            steps.append((line[0], line[2:].strip()))
        elif line:
            raise AssertionError(f"no step of a script: {line!r}")
    return steps
