"""Runs handlers in the shape of aiosmtpd on this engine: handle_EHLO, handle_MAIL, handle_RCPT, handle_DATA and so on.

    controller = Controller(MyHandler(), hostname="127.0.0.1", port=0)
    controller.start()

Coroutines run in one event loop, in a thread that starts with the first of them; plain functions run in the server's
threads and may block. What differs is in docs/migrating.md.
Thread: start() and stop() from any; handlers as said.
Not here: aiosmtpd itself, which is not needed.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from smtpd_core.compat.words import mail_options, rcpt_options, reply_of
from smtpd_core.server import Accept, Login, Message, Refuse, SmtpServer
from smtpd_core.server import Session as OurSession
from smtpd_core.threads import Lock, Loop, start_loop
from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.replies import Reply, no_such_recipient_550, not_verified_252

_KNOWN = ("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "STARTTLS", "exception")


class LoginPassword(NamedTuple):
    """What an authenticator gets for PLAIN and LOGIN."""

    login: bytes
    password: bytes


class AuthResult:
    """What an authenticator returns."""

    def __init__(
        self, *, success: bool, handled: bool = True, message: str | None = None, auth_data: object = None
    ) -> None:
        self.success = success
        self.handled = handled
        self.message = message
        self.auth_data = auth_data


class Envelope:
    """One transaction, as handlers of that shape read and write it."""

    def __init__(self) -> None:
        self.mail_from: str | None = None
        self.mail_options: list[str] = []
        self.smtp_utf8 = False
        self.content: Any = None
        self.original_content: bytes | None = None
        self.rcpt_tos: list[str] = []
        self.rcpt_options: list[str] = []


class Session:
    """One client, as handlers of that shape see it. Other attributes are the handler's own."""

    def __init__(self, ours: OurSession) -> None:
        self.peer = (ours.address, ours.port)
        self.host_name: str | None = None
        self.extended_smtp = False
        self.auth_data: Any = None
        self.login_data: Any = None
        self._ours = ours

    @property
    def ssl(self) -> Any:
        """The TLS facts where TLS is up, else None."""
        return self._ours.tls

    @property
    def authenticated(self) -> bool:
        return self._ours.user is not None


class LoopEnded(RuntimeError):
    """A coroutine was cancelled by stop()."""


class EventLoop:
    """The loop that coroutines run in; its thread starts with the first one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Loop | None = None

    def result(self, value: Any) -> Any:
        """`value`, or what it comes to where it is a coroutine. Blocks the calling thread until then."""
        if not inspect.isawaitable(value):
            return value
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = start_loop("smtpd-coroutines", self._loop.run_forever)
            loop = self._loop
        future = asyncio.run_coroutine_threadsafe(_awaited(value), loop)
        try:
            return future.result()
        except Exception:
            if future.cancelled():
                raise LoopEnded("the server stopped while a coroutine ran") from None
            raise

    def stop(self) -> None:
        """End the loop. Coroutines that still run are cancelled, so that no thread waits for them for ever."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            asyncio.run_coroutine_threadsafe(_end_others(), loop)
            if self._thread.join(5.0):
                loop.close()


