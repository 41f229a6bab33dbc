"""What an answer means: whether a recipient is done, refused or to be tried again, and whom else that concerns.

This module alone interprets codes. First matching row decides; unknown is temporary.
Scopes: "recipient"; "message" (another message may pass); "host" (another host of the destination may do better);
"destination" (all of it, for some time).
Not here: when to try again (retry.py), what that does to the window (window.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.hop import Word
from relay.mail import Result


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is "" or what is worth knowing: greylisted, mailbox full, no such user, too many recipients, lost."""

    result: Result
    scope: str
    kind: str = ""
    enhanced: str = ""  # ours, where the peer gave none


_BEFORE_MAIL = ("connect", "greeting", "hello", "tls", "auth")

# Where there was no answer: step -> enhanced code. RFC 3463 3.5, 3.8.
_SILENT = {
    "connect": "4.4.1",
    "greeting": "4.4.2",
    "hello": "4.4.2",
    "tls": "4.7.5",
    "auth": "4.7.8",
    "content": "4.4.2",
}

_NO_SUCH_USER = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10"})


def judged(word: Word, *, lmtp: bool = False) -> Verdict:
    """The verdict on one recipient by the last word on it. `lmtp`: the hop's mailbox is the end of the way."""
    answer, step = word.answer, word.step
    # 1 Nothing was said. After the final dot the fate is unknown, and unknown is temporary.
    if answer is None:
        lost = "lost" if step == "content" else ""
        scope = "destination" if step == "auth" else "host"
        return Verdict(Result.DEFERRED, scope, lost, _SILENT.get(step, "4.4.2"))
    code, enhanced = answer.code, answer.enhanced
    # 2 Success is 2xx to the content; anywhere else a positive answer as the last word is out of order.
    if code < 400:
        if step == "content" and code < 300:
            return Verdict(Result.DELIVERED if lmtp else Result.RELAYED, "recipient", "", "2.0.0")
        return Verdict(Result.DEFERRED, "host", "wrong code", "4.5.0")
    # 3 The host closes.
    if code == 421:
        return Verdict(Result.DEFERRED, "host", "", "4.3.2")
    # 4 The host, not the message: greeting, hello and TLS; 521 and 554 there mean that it takes no mail (RFC 7504).
    if step in ("greeting", "hello"):
        return Verdict(Result.FAILED if code >= 500 else Result.DEFERRED, "host", "", f"{code // 100}.3.2")
    if step == "tls":
        return Verdict(Result.DEFERRED, "host", "", "4.7.4")
    # 5 A log-in that fails is our own fault: the sender's mail does not bounce for it.
    if step == "auth":
        return Verdict(Result.DEFERRED, "destination", "", "4.7.8")
    if step == "rcpt":
        return _of_recipient(code, enhanced, answer.text)
    # 6 MAIL, DATA and content judge the message, under LMTP's content the recipient.
    scope = "recipient" if lmtp and step == "content" else "message"
    if code >= 500:
        return Verdict(Result.FAILED, scope, "mailbox full" if enhanced == "5.2.2" else "", "5.0.0")
    if enhanced.startswith("4.3.") and step == "mail":
        return Verdict(Result.DEFERRED, "host", "", enhanced)
    kind = "greylisted" if _is_greylisting(enhanced, answer.text) else ""
    return Verdict(Result.DEFERRED, scope, kind, "4.0.0")


def _of_recipient(code: int, enhanced: str, text: str) -> Verdict:
    # 1 452, and 552 of old servers, mean too many recipients (RFC 5321 4.5.3.1.10) unless the code says otherwise; with
    #   4.5.3 (RFC 3463 3.6) other temporary codes mean it too, 451 that of OpenSMTPD.
    if (code in (452, 552) and enhanced in ("", "4.5.3", "5.5.3")) or (code < 500 and enhanced == "4.5.3"):
        return Verdict(Result.DEFERRED, "recipient", "too many recipients", "4.5.3")
    if enhanced.endswith(".2.2"):
        result = Result.FAILED if code >= 500 else Result.DEFERRED
        return Verdict(result, "recipient", "mailbox full", enhanced)
    if code >= 500:
        unknown = enhanced in _NO_SUCH_USER or (not enhanced and code in (550, 551, 553))
        return Verdict(Result.FAILED, "recipient", "no such user" if unknown else "", "5.1.1" if unknown else "5.0.0")
    kind = "greylisted" if _is_greylisting(enhanced, text) else ""
    return Verdict(Result.DEFERRED, "recipient", kind, "4.0.0")


def _is_greylisting(enhanced: str, text: str) -> bool:
    """RFC 6647 names 450 and 451 with 4.7.1; the word itself is what servers agree on."""
    lowered = text.lower()
    return "greylist" in lowered or "graylist" in lowered or (enhanced == "4.7.1" and "try again" in lowered)


def host_is_in_trouble(word: Word) -> bool:
    """Whether another host of the same destination is worth a try now.

    Not after the final dot: the message may have been taken, and a second host would make two of it.
    """
    if word.answer is None and word.step == "content":
        return False
    return judged(word).scope == "host"


def connection_is_used_up(word: Word) -> bool:
    """Whether a kept connection is over, where the message might go through on a new one: closed meanwhile, or it has
    carried as many as its host lets one connection carry, which Exim tells by 421 and OpenSMTPD by 452 4.5.3."""
    if word.step != "mail":
        return False
    answer = word.answer
    return answer is None or answer.code == 421 or (400 <= answer.code < 500 and answer.enhanced == "4.5.3")
