"""What a server has to do by the RFCs: rules as short dialogues, for any server.

In a script "C:" sends a line, "C!" sends octets as written (escapes as in Python, no CRLF added), "S:" is a pattern
that the next reply's last line has to begin with, "S: closed" the end of the connection, "TLS" a handshake; {to} and
{sender} are filled in. Each rule has a connection of its own; banner and EHLO come first, unless the script begins with
"S:" or the rule is for before the greeting.
Not here: what can't be said in such a script (attacks.py), playing it (conform.py).
"""

# ruff: noqa: E501 (one rule a row)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`needs`: the extension without which the rule says nothing."""

    name: str
    section: str
    script: str
    needs: str = ""


_START = "C: MAIL FROM:<{sender}>\nS: 250\nC: RCPT TO:<{to}>\nS: 25[01]\n"

RULES = (
    Rule("the banner is 220", "5321 3.1", "S: 220"),
    Rule("HELO is answered", "5321 4.1.1.1", "C: HELO probe.test\nS: 250", "no hello"),
    Rule("verbs are known in any case", "5321 2.4", "C: eHlO probe.test\nS: 250\nC: nOoP\nS: 250", "no hello"),
    Rule("EHLO wants a name", "5321 4.1.1.1", "C: EHLO\nS: 50[14]", "no hello"),
    Rule("MAIL comes after the greeting of the client", "5321 4.1.4", "C: MAIL FROM:<{sender}>\nS: 5", "no hello"),
    Rule("RCPT comes after MAIL", "5321 4.1.4", "C: RCPT TO:<{to}>\nS: 503"),
    Rule("DATA comes after RCPT", "5321 4.1.4", "C: MAIL FROM:<{sender}>\nS: 250\nC: DATA\nS: 5(03|54)"),
    Rule("a second MAIL is refused", "5321 4.1.1.2", "C: MAIL FROM:<{sender}>\nS: 250\nC: MAIL FROM:<{sender}>\nS: 503"),
    Rule("RSET ends a transaction", "5321 4.1.1.5", _START + "C: RSET\nS: 250\nC: RCPT TO:<{to}>\nS: 503"),
    Rule("EHLO ends a transaction", "5321 4.1.4", _START + "C: EHLO probe.test\nS: 250\nC: DATA\nS: 503"),
    Rule("NOOP takes an argument", "5321 4.1.1.9", "C: NOOP anything at all\nS: 250"),
    Rule("VRFY is answered", "5321 3.5.3", "C: VRFY postmaster\nS: (25[0-2]|50[0-4]|55[0-3])"),
    Rule("HELP is answered", "5321 4.1.1.8", "C: HELP\nS: (21[14]|50[0-4])"),
    Rule("QUIT is answered and closes", "5321 4.1.1.10", "C: QUIT\nS: 221\nS: closed"),
    Rule("an unknown verb is 500 or 502", "5321 4.2.4", "C: WHAT is this\nS: 50[02]\nC: NOOP\nS: 250"),
    Rule("a verb that only begins like another is unknown", "5321 4.2.4", "C: NOOPS\nS: 50[02]"),
    Rule("the null reverse-path is taken", "5321 4.5.5", "C: MAIL FROM:<>\nS: 250"),
    Rule("Postmaster without a domain is taken", "5321 4.5.1", "C: MAIL FROM:<>\nS: 250\nC: RCPT TO:<Postmaster>\nS: 25[01]"),
    Rule("a path without brackets' end is refused", "5321 4.1.2", "C: MAIL FROM:<{sender}\nS: 501"),
    Rule("a path with rubbish behind it is refused", "5321 4.1.2", "C: MAIL FROM:<{sender}>rubbish\nS: 5"),
    Rule("a command line of 512 octets is read", "5321 4.5.3.1.4", "C: NOOP " + "x" * 505 + "\nS: 250"),
    Rule("an endless command line is refused, once", "5321 4.5.3.1.4", "C! NOOP " + "x" * 200_000 + "\nS: 5"),
    Rule("a message is accepted", "5321 4.1.1.4", _START + "C: DATA\nS: 354\nC: Subject: x\nC: \nC: x\nC: .\nS: 250"),
    Rule(
        "a session carries several messages",
        "5321 3.3",
        (_START + "C: DATA\nS: 354\nC: Subject: x\nC: \nC: x\nC: .\nS: 250\n") * 2 + "C: QUIT\nS: 221",
    ),
    Rule("an empty message ends with a dot", "5321 4.5.2", _START + "C: DATA\nS: 354\nC: .\nS: 2"),
    Rule("a line of dots is content", "5321 4.5.2", _START + "C: DATA\nS: 354\nC: Subject: x\nC: \nC: ....\nC: .\nS: 250"),
    Rule(
        "a content line of 1000 octets is taken",
        "5321 4.5.3.1.6",
        _START + "C: DATA\nS: 354\nC: Subject: x\nC: \nC: " + "y" * 998 + "\nC: .\nS: 250",
    ),
    Rule(
        "a group in one write is answered in order",
        "2920 3.1",
        "C! MAIL FROM:<{sender}>\\r\\nRCPT TO:<{to}>\\r\\nDATA\\r\\n\nS: 250\nS: 25[01]\nS: 354\nC: .\nS: 2",
        "PIPELINING",
    ),
    Rule(
        "enhanced codes are there where announced",
        "2034 4",
        "C: MAIL FROM:<{sender}>\nS: 250 2[.]\nC: RCPT TO:<{to}>\nS: 25[01] 2[.]\nC: WHAT\nS: 50[02] 5[.]",
        "ENHANCEDSTATUSCODES",
    ),
    Rule("a declared size over the limit is refused", "1870 6.1", "C: MAIL FROM:<{sender}> SIZE=99999999999999\nS: 552", "SIZE"),
    Rule("a declared size is taken", "1870 6.1", "C: MAIL FROM:<{sender}> SIZE=100\nS: 250", "SIZE"),
    Rule("BODY=8BITMIME is taken", "6152 2", "C: MAIL FROM:<{sender}> BODY=8BITMIME\nS: 250", "8BITMIME"),
    Rule("an unknown parameter is refused", "5321 4.1.1.11", "C: MAIL FROM:<{sender}> UNHEARD=of\nS: 5(55|01)"),
    Rule("a non-ASCII address wants SMTPUTF8", "6531 3.5", "C: MAIL FROM:<d\u00f6rte@a.test>\nS: 5", "SMTPUTF8"),
    Rule("SMTPUTF8 lets it in", "6531 3.4", "C: MAIL FROM:<d\u00f6rte@a.test> SMTPUTF8\nS: 250", "SMTPUTF8"),
    Rule("BDAT LAST is a message", "3030 2", _START + "C! BDAT 16 LAST\\r\\nSubject: x\\r\\n\\r\\nx\\n\nS: (250|550)", "CHUNKING"),
    Rule("BDAT without a transaction is refused and its chunk swallowed", "3030 2", "C! BDAT 6\\r\\nQUIT\\r\\n\nS: 503\nC: NOOP\nS: 250", "CHUNKING"),
    Rule("DATA after BDAT is refused", "3030 2", _START + "C! BDAT 4\\r\\na: b\nS: 250\nC: DATA\nS: 503", "CHUNKING"),
    Rule("an empty last chunk ends a message", "3030 2", _START + "C! BDAT 8\\r\\na: b\\r\\n\\r\\n\nS: 250\nC: BDAT 0 LAST\nS: 250", "CHUNKING"),
    Rule(
        "DSN parameters are taken",
        "3461 4",
        "C: MAIL FROM:<{sender}> RET=HDRS ENVID=x1\nS: 250\nC: RCPT TO:<{to}> NOTIFY=FAILURE,DELAY ORCPT=rfc822;{to}\nS: 25",
        "DSN",
    ),
    Rule("NOTIFY=NEVER stands alone", "3461 4.1", "C: MAIL FROM:<{sender}>\nS: 250\nC: RCPT TO:<{to}> NOTIFY=NEVER,FAILURE\nS: 501", "DSN"),
    Rule("AUTH with an unknown mechanism is 504", "4954 4", "C: AUTH UNHEARD-OF\nS: 5(04|30|38|34)", "AUTH"),
    Rule("AUTH can be cancelled", "4954 4", "C: AUTH PLAIN\nS: (334|5)\nC: *\nS: 50[01]", "AUTH"),
    Rule("AUTH with broken base64 is 501", "4954 4", "C: AUTH PLAIN =not=base64\nS: 5(01|38|30)", "AUTH"),
    Rule("STARTTLS takes no argument", "3207 4", "C: STARTTLS now\nS: 501", "STARTTLS"),
)  # fmt: skip
