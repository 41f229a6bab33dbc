"""Catch all mail that a program under development sends: show it, keep it in a Maildir, deliver nothing.

python docs/examples/catch_all.py            listens on 127.0.0.1:2525, keeps mail in ./mail
python docs/examples/catch_all.py --selftest
"""

import smtplib
import sys
import tempfile

from relay import MailboxStore
from smtpd_core import SmtpServer


def show(session, message):
    print(f"{message.id}: from <{message.sender}> to {message.addresses}: {message.headers['subject']}")


def main(port=2525, folder="mail"):
    return SmtpServer(port=port, store=MailboxStore(folder), on_message_received=show)


def selftest():
    with tempfile.TemporaryDirectory() as folder, main(0, folder) as server:
        with smtplib.SMTP(*server.address) as client:
            client.sendmail("app@example.test", ["anyone@example.test"], "Subject: caught\r\n\r\nHello\r\n")
        import pathlib

        [kept] = pathlib.Path(folder, "new").iterdir()
        assert b"Subject: caught" in kept.read_bytes()
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main().start().wait()
