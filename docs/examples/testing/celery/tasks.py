"""A Celery task that mails a receipt, and tries again where the server says later.

Celery sends no mail itself: the task does, here with smtplib and SMTP_URL. With Django's send_mail it would be the
settings of the Django example.
"""

from __future__ import annotations

import os
import smtplib
from urllib.parse import unquote, urlsplit

from celery import Celery

app = Celery("shop", broker="memory://", backend="cache+memory://")


def is_temporary(error: smtplib.SMTPException) -> bool:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code < 500 for code, _ in error.recipients.values())
    return not (isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500)


@app.task(bind=True, max_retries=5)
def receipt(self, address: str) -> int:  # type: ignore[no-untyped-def]  # a task of Celery
    """The number of tries that it took."""
    server = urlsplit(os.environ["SMTP_URL"])
    try:
        with smtplib.SMTP(server.hostname or "", server.port or 25, timeout=5) as client:
            if server.username:
                client.login(unquote(server.username), unquote(server.password or ""))
            client.sendmail("shop@shop.test", [address], "Subject: Receipt\r\n\r\nThank you.\r\n")
    except (smtplib.SMTPException, OSError) as error:
        if isinstance(error, smtplib.SMTPException) and not is_temporary(error):
            raise
        raise self.retry(exc=error, countdown=0) from error
    return int(self.request.retries) + 1
