"""Log users in against the application's own user table.

Without TLS only mechanisms that show no password are offered; a password check like this one needs TLS. The check may
block (a database, an HTTP call): it runs in a thread of the server's, and others are served meanwhile.

    python docs/examples/own_users.py --selftest
"""

import hashlib
import hmac
import smtplib
import ssl
import sys

from smtpd_core import Account, Refuse, SmtpServer


def digest(password):
    return hashlib.scrypt(password.encode(), salt=b"of this user", n=1024, r=8, p=1)


USERS = {"ann": digest("secret"), "bob": digest("locked")}
LOCKED = {"bob"}


def check(session, login):
    """None would leave the decision to user_accounts; an Account says who it is."""
    known = USERS.get(login.user)
    given = digest(login.password or "")
    if not hmac.compare_digest(known or b"-", given):
        return Refuse(535, "5.7.8", "Wrong name or password")
    if login.user in LOCKED:
        return Refuse(535, "5.7.8", "This account is locked")
    return Account(login.user, email=f"{login.user}@example.test")


def accept(session, message):
    print(f"{session.user_name} sent {message.size} octets")


def main(port=2525):
    server = SmtpServer(port=port, service="submission", use_tls="explicit_require", certificate="self-signed")
    server.use_auth = "required"
    server.auth_mechanisms = ["PLAIN", "LOGIN"]
    server.restrict_senders = True
    server.on_authenticate = check
    server.on_message_received = accept
    return server


def selftest():
    no_check = ssl.create_default_context()
    no_check.check_hostname, no_check.verify_mode = False, ssl.CERT_NONE
    with main(0) as server, smtplib.SMTP(*server.address) as client:
        client.starttls(context=no_check)
        for user, password in (("bob", "locked"), ("eve", "guess")):
            try:
                client.login(user, password)
            except smtplib.SMTPAuthenticationError:
                continue
            raise AssertionError(f"{user} got in")
        client.login("ann", "secret")
        client.sendmail("ann@example.test", ["bob@example.test"], "Subject: mine\r\n\r\n")
        assert client.mail("bob@example.test")[0] == 553
    print("ok")


if __name__ == "__main__":
    if "--selftest" in sys.argv:
        selftest()
    else:
        main().start().wait()
