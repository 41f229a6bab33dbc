"""Delivery to a command: the message on its standard input, the verdict in its exit status (sysexits.h).

The command comes from the settings and is split once, without a shell; what strangers wrote reaches it as whole
arguments ({recipient}, {user}, {domain}, {sender}) and as environment variables, never as a part of a command line.
{user} and {domain} are safe as names of files, as they are in paths; the others and the environment are as written.
At least once: a command that did its work and was killed before it said so is run again.
Thread: any courier.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable

from relay.agents.agent import OpenBody, outcome, pieces
from relay.agents.final import headers
from relay.agents.trouble import local_trouble
from relay.mail import Outcome, Parcel, Result, Stop
from relay.route import mailbox, safe_name

WINDOW = 65_536
# What of a command's output becomes the text of the outcome.
MAX_SAID = 1_000

_PLACES = re.compile(r"\{(recipient|user|domain|sender)\}")

# sysexits.h: what it means for the recipient; the status of the others is 4.3.0.
_PERMANENT = {
    64: "5.3.5",  # EX_USAGE
    65: "5.6.0",  # EX_DATAERR
    66: "5.3.0",  # EX_NOINPUT
    67: "5.1.1",  # EX_NOUSER
    68: "5.1.2",  # EX_NOHOST
    69: "5.3.0",  # EX_UNAVAILABLE
    70: "5.3.0",  # EX_SOFTWARE
    73: "5.2.0",  # EX_CANTCREAT
    76: "5.5.0",  # EX_PROTOCOL
    77: "5.7.0",  # EX_NOPERM
    78: "5.3.5",  # EX_CONFIG
}


class PipeAgent:
    """Destinations "pipe:COMMAND". `seconds` bounds a run; a command that takes longer is killed, and tried again."""

    def __init__(self, seconds: float = 300.0, mailbox_of: Callable[[str], tuple[str, str]] = mailbox) -> None:
        self._seconds = seconds
        self._mailbox_of = mailbox_of

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        try:
            words = shlex.split(parcel.destination.partition(":")[2])
        except ValueError:
            words = []
        if not words:
            text = "the command of this destination can't be read"
            return [
                outcome(stop, Result.DEFERRED, now, code=451, enhanced="4.3.5", text=text, scope="destination")
                for stop in parcel.stops
            ]
        return [self._run(words, parcel, stop, open_body, now) for stop in parcel.stops]

    def close(self) -> None:
        """Holds nothing."""

    def _run(self, words: list[str], parcel: Parcel, stop: Stop, open_body: OpenBody, now: float) -> Outcome:
        address = stop.recipient.address
        user, domain = self._mailbox_of(address)
        names = {
            "recipient": address,
            "user": safe_name(user),
            "domain": safe_name(domain),
            "sender": parcel.envelope.sender,
        }
        # The first word is the operator's alone.
        command = [words[0]] + [_PLACES.sub(lambda place: names[place[1]], word) for word in words[1:]]
        if any(word.startswith("-") and not plan.startswith("-") for word, plan in zip(command, words, strict=True)):
            # A name that begins with a dash would be an option to the command.
            text = "no mailbox of this command begins with a dash"
            return outcome(stop, Result.FAILED, now, code=550, enhanced="5.1.3", text=text)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "SENDER": names["sender"],
            "RECIPIENT": address,
            "USER_PART": user,
            "DOMAIN": domain,
            "QUEUE_ID": parcel.message_id,
        }
        try:
            with tempfile.TemporaryFile() as content, tempfile.TemporaryFile() as said:
                for piece in pieces(parcel, open_body, WINDOW, headers(parcel, stop)):
                    content.write(piece)
                content.seek(0)
                status = self._wait(command, environment, content.fileno(), said.fileno())
                said.seek(0)
                text = " ".join(said.read(MAX_SAID).decode("utf-8", "replace").split())
        except ValueError as error:  # a NUL in an argument
            return outcome(stop, Result.FAILED, now, code=550, enhanced="5.1.3", text=str(error))
        except OSError as error:
            return local_trouble(stop, error, now)
        return _judged(stop, status, text, now)

    def _wait(self, command: list[str], environment: dict[str, str], content: int, said: int) -> int | None:
        """The exit status, None where the command had to be killed."""
        process = subprocess.Popen(
            command,
            stdin=content,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            return process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its session, so that what it started goes too
            process.wait()
            return None


def _judged(stop: Stop, status: int | None, text: str, now: float) -> Outcome:
    if status == 0:
        return outcome(stop, Result.DELIVERED, now, code=250, enhanced="2.0.0", text=text or "taken by the command")
    if status is None:
        return outcome(stop, Result.DEFERRED, now, code=451, enhanced="4.4.7", text="the command took too long")
    if status in _PERMANENT:
        text = text or f"the command ended with status {status}"
        return outcome(stop, Result.FAILED, now, code=550, enhanced=_PERMANENT[status], text=text)
    text = text or f"the command ended with status {status}"
    return outcome(stop, Result.DEFERRED, now, code=451, enhanced="4.3.0", text=text)
