"""The address grammar: RFC 5321 4.1.2 and 4.1.3, RFC 6531 3.3."""

from __future__ import annotations

import pytest

from smtpd_core.wire import events
from smtpd_core.wire.address import ascii_domain, is_mailbox, read_path, split_mailbox
from tests.support.transcript import play
from tests.wire.test_session_rfc5321 import HELLO

LONG_LOCAL = "l" * 64
LABEL = "d" * 63

GOOD = [
    "ann@mx.test",
    "ann.lee@mx.test",
    "!#$%&'*+/=?^_`{|}~-@mx.test",
    '"ann lee"@mx.test',
    '"a@b"@mx.test',
    r'"a\"b\\c"@mx.test',
    '""@mx.test',
    "ann@[192.0.2.1]",
    "ann@[IPv6:2001:db8::1]",
    "ann@[ipv6:::ffff:192.0.2.1]",
    "ann@[x-tag:what.ever]",
    "ann@a",
    "ann@1.2.test",
    "ann@x--y.test",
    "ann%other.test@mx.test",
    "other.test!ann@mx.test",
    f"{LONG_LOCAL}@mx.test",
    f"ann@{LABEL}.{LABEL}.{LABEL}.test",
]

BAD = [
    "ann",
    "@mx.test",
    "ann@",
    ".ann@mx.test",
    "ann.@mx.test",
    "a..b@mx.test",
    "ann lee@mx.test",
    "ann@-mx.test",
    "ann@mx-.test",
    "ann@mx..test",
    "ann@mx.test.",
    "ann@mx_1.test",
    "ann@[192.0.2]",
    "ann@[192.0.2.256]",
    "ann@[192.0.2.01]",
    "ann@[IPv6:2001:db8::g]",
    "ann@[IPv6:fe80::1%25eth0]",
    "ann@[]",
    "ann@[tag:]",
    '"ann@mx.test',
    'an"n"@mx.test',
    '"a"b@mx.test',
    "a@b@c",
    "ann@mx.test@",
    "<ann@mx.test>",
    "ann(comment)@mx.test",
    "ann\t@mx.test",
    f"{LONG_LOCAL}l@mx.test",
    f"ann@{LABEL}d.test",
    f"ann@{LABEL}.{LABEL}.{LABEL}.{LABEL}.test",
    "ann@mx.test\x85",
    "ann@evil\u3002test",  # an ideographic full stop: a dot to some
    "ann@evil\uff0etest",
    "ann@mx\u2026test",
    "an\u2028n@mx.test",
]


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_taken_as_it_is(address):
    assert is_mailbox(address)
    played = play(
        HELLO
        + f"""
        C: MAIL FROM:<{address.replace(chr(92), chr(92) * 2)}>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<{address.replace(chr(92), chr(92) * 2)}>
        S: 250 2.1.5 Recipient ok
    """
    )
    assert played.of(events.MailFrom)[0].reverse_path == address
    assert played.of(events.RcptTo)[0].recipient.address == address


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused(address):
    assert not is_mailbox(address)
    if address.isascii() and address.isprintable():
        play(
            HELLO
            + f"""
            C: MAIL FROM:<{address}>
            S: 501 5.1.7 Bad sender address syntax
            C: MAIL FROM:<>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<{address}>
            S: 501 5.1.3 Bad recipient address syntax
        """
        )


def test_the_path_is_256_octets_at_most():
    """RFC 5321 4.5.3.1.3, brackets included."""
    domain = ".".join([LABEL, LABEL, LABEL])
    assert is_mailbox("a" * (254 - 1 - len(domain)) + "@" + domain)
    assert not is_mailbox("a" * (255 - 1 - len(domain)) + "@" + domain)


@pytest.mark.parametrize("route", ["@relay.test:", "@a.test,@b.test:"])
def test_a_source_route_is_accepted_and_dropped(route):
    """RFC 5321 4.1.1.3 and appendix C."""
    played = play(HELLO + f"C: MAIL FROM:<{route}ann@mx.test>\nS: 250 2.1.0 Sender ok")
    assert played.of(events.MailFrom)[0].reverse_path == "ann@mx.test"


