"""Addresses by the grammar of RFC 5321 4.1.2, widened by RFC 6531 3.3 to UTF-8.

A path gives its mailbox without angle brackets and source route. Percent-hack and bang paths are plain local parts.
Not here: the parameters behind a path (parameters.py); whether anybody lives at an address (policy).
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address

# Octets. RFC 5321 4.5.3.1.1 to 4.5.3.1.3; the path counts its two angle brackets.
MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
MAX_PATH = 256

_NON_ASCII = "\u00a0-\u2027\u202a-\U0010ffff"  # without C1 controls and the two line separators
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_NON_ASCII}-]+"
_QUOTED = rf'"(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*"'
LOCAL_PART = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})"
_LETDIG = rf"[A-Za-z0-9{_NON_ASCII}]+"
_LABEL = rf"{_LETDIG}(?:-+{_LETDIG})*"
DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*)"
LITERAL = r"(?:\[[!-Z^-~]+\])"
_ROUTE = rf"(?:@{DOMAIN}(?:,@{DOMAIN})*:)?"

_MAILBOX = re.compile(rf"({LOCAL_PART})@({DOMAIN}|{LITERAL})\Z")
_PATH = re.compile(rf"<{_ROUTE}((?:{LOCAL_PART}@(?:{DOMAIN}|{LITERAL}))|)>")
_POSTMASTER = re.compile(r"<(postmaster)>", re.IGNORECASE | re.ASCII)
_DOMAIN = re.compile(rf"{DOMAIN}\Z")
_TAGGED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?:[!-Z^-~]+\Z")
_HELLO = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*)|\[[!-Z^-~]+\])\Z")


def is_domain(text: str) -> bool:
    """Whether `text` is a domain name: labels of 1 to 63 octets (as A-labels), 255 octets in all."""
    if len(text) <= 63 and text.isascii():
        return _DOMAIN.match(text) is not None
    if not _DOMAIN.match(text) or not all(c.isascii() or _may_be_in_a_label(c) for c in text):
        return False
    wire = ascii_domain(text)
    return (
        len(wire) <= MAX_DOMAIN and len(text.encode()) <= MAX_DOMAIN and all(len(one) <= 63 for one in wire.split("."))
    )


def _may_be_in_a_label(c: str) -> bool:
    """Letters, marks, digits and the few others that IDNA lets in (RFC 5892 2); never a character that looks like a
    dot and would be read as one further on."""
    return unicodedata.category(c)[0] in "LMN" or c in "\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb"


def is_literal(text: str) -> bool:
    """Whether `text` is an address literal in brackets: IPv4, IPv6: or another tag (RFC 5321 4.1.3)."""
    if len(text) < 3 or text[0] != "[" or text[-1] != "]" or len(text) > MAX_DOMAIN:
        return False
    inner = text[1:-1]
    tag, colon, rest = inner.partition(":")
    try:
        if not colon:
            IPv4Address(inner)
        elif tag.upper() == "IPV6":
            if "%" in rest:
                return False
            IPv6Address(rest)
        else:
            return _TAGGED.match(inner) is not None
    except (AddressValueError, ValueError):
        return False
    return True


def is_hello(text: str) -> bool:
    """Whether `text` may follow EHLO. Wider than a domain: names with underscores and bare addresses are common, and
    RFC 5321 4.1.4 forbids refusing a client for its name alone."""
    if len(text) > MAX_DOMAIN or not _HELLO.match(text):
        return False
    return text[0] != "[" or is_literal(text)


def is_mailbox(text: str) -> bool:
    """Whether `text` is local-part@domain within all limits."""
    match = _MAILBOX.match(text)
    if match is None:
        return False
    local, domain = match.groups()
    if len(local.encode()) > MAX_LOCAL_PART or len(text.encode()) > MAX_PATH - 2:
        return False
    return is_literal(domain) if domain[0] == "[" else is_domain(domain)


def read_path(text: str, *, null: bool = False, postmaster: bool = False) -> tuple[str, int] | None:
    """The mailbox at the start of `text` ("<...>") and where the path ends, or None where there is none.

    `null` lets the null path in (as ""), `postmaster` lets `<Postmaster>` without a domain in (RFC 5321 4.1.1.3).
    """
    match = _PATH.match(text)
    if match is None:
        match = _POSTMASTER.match(text) if postmaster else None
        return None if match is None else (match[1], match.end())
    mailbox = match[1]
    if not mailbox:
        return ("", 2) if null and match.end() == 2 else None
    if not is_mailbox(mailbox):
        return None
    return mailbox, match.end()


def ascii_domain(domain: str) -> str:
    """The domain in lower case with A-labels, as DNS wants it. ASCII domains only change case."""
    if domain.isascii():
        return domain.lower()
    labels = []
    for label in unicodedata.normalize("NFC", domain).lower().split("."):
        labels.append(label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii"))
    return ".".join(labels)


def split_mailbox(mailbox: str) -> tuple[str, str]:
    """Local part and domain; the domain is "" where there is none. The local part may hold "@" in quotes."""
    local, _, domain = mailbox.rpartition("@")
    return (local, domain) if local else (domain, "")
