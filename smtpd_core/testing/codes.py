"""One-time codes in the words of a mail, told apart from the years, dates, amounts and numbers around them.

Rules: a number is a code because of what stands by it, not because of how it looks.
1. Named: a word such as "code", "PIN" or "verification" leads to it or to a list of them, or it "is your code".
2. Shown: it stands alone on its line, or in a sentence that has such a word, in a mail that speaks of a code.
What another word has named (an order, a phone), and dates, amounts and addresses, are none. Where a mail has codes of
the first kind, those of the second are not looked for.
Thread: pure.
Not here: which words a mail has (letter.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Words that lead to a code. Compounds count: Bestätigungscode, passcode.
_SPEAKS = re.compile(
    r"\b(?:\w{0,40}codes?|code?ice|c[oó]digos?|kode|kod|kód|код\w*|PINs?|(?-i:TAN)|OTPs?|2FA|tokens?|pass\s?words?|verif\w{1,8}|one-time\s+\w+"
    r"|einmal-?\w*|kennwort|mot\s+de\s+passe\s+unique)\b|验证码|驗證碼|認証\w*|コード|인증\w*",
    re.IGNORECASE,
)

# Words that only look like it.
_OTHER_CODES = re.compile(
    r"\b(?:(?:zip|postal|promo\w*|discount|coupon|voucher|gift|area|country|dial\w*|error|status|exit|qr|source|dress|sort"
    r"|swift|bank|referral|product|item|booking|tracking)[\s-]*codes?|(?:post|bar|uni|de|en)codes?|codes?\s+of\s+\w+)\b",
    re.IGNORECASE,
)

# How a code looks: digits, perhaps in two groups; capitals and digits; groups of those with hyphens.
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9_#/+@=&%.,:$€£¥-])"
    r"(?:(?:[A-Z]-)?(?P<digits>\d{4,8}|\d{3}[ -]\d{3}|\d{4}[ -]\d{4}|\d(?: \d){3,7})"
    r"|(?P<mixed>(?=[A-Z]{0,7}\d)(?=\d{0,7}[A-Z])[A-Z\d]{6,8})"
    r"|(?P<rare>(?=[a-z]{0,7}\d)(?=\d{0,7}[a-z])[a-z\d]{6,8}|[A-Z\d]{3,4}(?:-[A-Z\d]{3,4}){1,3}))"
    r"(?![A-Za-z0-9_/@=%€£¥-]|[.,:]\d)"
)

_MONTH = r"(?:jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*\.?"

# What another word has named.
_NAMED_OTHERWISE = re.compile(
    rf"(?:\b(?:order|invoice|ticket|case|ref(?:erence)?|account|customer|tracking|parcel|member\w*|serial|licen[cs]e|phone|tel|mobile|call|fax|zip"
    rf"|bestell\w*|rechnung\w*|kunden\w*|konto\w*|commande|facture|pedido|fattura|ending|ends|room|gate|flight|version"
    rf"|build|port|box|suite|copyright|since|usd|eur|gbp|chf|{_MONTH}(?:\s+\d{{1,2}}(?:st|nd|rd|th)?,?)?)"
    rf"|©|\(c\)|[$€£¥]|\bn[or]\.?|№)(?:\s*(?:no|nr|number|id|in|with|code|is|us|at|on)\b\.?)*[\s.:#]*$",
    re.IGNORECASE,
)
_STATE = re.compile(r"\b[A-Z]{2}\s$")  # CA 94107

# What comes behind a number that counts or measures something, or is part of a date or of a longer number.
_MEASURES = re.compile(
    rf"\s*(?:(?:usd|eur|gbp|chf|dollars?|euros?|minutes?|minuten|mins?|seconds?|hours?|days?|years?|points?|people|users"
    rf"|miles|km|[kmg]i?b|px|{_MONTH})\b|[$€£¥%])|[ -]\d",
    re.IGNORECASE,
)

_YEAR = re.compile(r"(?:19|20)\d\d$")
_PLACE = re.compile(r"\s[A-Z][a-zäöü]+")  # 10115 Berlin, 94107 Market Street

_SENTENCE_END = re.compile(r"[.!?]\s+(?=[A-ZÄÖÜ©])|\n\s*\n")
_TIGHT = re.compile(r"\s*(?:is|lautet|ist|est|es|è|são|是|は|to)?\s*[:=\uff1a\u2013\u2014-]?\s*$", re.IGNORECASE)
_IS_YOUR = re.compile(r"[\s.:\u2013\u2014-]*(?:is|as|ist|est|es|è|for)\b", re.IGNORECASE)
_ASKED_FOR = re.compile(r"\b(?:use|enter|type|input|submit)\s+(?:in\s+)?$", re.IGNORECASE)

# How far a word leads, and how far a sentence is looked at.
_REACH, _SIGHT = 80, 400

_LINK = re.compile(r"(?:https?://|www\.)\S+|[^\s@]{1,64}@\S+", re.IGNORECASE)
_SPREAD = re.compile(r"(?m)^\s*\d\s*$(?:\n\s*\d\s*$){3,7}")  # a digit a line: boxes in a row


def codes_in(words: str) -> list[str]:
    """The codes in order, each once. `words` are a mail's lines, the subject first."""
    words = _SPREAD.sub(lambda found: "".join(found[0].split()), _LINK.sub(" ", words))
    told = _OTHER_CODES.sub(lambda found: "X" * len(found[0]), words)
    if not _SPEAKS.search(told):
        return []
    named, shown = [], []
    end = len(words)
    for found in _candidates(words):
        before, after = told[max(0, found.start() - _SIGHT) : found.start()], told[found.end() : found.end() + _SIGHT]
        is_listed = end < found.start() and words[end : found.start()].isspace()
        if is_listed or _is_named(found, before, after):
            named.append(_bare(found))
            end = found.end()
        elif _is_shown(found, before, after):
            shown.append(_bare(found))
    return list(dict.fromkeys(named or shown))


