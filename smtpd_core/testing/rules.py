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
    """`needs`: the extension without which the rule says nothing, or BEFORE_HELLO."""

    name: str
    section: str
    script: str
    needs: str = ""


# For rules about what comes before EHLO.
BEFORE_HELLO = "no hello"

_START = "C: MAIL FROM:<{sender}>\nS: 250\nC: RCPT TO:<{to}>\nS: 25[01]\n"

RULES = (
    Rule("the banner is 220", "5321 3.1", "S: 220"),
    Rule("HELO is answered", "5321 4.1.1.1", "C: HELO probe.test\nS: 250", BEFORE_HELLO),
    Rule("verbs are known in any case", "5321 2.4", "C: eHlO probe.test\nS: 250\nC: nOoP\nS: 250", BEFORE_HELLO),
    Rule("EHLO wants a name", "5321 4.1.1.1", "C: EHLO\nS: 50[14]", BEFORE_HELLO),
    Rule("MAIL comes after the greeting of the client", "5321 4.1.4", "C: MAIL FROM:<{sender}>\nS: 5", BEFORE_HELLO),
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
    Rule("an endless command line is answered once", "5321 4.5.3.1.4", "C! NOOP " + "x" * 200_000 + "\\r\\n\nS: [245]\nC: QUIT\nS: (221|421|closed)"),
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
    Rule("an empty line is refused, and the session goes on", "5321 4.1.1", "C: \nS: 5\nC: NOOP\nS: 250"),
    Rule("nothing is answered after QUIT", "5321 4.1.1.10", "C! QUIT\\r\\nNOOP\\r\\n\nS: 221\nS: closed"),
    Rule("DATA without a recipient that was taken is refused", "5321 3.3", "C: MAIL FROM:<{sender}>\nS: 250\nC: RCPT TO:<\nS: 5\nC: DATA\nS: 5(03|54)"),
    Rule("a local part of 64 octets is taken", "5321 4.5.3.1.1", "C: MAIL FROM:<" + "a" * 64 + "@probe.test>\nS: 250"),
    Rule("a hundred recipients are taken", "5321 4.5.3.1.8", "C: MAIL FROM:<{sender}>\nS: 250\n" + "C: RCPT TO:<{to}>\nS: 25[01]\n" * 100),
    Rule("a message of 64 KiB is taken", "5321 4.5.3.1.7", _START + "C: DATA\nS: 354\nC! Subject: x\\r\\n\\r\\n" + ("x" * 62 + "\\r\\n") * 1023 + ".\\r\\n\nS: 250"),
    Rule("a dot that was doubled is content", "5321 4.5.2", _START + "C: DATA\nS: 354\nC! Subject: x\\r\\n\\r\\n..\\r\\n..\\r\\n.\\r\\nNOOP\\r\\n\nS: 250\nS: 250"),
    Rule(
        "a refused recipient in a group leaves the others",
        "2920 3.1",
        "C! MAIL FROM:<{sender}>\\r\\nRCPT TO:<{to}>\\r\\nRCPT TO:<\\r\\nDATA\\r\\n\nS: 250\nS: 25[01]\nS: 5\nS: 354\nC: .\nS: 2",
        "PIPELINING",
    ),
    Rule(
        "two messages in one group are two messages",
        "2920 3.1",
        _START + "C: DATA\nS: 354\nC! Subject: x\\r\\n\\r\\nx\\r\\n.\\r\\nMAIL FROM:<{sender}>\\r\\nRCPT TO:<{to}>\\r\\nDATA\\r\\n\nS: 250\nS: 250\nS: 25[01]\nS: 354\nC: .\nS: 2",
        "PIPELINING",
    ),
    Rule("RSET in a group is answered in its place", "2920 3.1", "C! MAIL FROM:<{sender}>\\r\\nRSET\\r\\nRCPT TO:<{to}>\\r\\nNOOP\\r\\n\nS: 250\nS: 250\nS: 503\nS: 250", "PIPELINING"),
    Rule("BDAT wants a size", "3030 2", _START + "C: BDAT\nS: 5", "CHUNKING"),
    Rule("BDAT wants a number", "3030 2", _START + "C: BDAT x LAST\nS: 5", "CHUNKING"),
    Rule("chunks in one write are one message", "3030 4.2", _START + "C! BDAT 14\\r\\nSubject: x\\r\\n\\r\\nBDAT 3 LAST\\r\\nx\\r\\n\nS: 250\nS: 250\nC: NOOP\nS: 250", "CHUNKING"),
    Rule("a chunk with CRLF.CRLF goes on", "3030 2", _START + "C! BDAT 22 LAST\\r\\nSubject: x\\r\\n\\r\\n\\r\\n.\\r\\nx\\r\\n\nS: 250\nC: NOOP\nS: 250", "CHUNKING"),
    Rule("RSET between chunks ends the message", "3030 2", _START + "C! BDAT 14\\r\\nSubject: x\\r\\n\\r\\n\nS: 250\nC: RSET\nS: 250\nC: BDAT 0 LAST\nS: 503", "CHUNKING"),
    Rule("BINARYMIME wants BDAT", "3030 3", "C: MAIL FROM:<{sender}> BODY=BINARYMIME\nS: 250\nC: RCPT TO:<{to}>\nS: 25[01]\nC: DATA\nS: 503", "BINARYMIME"),
    Rule("RET is FULL or HDRS", "3461 4.3", "C: MAIL FROM:<{sender}> RET=HALF\nS: 501", "DSN"),
    Rule("ENVID is xtext", "3461 4.4", "C: MAIL FROM:<{sender}> ENVID=a+zz\nS: 501", "DSN"),
    Rule("a parameter comes once", "3461 4.4", "C: MAIL FROM:<{sender}> ENVID=a ENVID=b\nS: 501", "DSN"),
    Rule("NOTIFY says what it knows", "3461 4.1", "C: MAIL FROM:<{sender}>\nS: 250\nC: RCPT TO:<{to}> NOTIFY=SOMETIMES\nS: 501", "DSN"),
    Rule("an address that is no UTF-8 is refused", "6531 3.3", "C! MAIL FROM:<d\\xf6rte@a.test> SMTPUTF8\\r\\n\nS: 5", "SMTPUTF8"),
    Rule("a domain in its own letters is taken", "6531 3.2", "C: MAIL FROM:<a@b\u00fccher.test> SMTPUTF8\nS: 250", "SMTPUTF8"),
    Rule("SMTPUTF8 has no value", "6531 3.4", "C: MAIL FROM:<{sender}> SMTPUTF8=yes\nS: 5(01|55)", "SMTPUTF8"),
    Rule("AUTH names a mechanism", "4954 4", "C: AUTH\nS: 50[014]", "AUTH"),
    Rule("AUTH with a wrong password is refused", "4954 6", "C: AUTH PLAIN AG5vYm9keQB3cm9uZw==\nS: 5(35|38|30|04|34)", "AUTH"),
    Rule("AUTH has no place in a transaction", "4954 4", "C: MAIL FROM:<{sender}>\nS: [25]\nC: AUTH PLAIN\nS: 5", "AUTH"),
    Rule("AUTH= of MAIL is taken", "4954 5", "C: MAIL FROM:<{sender}> AUTH=<>\nS: (250|530)", "AUTH"),
    Rule("a response of 12288 octets is read", "4954 4", "C: AUTH PLAIN\nS: (334|5)\nC: " + "QUFB" * 3072 + "\nS: 5\nC: NOOP\nS: 250", "AUTH"),
    Rule("STARTTLS leads to TLS", "3207 4", "C: STARTTLS\nS: 220\nTLS\nC: EHLO probe.test\nS: 250", "STARTTLS"),
    Rule("a second STARTTLS is refused", "3207 4.2", "C: STARTTLS\nS: 220\nTLS\nC: EHLO probe.test\nS: 250\nC: STARTTLS\nS: 5", "STARTTLS"),
)  # fmt: skip
