"""Whole dialogues over real sockets with smtplib: the first mail of an embedded server."""

from __future__ import annotations

import smtplib

from smtpd_core import SmtpServer, UserAccount


def test_a_mail_under_starttls_and_login_arrives_byte_exact_with_its_trace():
    received = []
    server = SmtpServer(
        port=0, server_name="mx.test", certificate="self-signed", use_tls="explicit_allow",
        user_accounts=[UserAccount("ann", "secret")],
    )  # fmt: skip

    @server.on_message_received
    def keep(session, message):
        received.append((session.user_name, message.envelope, message.trace, message.as_bytes()))

    with server, smtplib.SMTP(*server.address, timeout=20) as client:
        client.starttls()
        client.login("ann", "secret")
        client.sendmail("ann@mx.test", ["bob@mx.test"], "Subject: hello\r\n\r\none\r\n.two\r\n")

    [(user, envelope, trace, content)] = received
    assert user == "ann"
    assert envelope.sender == "ann@mx.test"
    assert [one.address for one in envelope.recipients] == ["bob@mx.test"]
    assert content == b"Subject: hello\r\n\r\none\r\n.two\r\n"
    assert trace.startswith(b"Received: from ")
    assert b"by mx.test with ESMTPSA (TLSv1.3 " in trace
    assert b"for <bob@mx.test>;" in trace
