"""An application that sends mail as Flask-Mail does: a mail object configured from MAIL_* values."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage


class Mail:
    """Connects with STARTTLS and a login, as the configuration says."""

    def __init__(self, config: Mapping[str, str], context: ssl.SSLContext | None = None) -> None:
        self.config = config
        self.context = context

    def send(self, message: EmailMessage) -> None:
        with smtplib.SMTP("localhost", int(self.config["MAIL_PORT"]), timeout=5) as client:
            if self.config["MAIL_USE_TLS"] == "True":
                client.starttls(context=self.context)
            if self.config["MAIL_USERNAME"]:
                client.login(self.config["MAIL_USERNAME"], self.config["MAIL_PASSWORD"])
            client.send_message(message)


def welcome(mail: Mail, address: str, code: str) -> None:
    """Mail a one-time code with the terms attached."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Welcome", "signup@shop.test", address
    message.set_content(f"Your code is {code}.")
    message.add_attachment(b"%PDF-1.7 terms", maintype="application", subtype="pdf", filename="terms.pdf")
    mail.send(message)
