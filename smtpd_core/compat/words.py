"""What older programs return and read: status lines ("550 5.1.1 No such user") and lists of parameters.

Thread: pure. Not here: what they mean (server/verdicts.py).
"""

from __future__ import annotations

import re

from smtpd_core.wire.envelope import MailParameters, Recipient
from smtpd_core.wire.replies import Reply

_STATUS = re.compile(r"([2-5]\d\d)[ -]?(?:([245]\.\d{1,3}\.\d{1,3})(?: |\Z))?(.*)\Z", re.DOTALL)
_LATER_LINES = re.compile(r"\r?\n(?:\d\d\d[ -])?")


def reply_of(status: object) -> Reply | None:
    """None and "" stand for the usual reply. TypeError or ValueError for what is no status line."""
    if status is None or status == "":
        return None
    if isinstance(status, bytes):
        status = status.decode("utf-8", "replace")
    if not isinstance(status, str):
        raise TypeError(f"a status is text such as '550 No such user', not {status!r}")
    match = _STATUS.match(status.strip())
    if match is None:
        raise ValueError(f"{status!r} is no status: a code comes first, as in '550 No such user'")
    code, enhanced, text = match.groups()
    if enhanced and enhanced[0] != code[0]:
        enhanced, text = "", f"{enhanced} {text}"
    return Reply(int(code), enhanced or "", _LATER_LINES.sub("\n", text))


def mail_options(parameters: MailParameters) -> list[str]:
    """MAIL's parameters in the words of the command."""
    options = [] if parameters.size is None else [f"SIZE={parameters.size}"]
    if parameters.body:
        options.append(f"BODY={parameters.body}")
    if parameters.smtputf8:
        options.append("SMTPUTF8")
    return options


def rcpt_options(recipient: Recipient) -> list[str]:
    """RCPT's parameters in the words of the command."""
    options = [f"NOTIFY={','.join(recipient.notify)}"] if recipient.notify else []
    return options + ([f"ORCPT={recipient.orcpt}"] if recipient.orcpt else [])
