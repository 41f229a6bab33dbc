"""An application that sends mail as Django does: settings by name, a backend made from them."""

from __future__ import annotations

import os
import secrets
import smtplib
from email.message import EmailMessage


class Settings:
    """The EMAIL_* settings, from the environment."""

    def __init__(self) -> None:
        self.host = os.environ["EMAIL_HOST"]
        self.port = int(os.environ["EMAIL_PORT"])
        self.use_tls = os.environ.get("EMAIL_USE_TLS") == "True"


def send_mail(subject: str, body: str, sender: str, recipients: list[str], html: str = "") -> int:
    """As django.core.mail.send_mail: the number of messages sent."""
    settings = Settings()
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, sender, ", ".join(recipients)
    message.set_content(body)
    if html:
        message.add_alternative(html, subtype="html")
    with smtplib.SMTP(settings.host, settings.port, timeout=5) as client:
        return 1 - bool(client.send_message(message))


def reset_password(address: str) -> str:
    """Mail a link with a token; the token is returned for the application to keep."""
    token = secrets.token_urlsafe(12)
    link = f"https://shop.test/reset?token={token}"
    send_mail("Reset your password", f"Follow {link}", "shop@shop.test", [address], f'<a href="{link}">Reset</a>')
    return token


def newsletter(addresses: list[str]) -> list[str]:
    """One message to many; those that were refused are returned."""
    settings = Settings()
    with smtplib.SMTP(settings.host, settings.port, timeout=5) as client:
        return sorted(client.sendmail("news@shop.test", addresses, "Subject: News\r\n\r\nNothing new.\r\n"))


def send_with_retry(address: str, tries: int = 3) -> int:
    """Try again where the server says later; the number of tries that it took."""
    for attempt in range(1, tries + 1):
        try:
            send_mail("Receipt", "Thank you.", "shop@shop.test", [address])
            return attempt
        except smtplib.SMTPRecipientsRefused as refused:
            if any(code >= 500 for code, _ in refused.recipients.values()):
                raise
    raise RuntimeError(f"{address}: still not accepted after {tries} tries")
