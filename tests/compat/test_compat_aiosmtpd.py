"""Handlers in the shape of aiosmtpd, coroutines and plain functions, without a rewrite."""

from __future__ import annotations

import asyncio
import smtplib
import threading

import pytest

from smtpd_core import SmtpServer
from smtpd_core.compat.aiosmtpd import AuthResult, Controller, adapt


class Example:
    """Written as for aiosmtpd."""

    def __init__(self):
        self.seen = []
        self.threads = set()

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        self.threads.add(threading.current_thread().name)
        await asyncio.sleep(0)
        if not address.endswith("@example.test"):
            return "550 not relaying to that domain"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.seen.append((envelope.mail_from, envelope.rcpt_tos, envelope.content, session.peer[0], session.host_name))
        return "250 Message accepted for delivery"


def test_coroutines_answer_in_one_loop_thread():
    handler = Example()
    controller = Controller(handler, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
            client.ehlo("probe.test")
            refused = client.sendmail("a@a.test", ["b@example.test", "c@else.test"], "Subject: x\r\n\r\nbody\r\n")
            client.sendmail("a@a.test", ["d@example.test"], "Subject: y\r\n\r\n")
    finally:
        controller.stop()
    assert refused == {"c@else.test": (550, b"not relaying to that domain")}
    first, second = handler.seen
    assert first == ("a@a.test", ["b@example.test"], b"Subject: x\r\n\r\nbody\r\n", "127.0.0.1", "probe.test")
    assert second[1] == ["d@example.test"]
    assert len(handler.threads) == 1
    assert "smtpd-coroutines" not in {thread.name for thread in threading.enumerate()}


def test_plain_functions_start_no_loop():
    class Plain:
        def handle_MAIL(self, server, session, envelope, address, mail_options):
            envelope.mail_from = address.upper()
            envelope.mail_options.extend(mail_options)
            return "250 OK"

        def handle_DATA(self, server, session, envelope):
            self.last = (envelope.mail_from, envelope.mail_options)
            return "250 OK"

        def handle_NOOP(self, server, session, envelope, text):
            return "250 2.0.0 still here"

    handler = Plain()
    controller = Controller(handler, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
            assert client.noop() == (250, b"2.0.0 still here")
            client.sendmail("a@a.test", ["b@b.test"], "Subject: x\r\n\r\n")
            assert "smtpd-coroutines" not in {thread.name for thread in threading.enumerate()}
    finally:
        controller.stop()
    assert handler.last == ("A@A.TEST", ["SIZE=14"])


def test_an_authenticator_decides():
    def check(server, session, envelope, mechanism, data):
        return AuthResult(success=(data.login, data.password) == (b"ann", b"secret"))

    controller = Controller(
        Example(), "127.0.0.1", 0, authenticator=check, auth_required=True, auth_require_tls=False
    )  # fmt: skip
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
            client.ehlo()
            assert client.docmd("MAIL FROM:<a@a.test>")[0] == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("ann", "wrong")
            client.login("ann", "secret")
            assert client.docmd("MAIL FROM:<a@a.test>")[0] == 250
    finally:
        controller.stop()


def test_an_exception_goes_to_handle_exception():
    class Failing:
        async def handle_DATA(self, server, session, envelope):
            raise LookupError("lost")

        async def handle_exception(self, error):
            return f"542 Internal: {type(error).__name__}"

    server = SmtpServer(port=0)
    adapter = adapt(server, Failing())
    with server, smtplib.SMTP(*server.address, timeout=20) as client:
        client.ehlo("probe.test")
        for line in ("MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"):
            client.docmd(line)
        client.send(b"x\r\n.\r\n")
        assert client.getreply() == (542, b"Internal: LookupError")
    adapter.loop.stop()


def test_an_object_without_any_handler_is_an_error():
    with pytest.raises(TypeError, match="has none of handle_EHLO"):
        adapt(SmtpServer(port=0), object())


def test_stop_cancels_a_coroutine_that_hangs():
    """Its thread waited for it for ever, behind a loop that had ended."""
    begun, cancelled = threading.Event(), threading.Event()

    class Hanging:
        async def handle_DATA(self, server, session, envelope):
            begun.set()
            try:
                await asyncio.sleep(1000)
            finally:
                cancelled.set()

        async def handle_exception(self, error):
            return "500 oops"

    controller = Controller(Hanging(), hostname="127.0.0.1", port=0)
    controller.start()
    with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
        client.ehlo("probe.test")
        client.mail("a@a.test")
        client.rcpt("b@b.test")
        client.putcmd("DATA")
        client.getreply()
        client.send(b"Subject: x\r\n\r\n.\r\n")
        assert begun.wait(20)
        threads = [one for one in threading.enumerate() if one.name.startswith("smtpd")]
        controller.server.stop(0.1)
        controller.stop()
        assert cancelled.is_set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        client.close()


def test_the_keywords_of_its_controller_are_known():
    class Plain:
        def handle_DATA(self, server, session, envelope):
            return "250 OK"

    more = {"server_hostname": "mx.test", "enable_SMTPUTF8": False, "ready_timeout": 2.0, "timeout": 20.0}
    controller = Controller(Plain(), hostname="", port=0, **more)
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=20) as client:
            code, said = client.ehlo("probe.test")
            assert code == 250 and said.startswith(b"mx.test") and b"SMTPUTF8" not in said
    finally:
        controller.stop()


def test_without_a_hostname_it_listens_on_loopback():
    class Plain:
        def handle_DATA(self, server, session, envelope):
            return "250 OK"

    controller = Controller(Plain(), port=0)
    controller.start()
    try:
        assert controller.hostname in ("::1", "127.0.0.1")
        with smtplib.SMTP(controller.hostname, controller.port, timeout=20) as client:
            assert client.noop()[0] == 250
    finally:
        controller.stop()
