"""Second copies: a client that lost our 250 sends the same message again; it hears the first copy's id.

The key is the source, the envelope and the whole content; only content with a Message-ID of its own counts, since
without one two equal messages may well be two messages. Known copies are those in flight (the second waits on the
first) and those kept within the last `window` seconds by this process, or found in spool and queue at its start; a
process that only spools also asks the queue of the one that delivers.
Blind spot: a copy that reaches another receiver process before the first is imported into the queue, about a second,
is stored twice.
Thread: any.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b

from smtpd_core.draft import Draft
from smtpd_core.threads import Lock, Ticket, resolve_all
from smtpd_core.wire.envelope import Envelope

# How many copies are remembered at most; at a key and an id each, some 20 MB.
MOST = 100_000

# A header is looked at only so far for its Message-ID.
HEADER_LIMIT = 65_536

_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*\S", re.IGNORECASE | re.MULTILINE)


def from_submission(envelope: Envelope) -> bool:
    """The default for whose resends are recognised: those of mail programs, which resend after a lost reply."""
    return envelope.origin.listener.startswith("submission")


class Resends:
    """`window` is in seconds, 0 for no copies at all; `clock` gives Unix time. `elsewhere` finds id and Unix time of a
    message that another process kept."""

    elsewhere: Callable[[bytes], tuple[str, float] | None] | None = None

    def __init__(
        self, clock: Callable[[], float], window: float = 300.0, applies: Callable[[Envelope], bool] = from_submission
    ) -> None:
        self._clock, self.window, self._applies = clock, window, applies
        self._lock = Lock()
        self._in_flight: dict[bytes, tuple[str, list[Ticket]]] = {}  # the first's id, and the tickets of later copies
        self._kept: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def change(self, window: float, applies: Callable[[Envelope], bool]) -> None:
        """Another window, and other messages, from now on."""
        self.window, self._applies = window, applies

    def key_of(self, envelope: Envelope, draft: Draft) -> bytes:
        """16 bytes that are equal for copies, b"" where copies of this message are not looked for."""
        if self.window <= 0 or not self._applies(envelope):
            return b""
        pieces = draft.chunks(HEADER_LIMIT) if draft.content is None else iter((draft.content,))
        first = next(pieces, b"")
        found = _MESSAGE_ID.search(first)
        end = first.find(b"\r\n\r\n")
        if found is None or 0 <= end < found.start():
            return b""
        who = "\0".join((envelope.origin.address, envelope.origin.user, envelope.sender))
        to = "\0".join(sorted(one.address for one in envelope.recipients))
        digest = blake2b(f"{who}\0\0{to}\0\0".encode("utf-8", "surrogateescape"), digest_size=16)
        digest.update(first)
        for piece in pieces:
            digest.update(piece)
        return digest.digest()

    def is_known(self, key: bytes, id: str, ticket: Ticket) -> bool:
        """True: a copy is in flight or kept, and `ticket` is or will be resolved with its id. False: `id` is the first
        and is in flight from now on, until kept() or forget()."""
        now = self._clock()
        if self.elsewhere is not None and key not in self._kept and (found := self.elsewhere(key)) is not None:
            self.remember([(key, *found)])
        with self._lock:
            kept = self._kept.get(key)
            first = self._in_flight.get(key)
            if kept is None or now - kept[1] > self.window:
                kept = None
                if first is None:
                    self._in_flight[key] = (id, [])
                    return False
                first[1].append(ticket)
        ticket.take()
        if kept is not None:
            ticket.resolve(value=kept[0])
        return True

    def kept(self, key: bytes) -> None:
        """The message in flight under `key` is kept."""
        with self._lock:
            first = self._in_flight.pop(key, None)
            if first is not None:
                self._note(key, first[0], self._clock())
        if first is not None:
            for ticket in first[1]:
                ticket.resolve(value=first[0])

    def forget(self, key: bytes, error: OSError) -> None:
        """The message in flight under `key` was not kept, for the reason given."""
        with self._lock:
            first = self._in_flight.pop(key, None)
        if first is not None:
            resolve_all(first[1], error)

    def remember(self, known: Iterable[tuple[bytes, str, float]]) -> None:
        """Key, id and Unix time of messages kept before this process began, or by another."""
        for key, id, at in known:  # which may be read from disk meanwhile: not under the lock
            with self._lock:
                self._note(key, id, at)

    def _note(self, key: bytes, id: str, at: float) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (id, at)
        oldest = self._clock() - self.window
        while self._kept and (len(self._kept) > MOST or next(iter(self._kept.values()))[1] < oldest):
            self._kept.popitem(last=False)
