"""A server with the faults that attacks look for, each switched on by its name. Nothing of it is a model."""

from __future__ import annotations

import re
import socket
import ssl
import threading

# What can be wrong with it.
FAULTS = (
    "any dot",  # whatever looks like a dot alone on a line ends content
    "any line end",  # CR and LF end a command, each
    "NUL is a line end",
    "keeps the buffer",  # what came with STARTTLS is answered under TLS
    "remembers",  # the transaction goes on under TLS
    "remembers the greeting",
    "falls back",  # a failed handshake, and it goes on in the clear
    "endless patience",  # no number of mistakes ends the session; HTTP is a mistake
    "one at a time",  # a client waits until the one before has gone
    "drops on half-close",
    "any size",
    "no pieces",  # what does not come at once is no command
    "silent at odd addresses",
)

_DOTS = re.compile(rb"(?:\r\n|\r|\n)(?:\0?\.\0? ?)(?:\r\n|\r|\n)")


class Naive:
    """`with Naive("any dot", tls=context) as server:` listens on 127.0.0.1:server.port."""

    def __init__(self, *faults: str, tls: ssl.SSLContext | None = None) -> None:
        assert set(faults) <= set(FAULTS), faults
        self._faults = faults
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Naive:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it went first
        self._accepting.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            session = _Session(client, self._faults, self._tls)
            if "one at a time" in self._faults:
                session.run()
            else:
                threading.Thread(target=session.run, daemon=True).start()


class _Session:
    def __init__(self, client: socket.socket, faults: tuple[str, ...], tls: ssl.SSLContext | None) -> None:
        self._client = client
        self._faults = faults
        self._tls = tls
        self._buffer = b""
        self._greeted = self._sender = self._recipient = False
        self._mistakes = 0

    def run(self) -> None:
        with self._client:
            try:
                self._say("220 naive.test")
                while (line := self._line()) is not None and self._answer(line):
                    pass
            except OSError:
                pass  # the client is gone, or stopped
        self._client.close()

    def _say(self, text: str) -> None:
        self._client.sendall(text.encode() + b"\r\n")

    def _receive(self) -> bool:
        takes_pieces = "no pieces" not in self._faults
        data = self._client.recv(65_536 if takes_pieces else 12)
        if not takes_pieces and not data.endswith(b"\r\n"):
            raise OSError("that is no command")
        self._buffer += data
        return bool(data)

    def _line(self) -> bytes | None:
        ends = rb"\r\n"
        if "any line end" in self._faults:
            ends = rb"\r\n|\r|\n"
        if "NUL is a line end" in self._faults:
            ends = rb"\r\n|\0"
        while (end := re.search(ends, self._buffer)) is None:
            if not self._receive():
                return None
            if "drops on half-close" in self._faults and self._is_half_closed():
                return None
        line, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
        return line

    def _is_half_closed(self) -> bool:
        self._client.settimeout(0.2)
        try:
            return self._client.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError:
            return False
        finally:
            self._client.settimeout(None)

    def _answer(self, line: bytes) -> bool:
        verb, _, rest = line.partition(b" ")
        verb = verb.upper()
        if self._is_bad(line):
            self._say("500 5.5.2 what is this")
        elif verb == b"EHLO":
            self._greeted, self._sender, self._recipient = True, False, False
            offers = ["STARTTLS"] if self._tls and not isinstance(self._client, ssl.SSLSocket) else []
            keywords = ["naive.test", "PIPELINING", "SIZE 50000", *offers]
            for n, word in enumerate(keywords):
                self._say(f"250{' ' if n == len(keywords) - 1 else '-'}{word}")
        elif verb == b"MAIL":
            self._sender = self._greeted
            self._say("250 ok" if self._greeted else "503 greet me")
        elif verb == b"RCPT":
            if b"elsewhere" in rest and "silent at odd addresses" in self._faults:
                return True
            self._recipient = self._sender
            self._say("250 ok" if self._sender else "503 who sends?")
        elif verb == b"DATA" and self._recipient:
            return self._content()
        elif verb == b"STARTTLS" and self._tls:
            return self._start_tls()
        elif verb in (b"NOOP", b"RSET"):
            self._say("250 ok")
        elif verb == b"QUIT":
            self._say("221 bye")
            return False
        elif line.endswith(b"HTTP/1.1") and "endless patience" not in self._faults:
            return False
        else:
            self._mistakes += 1
            if self._mistakes > 20 and "endless patience" not in self._faults:
                self._say("421 enough")
                return False
            self._say("500 what is this")
        return True

    def _is_bad(self, line: bytes) -> bool:
        return any(octet in line for octet in (b"\r", b"\n", b"\0"))

    def _content(self) -> bool:
        self._say("354 go on")
        self._buffer = b"\r\n" + self._buffer
        ends = _DOTS if "any dot" in self._faults else re.compile(rb"\r\n\.\r\n")
        size = 0
        while (end := ends.search(self._buffer)) is None:
            if len(self._buffer) > 100_000:
                size += len(self._buffer) - 10
                self._buffer = self._buffer[-10:]
            if not self._receive():
                return False
        size += end.start()
        self._buffer = self._buffer[end.end() :]
        self._sender = self._recipient = False
        self._say("250 ok" if size <= 50_000 or "any size" in self._faults else "552 5.3.4 too much")
        return True

    def _start_tls(self) -> bool:
        assert self._tls is not None
        self._say("220 go on")
        behind, self._buffer = self._buffer, b""
        if self._client.recv(1, socket.MSG_PEEK) != b"\x16":
            return "falls back" in self._faults
        self._client = self._tls.wrap_socket(self._client, server_side=True)
        self._buffer = behind if "keeps the buffer" in self._faults else b""
        if "remembers" not in self._faults:
            self._sender = self._recipient = False
            self._greeted = "remembers the greeting" in self._faults
        return True