def _candidates(words: str) -> Iterator[re.Match[str]]:
    for found in _LOOKS.finditer(words):
        before = words[max(0, found.start() - _REACH) : found.start()]
        after = words[found.end() : found.end() + _REACH]
        if not (_NAMED_OTHERWISE.search(before) or _STATE.search(before) or _MEASURES.match(after)):
            yield found


def _is_named(found: re.Match[str], before: str, after: str) -> bool:
    """Whether a word leads to it."""
    lead = _SENTENCE_END.split(before[-_REACH:])
    near = lead[-1] if lead[-1].strip() or len(lead) < 2 else lead[-2]  # a blank line between word and code
    leads = list(_SPEAKS.finditer(near))
    if leads:
        between = near[leads[-1].end() :]
        if _TIGHT.fullmatch(between):
            return True
        if not _is_doubtful(found, after) and not any(one.isdigit() for one in between):
            return True
    if _is_doubtful(found, after):
        return False
    if _ASKED_FOR.search(before):
        return True
    behind = _SENTENCE_END.split(after[:_REACH])[0]
    return bool(_IS_YOUR.match(behind) and _SPEAKS.search(behind))


def _is_shown(found: re.Match[str], before: str, after: str) -> bool:
    """Whether it stands alone on its line, or in a sentence that speaks of a code."""
    if _YEAR.fullmatch(found[0]):
        return False
    if not before.rpartition("\n")[2].strip() and not after.partition("\n")[0].strip(" \t\r."):
        return True
    if _is_doubtful(found, after):
        return False
    return bool(_SPEAKS.search(_SENTENCE_END.split(before)[-1] + _SENTENCE_END.split(after)[0]))


def _is_doubtful(found: re.Match[str], after: str) -> bool:
    """Whether it may be something else, so that only a word right before it makes it a code."""
    if found["rare"] or _YEAR.fullmatch(found[0]):
        return True
    return len(found[0]) in (4, 5) and bool(_PLACE.match(after))


def _bare(found: re.Match[str]) -> str:
    """As it is typed in: digits without the gaps that make them easy to read."""
    digits = found["digits"]
    return re.sub(r"[ -]", "", digits) if digits else found[0]
