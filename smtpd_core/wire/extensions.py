"""The service extensions, one row of data each: what EHLO shows, when, and which parameters come with it.

A listener drops any by naming it in ProtocolSettings.without. A parameter of an extension that the listener does not
offer is answered 555 5.5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from smtpd_core.wire import parameters
from smtpd_core.wire.parameters import Parser

if TYPE_CHECKING:
    from smtpd_core.wire.settings import ProtocolSettings


class Standing(NamedTuple):
    """What a connection has reached; EHLO's lines are computed once for each of the combinations."""

    tls: bool = False
    logged_in: bool = False
    trusted: bool = False  # a peer whose XCLIENT and XFORWARD are believed
    bound: bool = False  # TLS gave channel bindings
    certified: bool = False  # the client's certificate proved an identity


Shown = Callable[["ProtocolSettings", Standing], str | None]


def _always(settings: ProtocolSettings, standing: Standing) -> str | None:
    return ""


@dataclass(frozen=True, slots=True)
class Extension:
    """One row. `shown` gives the text behind the keyword, "" for none, or None where EHLO does not show the line;
    `offered` says whether the listener knows the extension's parameters at all."""

    keyword: str
    shown: Shown = _always
    mail: Mapping[str, Parser] = field(default_factory=dict)
    rcpt: Mapping[str, Parser] = field(default_factory=dict)
    offered: Callable[[ProtocolSettings], bool] = lambda settings: True


def _starttls(settings: ProtocolSettings, standing: Standing) -> str | None:
    return "" if settings.starttls and not standing.tls else None


def _auth(settings: ProtocolSettings, standing: Standing) -> str | None:
    if standing.logged_in:
        return None
    names = settings.mechanism_names(tls=standing.tls, bound=standing.bound, certified=standing.certified)
    return " ".join(names) if names else None


def _limits(settings: ProtocolSettings, standing: Standing) -> str | None:
    """RFC 9422 4."""
    return f"RCPTMAX={settings.max_recipients}" if settings.max_recipients else None


def _trusted(text: str) -> Shown:
    return lambda settings, standing: text if standing.trusted else None


def _future(settings: ProtocolSettings, standing: Standing) -> str | None:
    """RFC 4865 4: the longest interval in seconds, and the latest date-time, which can't be known beforehand."""
    return f"{settings.longest_hold} 9999-12-31T23:59:59Z"


EXTENSIONS = (
    Extension("PIPELINING"),
    Extension("SIZE", lambda settings, _: str(settings.max_message_size), mail={"SIZE": parameters.size}),
    Extension("8BITMIME", mail={"BODY": parameters.body}),
    Extension("SMTPUTF8", mail={"SMTPUTF8": parameters.smtputf8}),
    Extension("CHUNKING"),
    Extension("BINARYMIME", mail={"BODY": parameters.body_or_binary}),
    Extension(
        "DSN",
        mail={"RET": parameters.ret, "ENVID": parameters.envid},
        rcpt={"NOTIFY": parameters.notify, "ORCPT": parameters.orcpt},
    ),
    Extension("ENHANCEDSTATUSCODES"),
    Extension("STARTTLS", _starttls),
    Extension("AUTH", _auth, mail={"AUTH": parameters.auth}, offered=lambda settings: bool(settings.mechanisms)),
    Extension("HELP"),
    Extension("VRFY"),
    Extension("EXPN", lambda settings, _: "" if settings.expn else None),
    Extension("ETRN", lambda settings, _: "" if settings.etrn else None),
    Extension("LIMITS", _limits),
    Extension(
        "DELIVERBY",
        lambda settings, _: str(settings.min_deliver_by) if settings.min_deliver_by else "",
        mail={"BY": parameters.by},
    ),
    Extension(
        "FUTURERELEASE",
        _future,
        mail={"HOLDFOR": parameters.hold_for, "HOLDUNTIL": parameters.hold_until},
        offered=lambda settings: settings.longest_hold > 0,
    ),
    Extension("MT-PRIORITY", lambda settings, _: settings.priority_profile, mail={"MT-PRIORITY": parameters.priority}),
    # Announced on no listener before the relay honours RFC 8689 4.2; until then its parameter is answered 555 5.5.4.
    Extension(
        "REQUIRETLS",
        lambda settings, standing: "" if settings.requiretls and standing.tls else None,
        mail={"REQUIRETLS": parameters.require_tls},
        offered=lambda settings: settings.requiretls,
    ),
    Extension("XCLIENT", _trusted("NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")),
    Extension("XFORWARD", _trusted("NAME ADDR PORT PROTO HELO IDENT SOURCE")),
)


def announced(settings: ProtocolSettings, standing: Standing) -> list[str]:
    """The lines of EHLO behind the greeting."""
    lines = []
    for row in settings.extensions:
        text = row.shown(settings, standing)
        if text is not None:
            lines.append(f"{row.keyword} {text}".rstrip())
    return lines
