"""What a hook may return, and what it means.

    None, Accept()          go on; Accept("text") or Accept(reply) says so in other words
    Refuse(...), a Reply    refuse (a Reply below 300 accepts; 3xx is a mistake)
    Redirect(*addresses)    go on, with these addresses in place of the one given (mail, recipient and message hooks)
    a Ticket                the verdict comes later and no thread waits (message hook)
    a list of Reply         one per recipient (message hook, LMTP)

Thread: values, from any.
Not here: which hook may return which (hooks.py), what follows (dialogue.py).
"""

from __future__ import annotations

import re

from smtpd_core.wire.replies import Reply, refused_550

_IS_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z").match

# Enhanced codes for a Refuse that names only a code: RFC 3463, "other" of the class that fits best.
_ENHANCED = {4: "4.7.1", 5: "5.7.1", 421: "4.3.2", 452: "4.3.1", 552: "5.3.4", 535: "5.7.8", 454: "4.7.0"}


class Accept:
    """Accept, with a reply of one's own where given: a text for the usual code, or a whole Reply below 300.

    For on_recipient_to it also lets a client relay that otherwise may not: it is the explicit rule.
    """

    __slots__ = ("reply", "text")

    def __init__(self, reply: Reply | str | None = None) -> None:
        if isinstance(reply, Reply) and reply.code >= 300:
            raise ValueError(f"Accept({str(reply)!r}): a reply below 300 is due; use Refuse for 4xx and 5xx")
        self.reply = reply if isinstance(reply, Reply) else None
        self.text = reply if isinstance(reply, str) else ""


class Refuse:
    """Refuse: `Refuse()`, `Refuse("No mail today")`, `Refuse(451, "Try later")`, `Refuse(550, "5.1.1", "No such user")`
    or `Refuse(reply)`. 4xx asks the client to come again, 5xx tells it not to. ValueError for anything below 400."""

    __slots__ = ("reply",)

    def __init__(self, reply: Reply | int | str = refused_550, enhanced: str = "", text: str = "") -> None:
        if isinstance(reply, str):
            reply = Reply(550, "5.7.1", reply)
        if isinstance(reply, int):
            if enhanced and not text and not _IS_ENHANCED(enhanced):
                enhanced, text = "", enhanced
            reply = Reply(reply, enhanced or _ENHANCED.get(reply) or _ENHANCED.get(reply // 100, ""), text or "Refused")
        if reply.is_positive:
            raise ValueError(f"Refuse({str(reply)!r}): a code from 400 on is due")
        self.reply = reply


class Redirect:
    """Go on with other addresses. In on_mail_from exactly one (or "" for the null path)."""

    __slots__ = ("addresses",)

    def __init__(self, *addresses: str) -> None:
        for address in addresses:
            if not isinstance(address, str):
                raise TypeError(f"Redirect({address!r}): addresses are text")
            if any(c <= " " or c in "<>\x7f" for c in address):
                raise ValueError(
                    f"Redirect({address!r}): no address; spaces, controls and angle brackets can't be in one"
                )
        self.addresses = addresses


Verdict = Accept | Refuse | Redirect | Reply | None


def said_instead(verdict: Accept, usual: Reply) -> Reply | None:
    """The reply of an Accept, None for the usual one."""
    if verdict.text:
        return Reply(usual.code, usual.enhanced, verdict.text)
    return verdict.reply
