"""Letters as the tests of the kit send them."""

from __future__ import annotations

import smtplib

CONTENT = "Subject: Hello\r\n\r\nHi\r\n"


def send(
    client: smtplib.SMTP, *to: str, sender: str = "a@a.test", content: str = CONTENT
) -> dict[str, tuple[int, bytes]]:
    return client.sendmail(sender, list(to) or ["b@b.test"], content)
