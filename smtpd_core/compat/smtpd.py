"""The shape of the `smtpd` module that left the standard library with Python 3.12, on this engine.

    class Mine(smtpd.SMTPServer):
        def process_message(self, peer, mailfrom, rcpttos, data, **kwargs): ...

    server = Mine(("localhost", 8025), None)      listens at once
    smtpd.loop(server)                            where asyncore.loop() was

`python -m smtpd_core.compat.smtpd [-n] [-V] [-c CLASS] [-s SIZE] [-u] [-d] [host:port [host:port]]` is the old command
line. What differs is in docs/migrating.md.
Thread: process_message runs in a thread of the server's, one at a time unless max_thread_count says otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import os
import smtplib
import sys
from typing import Any

import smtpd_core
from smtpd_core.compat.words import mail_options, rcpt_options, reply_of
from smtpd_core.server import Message, Session, SmtpServer
from smtpd_core.wire.replies import Reply

__all__ = ["DATA_SIZE_DEFAULT", "DebuggingServer", "PureProxy", "SMTPServer", "loop"]

DATA_SIZE_DEFAULT = 33_554_432

Address = tuple[str, int]


class SMTPServer:
    """Listens from the constructor on, at `localaddr` (port 0: see `addr`). Subclasses override process_message.

    `map` is accepted and ignored. ValueError where decode_data and enable_SMTPUTF8 are both set.
    """

    max_thread_count = 1
    """Messages processed at the same time: one, as it used to be. A subclass that can do more says so."""

    def __init__(
        self,
        localaddr: Address,
        remoteaddr: Address | None,
        data_size_limit: int | None = DATA_SIZE_DEFAULT,
        map: object = None,
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
        **properties: Any,
    ) -> None:
        if enable_SMTPUTF8 and decode_data:
            raise ValueError("decode_data and enable_SMTPUTF8 cannot be set to True at the same time")
        self._localaddr = localaddr
        self._remoteaddr = remoteaddr
        self.data_size_limit = data_size_limit or 0
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        # What the old channel did not offer a program would not expect; SMTPUTF8 was a choice.
        without = ["CHUNKING", "BINARYMIME", "DSN", "DELIVERBY", "MT-PRIORITY"] + ["SMTPUTF8"] * (not enable_SMTPUTF8)
        without += ["8BITMIME"] * decode_data
        host, port = localaddr[0] or "*", localaddr[1]
        self.server = SmtpServer(
            local_binding=host,
            port=port,
            max_data_size=self.data_size_limit,
            min_thread_count=0,
            **{"max_thread_count": self.max_thread_count, "without_extensions": without, **properties},
        )
        self.server.on_message_received = self._on_message_received
        self.server.start()

    @property
    def addr(self) -> Address:
        """Where it listens, with the real port."""
        address: Address = self.server.address
        return address

    def close(self) -> None:
        """Stop listening and end the sessions."""
        self.server.stop(5.0)

    def process_message(self, peer: Address, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
        """One message. None says 250, a status line such as "550 No such user" says that.

        `data` is bytes (text with decode_data) with LF line ends and without the last one; `kwargs` has mail_options
        and rcpt_options unless decode_data is set.
        """
        raise NotImplementedError

    def _on_message_received(self, session: Session, message: Message) -> Reply | None:
        content: Any = message.as_bytes().replace(b"\r\n", b"\n").removesuffix(b"\n")
        kwargs: dict[str, Any] = {}
        if self._decode_data:
            content = content.decode("utf-8", "replace")
        else:
            kwargs["mail_options"] = mail_options(message.parameters)
            kwargs["rcpt_options"] = rcpt_options(message.recipients[-1]) if message.recipients else []
        peer = (session.address, session.port)
        return reply_of(self.process_message(peer, message.sender, message.addresses, content, **kwargs))


class DebuggingServer(SMTPServer):
    """Prints every message to standard output."""

    def process_message(self, peer: Address, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> None:
        print("---------- MESSAGE FOLLOWS ----------")
        if kwargs.get("mail_options"):
            print("mail options: {}".format(kwargs["mail_options"]))
        if kwargs.get("rcpt_options"):
            print("rcpt options: {}\n".format(kwargs["rcpt_options"]))
        for line in _with_peer(data.splitlines(), peer):
            print(line if isinstance(line, str) else repr(line))
        print("------------ END MESSAGE ------------", flush=True)


class PureProxy(SMTPServer):
    """Passes every message on to `remoteaddr`. A remote that refuses all recipients is passed on as refusal."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if keywords.get("enable_SMTPUTF8"):
            raise ValueError("PureProxy does not support SMTPUTF8.")
        super().__init__(*arguments, **keywords)

    def process_message(self, peer: Address, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> str | None:
        lines = _with_peer(data.split("\n" if isinstance(data, str) else b"\n"), peer)
        content: Any = "\r\n".join(lines) if isinstance(data, str) else b"\r\n".join(lines)
        assert self._remoteaddr is not None, "a proxy needs a remoteaddr"
        try:
            with smtplib.SMTP(*self._remoteaddr, timeout=60) as client:
                client.sendmail(mailfrom, rcpttos, content.encode() if isinstance(content, str) else content)
        except smtplib.SMTPRecipientsRefused as refusal:
            code, text = next(iter(refusal.recipients.values()))
            return f"{code} {text.decode('ascii', 'replace')}"
        except smtplib.SMTPResponseException as refusal:
            said = refusal.smtp_error
            return f"{refusal.smtp_code} {said.decode('ascii', 'replace') if isinstance(said, bytes) else said}"
        except OSError as error:
            return f"451 The next server can't be reached: {type(error).__name__}"
        return None


def loop(*servers: SMTPServer, timeout: float | None = None) -> None:
    """Wait until these servers are closed, or `timeout` seconds for each. Ctrl-C ends it. For asyncore.loop()."""
    for one in servers:
        one.server.wait(timeout)


def _with_peer(lines: list[Any], peer: Address) -> list[Any]:
    """The lines with an X-Peer header at the end of the header."""
    is_text = bool(lines) and isinstance(lines[0], str)
    header = f"X-Peer: {peer[0]}"
    blank = "" if is_text else b""
    at = lines.index(blank) if blank in lines else 0
    lines.insert(at, header if is_text else header.encode())
    return lines


# The command line


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="smtpd", description="An SMTP proxy or a server of one's own class.")
    parser.add_argument("-n", "--nosetuid", action="store_true", help="do not become the user nobody")
    parser.add_argument("-V", "--version", action="version", version=f"smtpd_core {smtpd_core.__version__}")
    parser.add_argument(
        "-c", "--class", dest="name", default="PureProxy", help="class name, of a module or of this one"
    )
    parser.add_argument("-s", "--size", type=int, default=DATA_SIZE_DEFAULT, help="the largest message, octets")
    parser.add_argument("-u", "--smtputf8", action="store_true", help="offer SMTPUTF8")
    parser.add_argument("-d", "--debug", action="store_true", help="show the dialogue on standard error")
    parser.add_argument("local", nargs="?", default="localhost:8025", help="host:port to listen on")
    parser.add_argument("remote", nargs="?", default="localhost:25", help="host:port to pass mail on to")
    given = parser.parse_args(arguments)
    try:
        local, remote = _address(given.local), _address(given.remote)
        kind = _class(given.name)
    except (ValueError, AttributeError, ImportError) as error:
        parser.error(str(error))
    more = {"enable_SMTPUTF8": True} if given.smtputf8 else {}
    if given.debug:
        more["debug_log"] = True
    server = kind(local, remote, given.size, **more)
    if not given.nosetuid and not _become_nobody():
        server.close()
        return 1
    host, port = server.addr
    print(f"{given.name} listening on {host}:{port}", file=sys.stderr, flush=True)
    try:
        loop(server)
    except KeyboardInterrupt:
        server.close()
    return 0


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{text!r}: host:port is due")
    return host, int(port)


def _class(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module and attribute not in __all__:
        raise ValueError(f"-c {name}: DebuggingServer, PureProxy, or module.Class is due")
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module) if module else sys.modules[__name__], attribute)


def _become_nobody() -> bool:
    try:
        import pwd
    except ModuleNotFoundError:
        print('Cannot import module "pwd"; try running with -n option.', file=sys.stderr)
        return False
    try:
        os.setuid(pwd.getpwnam("nobody").pw_uid)
    except (PermissionError, KeyError):
        print('Cannot setuid "nobody"; try running with -n option.', file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
