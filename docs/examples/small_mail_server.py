"""A small mail server inside an application: mail for our domain into Maildirs, all other mail to the durable outbox,
which delivers it by MX. Relaying is for users that log in.

    python docs/examples/small_mail_server.py --selftest
"""

import smtplib
import sys
import tempfile
from pathlib import Path

from relay import MailboxStore, Outbox
from smtpd_core import SmtpServer, UserAccount


def main(port=2525, folder="small-mail"):
    return SmtpServer(
        port=port,
        store=MailboxStore(f"{folder}/mail/{{user}}", domains=("example.test",)),
        outbox=Outbox(f"{folder}/outbox"),  # started and stopped with the server
        relay_from=(),
        user_accounts=[UserAccount("ann", "secret")],
    )


def selftest():
    with tempfile.TemporaryDirectory() as folder:
        with main(0, folder) as server, smtplib.SMTP(*server.address) as client:
            client.sendmail("bob@elsewhere.test", ["ann@example.test"], "Subject: local\r\n\r\n")
            client.mail("bob@elsewhere.test")
            assert client.rcpt("eve@elsewhere.test")[0] == 550
            client.rset()
            client.login("ann", "secret")  # CRAM-MD5: no password is shown
            client.mail("ann@example.test")
            assert client.rcpt("eve@elsewhere.test")[0] == 250
        assert len(list(Path(folder, "mail", "ann", "new").iterdir())) == 1
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main().start().wait()
