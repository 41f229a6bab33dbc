"""`queue import`: what another state directory has still to deliver, taken into this one, beside its server or without.

Rule: the place it comes from stays as it is; what was taken once is never taken again.
Not here: what is there (relay/remains), how it is brought in (relay/importing).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from relay.control import LOOK_AROUND, ask
from relay.importing import Importing, ImportUnderWay
from relay.mail import Message
from relay.other_disk import Unreadable
from relay.queue import QueueIsHeld, QueueUnreadable
from relay.queue_reader import SqliteReader
from relay.remains import Remains
from relay.view import Fault
from smtpd_core.app.terminal import progress
from smtpd_core.wire.shown import shown

DONE, FAILED, REFUSED = 0, 1, 2

# Nothing was taken because of these; another OSError may have come when some was.
_NOT_BEGUN = (ValueError, FileNotFoundError, QueueIsHeld, QueueUnreadable, ImportUnderWay)


@dataclass
class _Account:
    """What became of all that was found."""

    imported: int = 0
    held: int = 0
    known: int = 0
    faults: list[str] = field(default_factory=list)
    server: bool = False  # one runs, and was told


def bring(source: Path, state: Path, *, as_json: bool) -> int:
    """The exit code: FAILED where something could not be read, all else being imported; REFUSED where nothing was
    tried."""
    try:
        _look_at(source, state)
        with Remains(source) as remains:
            account = _brought(remains, state)
    except (ValueError, OSError) as error:
        if isinstance(error, _NOT_BEGUN):
            print(shown(f"queue import: {error}"), file=sys.stderr)
            return REFUSED
        advice = "what was handed over by then stays; mend that, and make the import again"
        print(shown(f"queue import into {state}: {error}; {advice}"), file=sys.stderr)
        return FAILED
    _tell(account, source, state, as_json)
    return FAILED if account.faults else DONE


def _look_at(source: Path, state: Path) -> None:
    """ValueError where these two can't be meant."""
    if not state.is_dir():
        raise ValueError(
            f"{state} is no state directory; start its server once, or name another by --state or --config"
        )
    if source.is_dir() and source.samefile(state):
        raise ValueError(f"{source} is the directory to import into; name the one that the messages come from")
    owner = state.stat().st_uid
    if owner != os.geteuid():
        raise ValueError(
            f"{state} belongs to user number {owner}; run this as that user, so that its server can read it"
        )


def _brought(remains: Remains, state: Path) -> _Account:
    account = _Account()

    def handed_over() -> None:
        account.server = _told(state)

    queue = SqliteReader(state / "queue.db") if (state / "queue.db").exists() else None
    try:
        with Importing(state, handed_over) as importing, progress("queue import", remains.count) as looked:
            for one in remains:
                looked()
                if isinstance(one, Fault):
                    account.faults.append(one.text)
                elif one is not None:
                    _take(one, importing, queue, account)
            importing.hand_over()
    finally:
        if queue is not None:
            queue.close()
    return account


def _take(message: Message, importing: Importing, queue: SqliteReader | None, account: _Account) -> None:
    if importing.has(message.id) or (queue is not None and queue.has(message.id)):
        account.known += 1
        return
    try:
        if importing.take(message):
            account.imported += 1
            account.held += message.is_held
        else:
            account.faults.append(f"message {message.id}: its envelope is too long")
    except Unreadable as error:
        account.faults.append(f"message {message.id}: its content can't be read: {error.strerror}")


def _told(state: Path) -> bool:
    """Whether a server runs that looks at what it got; another finds it when it starts."""
    try:
        ask(state, LOOK_AROUND, ())
    except (OSError, ValueError):
        return False
    return True


def _tell(account: _Account, source: Path, state: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(vars(account)))
        return
    for fault in account.faults:
        print(shown(fault))
    held = f" ({account.held} held)" if account.held else ""
    print(f"{account.imported} messages imported{held}, {account.known} were here already", end="")
    print(f", {len(account.faults)} faults" if account.faults else "")
    if account.imported:
        where = "the running server has them" if account.server else "they are queued when a server starts"
        print(shown(f"{where} on {state}"))
    print(
        shown(f"{source} is as it was; set it aside, so that no server delivers from it: mv {source} {source}.imported")
    )
