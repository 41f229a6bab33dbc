"""Implicit TLS on 465 and submission with STARTTLS on 587, one handler and one set of users for both (RFC 8314).

python docs/examples/submission_and_smtps.py certificate.pem key.pem
python docs/examples/submission_and_smtps.py --selftest
"""

import smtplib
import ssl
import sys

from smtpd_core import Handler, ListenerSettings, SmtpServer, UserAccount


class Submission(Handler):
    def __init__(self):
        self.seen = []

    def on_message_received(self, session, message):
        self.seen.append((session.listener_name, session.tls.version, message.user))


def main(handler, ports=(465, 587), certificate="self-signed", key=""):
    return SmtpServer(
        handler,
        listeners=[
            ListenerSettings(f"127.0.0.1:{ports[0]}", "submission", tls="implicit", auth="required"),
            ListenerSettings(f"127.0.0.1:{ports[1]}", "submission", tls="explicit-require", auth="required"),
        ],
        certificate=certificate,
        key=key,
        user_accounts=[UserAccount("ann", "secret", "Ann", "ann@example.test")],
    )


def selftest():
    no_check = ssl.create_default_context()
    no_check.check_hostname, no_check.verify_mode = False, ssl.CERT_NONE
    handler = Submission()
    with main(handler, (0, 0)) as server:
        smtps, submission = server.addresses
        with smtplib.SMTP_SSL(*smtps, context=no_check) as client:
            client.login("ann", "secret")
            client.sendmail("ann@example.test", ["bob@example.test"], "Subject: smtps\r\n\r\n")
        with smtplib.SMTP(*submission) as client:
            client.starttls(context=no_check)
            client.login("ann", "secret")
            client.sendmail("ann@example.test", ["bob@example.test"], "Subject: submission\r\n\r\n")
    assert [user for _, _, user in handler.seen] == ["ann", "ann"]
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main(Submission(), certificate=sys.argv[1], key=sys.argv[2]).start().wait()