@pytest.mark.parametrize("path", ["<@relay.test:>", "<@relay.test>", "<@:ann@mx.test>", "<@a.test,b.test:ann@mx.test>"])
def test_a_broken_route_is_refused(path):
    play(HELLO + f"C: MAIL FROM:{path}\nS: 501 5.1.7 Bad sender address syntax")


def test_the_null_path_is_the_empty_string_and_no_recipient():
    played = play(
        HELLO
        + """
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<>
        S: 501 5.1.3 Bad recipient address syntax
    """
    )
    assert played.of(events.MailFrom)[0].reverse_path == ""


@pytest.mark.parametrize("name", ["Postmaster", "postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(name):
    """RFC 5321 4.1.1.3; as a recipient only."""
    played = play(
        HELLO
        + f"""
        C: MAIL FROM:<{name}>
        S: 501 5.1.7 Bad sender address syntax
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<{name}>
        S: 250 2.1.5 Recipient ok
    """
    )
    assert played.of(events.RcptTo)[0].recipient.address == name


@pytest.mark.parametrize(
    "line, reply",
    [
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL ann@mx.test", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:ann@mx.test", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM <ann@mx.test>", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL TO:<ann@mx.test>", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]"),
        ("MAIL FROM:<ann@mx.test", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<ann@mx.test>SIZE=1", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<ann@mx.test>>", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM: <ann@mx.test>", "250 2.1.0 Sender ok"),
        ("MAIL FROM:<ann@mx.test>  SIZE=1", "250 2.1.0 Sender ok"),
    ],
)
def test_the_form_of_mail(line, reply):
    play(HELLO + f"C: {line}\nS: {reply}")


UTF8 = [
    "jos\u00e9@mx.test",
    "ann@b\u00fccher.test",
    "\u4e00\u4e8c@\u4f8b\u5b50.test",
    '"\u00e4 \u00f6"@mx.test',
]


@pytest.mark.parametrize("address", UTF8)
def test_smtputf8_addresses(address):
    """RFC 6531 3.3: they need the parameter, and then hold for the recipients too."""
    played = play(
        HELLO
        + f"""
        C: MAIL FROM:<{address}>
        S: 553 5.6.7 Non-ASCII address without SMTPUTF8
        C: MAIL FROM:<ann@mx.test>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<{address}>
        S: 553 5.6.7 Non-ASCII address without SMTPUTF8
        C: RSET
        S: 250 2.0.0 Ok
        C: MAIL FROM:<{address}> SMTPUTF8
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<{address}>
        S: 250 2.1.5 Recipient ok
    """
    )
    assert played.of(events.RcptTo)[0].recipient.address == address


def test_limits_count_octets_not_characters():
    assert is_mailbox("\u00e9" * 32 + "@mx.test")
    assert not is_mailbox("\u00e9" * 33 + "@mx.test")
    assert not is_mailbox("ann@" + "\u4e00" * 60 + ".test")  # its A-label is longer than 63 octets


def test_domains_for_dns():
    assert ascii_domain("B\u00dcCHER.Test") == "xn--bcher-kva.test"
    assert ascii_domain("fa\u00df.test") == "xn--fa-hia.test"  # IDNA 2008 keeps the sharp s
    assert ascii_domain("MX.test") == "mx.test"


def test_the_parts_of_a_mailbox():
    assert split_mailbox('"a@b"@mx.test') == ('"a@b"', "mx.test")
    assert split_mailbox("postmaster") == ("postmaster", "")
    assert split_mailbox("a%b@mx.test") == ("a%b", "mx.test")


@pytest.mark.parametrize(
    "hostile", ["<" + "a." * 900 + ">", "<" + "a-" * 900 + "@x>", "<a@" + "b-" * 900 + ">", '<"' + "\\" * 1800 + ">"]
)
def test_no_address_takes_long_to_read(hostile):
    """Patterns without ambiguous repetition: no input makes them backtrack for long."""
    assert read_path(hostile) is None
