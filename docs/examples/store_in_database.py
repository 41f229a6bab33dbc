"""Store mail in the application's database. The 250 goes out after the commit, so what was promised is there.

python docs/examples/store_in_database.py --selftest
"""

import smtplib
import sqlite3
import sys
import tempfile
from pathlib import Path

from smtpd_core import Refuse, SmtpServer

TABLE = "CREATE TABLE IF NOT EXISTS mail (id TEXT PRIMARY KEY, sender TEXT, recipient TEXT, subject TEXT, content BLOB)"


class Database:
    def __init__(self, path):
        self.path = path
        with self.connect() as connection:
            connection.execute(TABLE)

    def connect(self):
        return sqlite3.connect(self.path, timeout=10)

    def store(self, session, message):
        """Runs in one of the server's threads: each opens its own connection."""
        subject = message.headers["subject"]
        try:
            with self.connect() as connection:
                connection.executemany(
                    "INSERT INTO mail VALUES (?, ?, ?, ?, ?)",
                    [
                        (f"{message.id}-{number}", message.sender, address, subject, message.as_bytes(trace=True))
                        for number, address in enumerate(message.addresses)
                    ],
                )
        except sqlite3.OperationalError:
            return Refuse(452, "4.3.1", "Our database is busy, come again")
        return None


def main(port=2525, path="mail.db"):
    return SmtpServer(port=port, on_message_received=Database(path).store)


def selftest():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mail.db")
        with main(0, path) as server, smtplib.SMTP(*server.address) as client:
            client.sendmail("a@example.test", ["b@example.test", "c@example.test"], "Subject: rows\r\n\r\n")
        rows = sqlite3.connect(path).execute("SELECT recipient, subject FROM mail ORDER BY recipient").fetchall()
        assert rows == [("b@example.test", "rows"), ("c@example.test", "rows")], rows
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main().start().wait()
