"""Refuse mail by a policy of one's own: at the connection, the sender, the recipient, and by what a message says.

python docs/examples/refuse_by_policy.py --selftest
"""

import smtplib
import sys

from smtpd_core import GuardSettings, Handler, Redirect, Refuse, Reply, SmtpServer


class Policy(Handler):
    def __init__(self):
        self.domain = "@example.test"
        self.aliases = {"sales@example.test": ["ann@example.test", "bob@example.test"]}

    def on_mail_from(self, session, sender, parameters):
        if sender.endswith(".invalid"):
            return Refuse(550, "5.1.8", "Your domain does not exist")
        return None

    def on_recipient_to(self, session, recipient):
        if not recipient.address.endswith(self.domain):
            return Refuse(550, "5.7.1", "We do not relay")
        if recipient.address in self.aliases:
            return Redirect(*self.aliases[recipient.address])
        return None

    def on_message_received(self, session, message):
        if message.headers["subject"] == "Buy now":
            return Reply(550, "5.7.1", "Not here")
        with message.open() as file:  # bounded memory, whatever its size
            if any(b"EICAR" in line for line in file):
                return Refuse(550, "5.7.1", "Infected")
        print(f"accepted for {message.addresses}")
        return None


def main(port=2525):
    # The guard refuses before any thread or hook is busy: networks, connections, messages in a period.
    return SmtpServer(Policy(), port=port, guard=GuardSettings(block=("192.0.2.0/24",), max_per_source=10))


def selftest():
    def code(sender, recipient, content):
        try:
            client.sendmail(sender, [recipient], content)
        except smtplib.SMTPRecipientsRefused as refusal:
            return refusal.recipients[recipient][0]
        except smtplib.SMTPResponseException as refusal:
            return refusal.smtp_code
        return 250

    with main(0) as server, smtplib.SMTP(*server.address) as client:
        assert code("a@b.invalid", "ann@example.test", "x") == 550
        assert code("a@b.test", "ann@elsewhere.test", "x") == 550
        assert code("a@b.test", "ann@example.test", "Subject: Buy now\r\n\r\n") == 550
        assert code("a@b.test", "ann@example.test", "Subject: hi\r\n\r\nEICAR\r\n") == 550
        assert code("a@b.test", "sales@example.test", "Subject: hi\r\n\r\n") == 250
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main().start().wait()