async def _end_others() -> None:
    """Cancel what else runs in this loop, let it clean up, then stop the loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2.0)
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.stop)


async def _awaited(value: Any) -> Any:
    return await value


class Adapter:
    """The events of SmtpServer, answered by a handler of that shape. `adapt(server, handler)` sets them."""

    def __init__(
        self, handler: Any, authenticator: Callable[..., Any] | None = None, decode_data: bool = False
    ) -> None:
        self.handler = handler
        self.authenticator = authenticator
        self.decode_data = decode_data
        self.loop = EventLoop()
        self.server: SmtpServer | None = None
        # A fixed list of names: nothing from the network chooses one.
        self.methods = {name: getattr(handler, f"handle_{name}", None) for name in _KNOWN}

    # -- what a session carries

    def pair(self, session: OurSession) -> tuple[Session, Envelope]:
        """Session and envelope of that shape, kept in ours."""
        values = session.values
        if "aiosmtpd" not in values:
            values["aiosmtpd"] = (Session(session), Envelope())
        found: tuple[Session, Envelope] = values["aiosmtpd"]
        return found

    def renew(self, session: OurSession) -> Envelope:
        """A new transaction: a new envelope."""
        theirs, envelope = self.pair(session)[0], Envelope()
        session.values["aiosmtpd"] = (theirs, envelope)
        return envelope

    def call(self, name: str, *arguments: Any) -> Any:
        method = self.methods[name]
        assert method is not None
        try:
            return self.loop.result(method(*arguments))
        except LoopEnded:
            raise
        except Exception as error:
            handle = self.methods["exception"]
            if handle is None:
                raise
            return self.loop.result(handle(error))

    # -- events

    def on_hello(self, session: OurSession, domain: str) -> Reply | None:
        theirs, _ = self.pair(session)
        envelope = self.renew(session)
        name = "EHLO" if self.methods["EHLO"] and session.service != "lmtp" else "HELO"
        method = self.methods[name]
        theirs.host_name = domain
        theirs.extended_smtp = name == "EHLO"
        if method is None:
            return None
        if name == "EHLO" and len(inspect.signature(method).parameters) >= 5:
            answer = self.call(name, self.server, theirs, envelope, domain, [])
            last = answer[-1] if isinstance(answer, list) and answer else None
            reply = reply_of(last)
            return reply if reply is not None and not reply.is_positive else None
        return reply_of(self.call(name, self.server, theirs, envelope, domain))

    def on_mail_from(self, session: OurSession, sender: str, parameters: MailParameters) -> Reply | None:
        theirs, _ = self.pair(session)
        envelope = self.renew(session)
        options = mail_options(parameters)
        envelope.smtp_utf8 = parameters.smtputf8
        if self.methods["MAIL"] is None:
            envelope.mail_from, envelope.mail_options = sender, options
            return None
        reply = reply_of(self.call("MAIL", self.server, theirs, envelope, sender, options))
        if envelope.mail_from is None and (reply is None or reply.is_positive):
            envelope.mail_from, envelope.mail_options = sender, options
        return reply

    def on_recipient_to(self, session: OurSession, recipient: Recipient) -> Reply | None:
        theirs, envelope = self.pair(session)
        options = rcpt_options(recipient)
        if self.methods["RCPT"] is None:
            envelope.rcpt_tos.append(recipient.address)
            envelope.rcpt_options.extend(options)
            return None
        return reply_of(self.call("RCPT", self.server, theirs, envelope, recipient.address, options))

    def on_message_received(self, session: OurSession, message: Message) -> Reply | None:
        theirs, envelope = self.pair(session)
        content = message.as_bytes()
        envelope.original_content = content
        envelope.content = content.decode("utf-8", "replace") if self.decode_data else content
        try:
            if self.methods["DATA"] is None:
                return None
            return reply_of(self.call("DATA", self.server, theirs, envelope))
        finally:
            self.renew(session)

    def on_verify(self, session: OurSession, text: str) -> Reply | None:
        return self._say("VRFY", not_verified_252, session, text)

    def on_authenticate(self, session: OurSession, login: Login) -> Accept | Refuse | None:
        assert self.authenticator is not None
        theirs, envelope = self.pair(session)
        data = LoginPassword(login.user.encode(), (login.password or "").encode())
        result = self.loop.result(self.authenticator(self.server, theirs, envelope, login.mechanism, data))
        if getattr(result, "success", False):
            theirs.auth_data = getattr(result, "auth_data", None) or data
            theirs.login_data = data.login
            return Accept()
        reply = reply_of(getattr(result, "message", None))
        return (
            Refuse(reply)
            if reply is not None and not reply.is_positive
            else Refuse(535, "5.7.8", "Authentication failed")
        )

    def _say(self, name: str, usual: Reply, session: OurSession, *arguments: Any) -> Reply | None:
        theirs, envelope = self.pair(session)
        return reply_of(self.call(name, self.server, theirs, envelope, *arguments)) or usual


def adapt(server: SmtpServer, handler: Any, **options: Any) -> Adapter:
    """Set the events of `server` so that `handler` answers them. Options are Adapter's.

    TypeError for an object without any handle_ method."""
    adapter = Adapter(handler, **options)
    if not any(adapter.methods.values()):
        raise TypeError(f"{type(handler).__name__} has none of handle_{', handle_'.join(_KNOWN)}")
    adapter.server = server
    server.on_hello = adapter.on_hello
    server.on_mail_from = adapter.on_mail_from
    server.on_recipient_to = adapter.on_recipient_to
    server.on_message_received = adapter.on_message_received
    if adapter.methods["VRFY"] is not None:
        server.on_verify = adapter.on_verify
    if adapter.authenticator is not None:
        server.on_authenticate = adapter.on_authenticate
    for verb in ("RSET", "QUIT"):
        if adapter.methods[verb] is not None:
            server.commands.wrap(verb, _watcher(adapter, verb))
    if adapter.methods["NOOP"] is not None:
        server.commands.replace("NOOP", lambda session, text: adapter._say("NOOP", Reply(250, "", "OK"), session, text))
    return adapter


def _watcher(adapter: Adapter, verb: str) -> Callable[[OurSession, str], None]:
    def watch(session: OurSession, text: str) -> None:
        adapter._say(verb, no_such_recipient_550, session)

    return watch


class Controller:
    """Start and stop, as aiosmtpd's Controller. Port 0 is any; `port` is the real one after start().

    `certificate` and `key` (PEM paths) with `require_starttls` take the place of an ssl context. Without a hostname it
    is the loopback address, of IPv6 where the machine has it; "" is every interface. `ready_timeout` is accepted and
    ignored, since start() waits for nothing. Other keywords are SmtpServer's properties.
    """

    def __init__(
        self,
        handler: Any,
        hostname: str | None = None,
        port: int = 8025,
        *,
        authenticator: Callable[..., Any] | None = None,
        auth_required: bool = False,
        auth_require_tls: bool = True,
        require_starttls: bool = False,
        data_size_limit: int | None = 33_554_432,
        decode_data: bool = False,
        ident: str | None = None,
        enable_SMTPUTF8: bool | None = None,
        server_hostname: str | None = None,
        ready_timeout: float = 5.0,
        certificate: str = "",
        key: str = "",
        **properties: Any,
    ) -> None:
        self.hostname = "::1" if hostname is None else hostname
        self._may_be_ipv4 = hostname is None
        self.port = port
        given: dict[str, Any] = {"max_data_size": data_size_limit or 0, "banner": ident or ""}
        if server_hostname:
            given["server_name"] = server_hostname
        if enable_SMTPUTF8 is False:
            given["without_extensions"] = ("SMTPUTF8",)
        if hostname == "":
            given["use_ipv6"] = True
        if certificate:
            given.update(certificate=certificate, key=key)
            given["use_tls"] = "explicit_require" if require_starttls else "explicit_allow"
        if authenticator is not None:
            given.update(use_auth="required" if auth_required else "offered", auth_mechanisms=("PLAIN", "LOGIN"))
            given["clear_text_without_tls"] = not auth_require_tls
        self.server = SmtpServer(local_binding=self.hostname or "*", port=port, **{**given, **properties})
        self.handler = handler
        self._adapter = adapt(self.server, handler, authenticator=authenticator, decode_data=decode_data)

    def start(self) -> None:
        """Listen. OSError where the port is in use."""
        try:
            self.server.start()
        except OSError as error:
            if not self._may_be_ipv4 or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            self.hostname = self.server.local_binding = "127.0.0.1"
            self.server.start()
        address = self.server.address
        if isinstance(address, tuple):
            self.port = address[1]

    def stop(self) -> None:
        """End the sessions, then the coroutines' loop."""
        self.server.stop(5.0)
        self._adapter.loop.stop()
