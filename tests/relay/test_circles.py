"""Mail that goes in a circle ends, and its sender is told once."""

from __future__ import annotations

import email
import smtplib
from pathlib import Path

from relay import Domain, Outbox, Relaying, Routes, TlsLevel, TlsPolicy
from relay.mail import Envelope, Stop
from smtpd_core.server import SmtpServer
from tests.relay.test_dispatcher import actions
from tests.relay.test_outbox import Told, files, wait_until


def test_a_circle_between_two_routes_ends_with_one_notification(tmp_path: Path) -> None:
    routes: list[Routes] = []

    def stops(envelope: Envelope) -> list[Stop]:
        return routes[0].stops(envelope)

    told = Told()
    relaying = Relaying(hello="relay.test", tls=TlsPolicy(TlsLevel.NONE))
    outbox = Outbox(tmp_path / "s", stops=stops, relaying=relaying, on_outcome=told)
    with SmtpServer(port=0, local_binding="127.0.0.1", store=outbox, max_received=10) as server:
        home = Domain(f"maildir:{tmp_path}/mail/{{user}}", users={"ann"}.__contains__)
        routes.append(Routes({"here.test": home}, default=f"smtp:127.0.0.1:{server.address[1]}"))
        with smtplib.SMTP(*server.address[:2], timeout=20) as client:
            client.sendmail("ann@here.test", ["bob@there.test"], "Subject: round\r\n\r\nand round\r\n")
            # Null senders go in circles without a word at the end.
            client.sendmail("", ["bob@there.test"], "Subject: round\r\n\r\nand round\r\n")
        wait_until(lambda: [result for _, result in told.outcomes].count("failed") == 2)
        wait_until(lambda: len(files(tmp_path / "mail")) == 1)
    assert [result for _, result in told.outcomes].count("relayed") <= 20
    (notification,) = files(tmp_path / "mail")
    assert actions(email.message_from_bytes(notification)) == ["failed"]
    assert b"5.4.6" in notification
