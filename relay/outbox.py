"""A durable queue with its delivery, in a directory: for the daemon and for programs that send mail.

One process, the holder of queue.lock, imports and delivers; any other that opens the same directory only spools, and
the holder imports what it promised. Satisfies smtpd_core.server.keeping without importing it.
    directory/spool/  segments and bodies    directory/queue.db, queue.lock, bodies/    directory/aside/
Thread: keep(), send(), has_room(), holds() from any; start() and stop() from one at a time.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.message import Message as EmailMessage
from email.policy import SMTP
from typing import BinaryIO, TypedDict, Unpack

from relay.agents.agent import Agent
from relay.agents.expand import ExpandAgent
from relay.agents.final import OncePerMailbox
from relay.agents.maildir import MaildirAgent
from relay.agents.mbox import MboxAgent
from relay.agents.pipe import PipeAgent
from relay.agents.refuse import RefuseAgent
from relay.agents.smtp import SmtpAgent
from relay.bell import Bell
from relay.control import ControlSocket
from relay.dispatcher import Dispatcher
from relay.hop import Hop
from relay.idle import IdleConnections, IdleLimits
from relay.intake import Intake
from relay.kept_before import remember_all
from relay.mail import Envelope, Outcome, Parcel, Recipient, Stop
from relay.mx import Planner
from relay.queue import Queue, QueueIsHeld
from relay.queue_reader import SqliteReader
from relay.queue_resends import QueueResends
from relay.queue_sqlite import SqliteQueue
from relay.relaying import Customs, Relaying
from relay.resends import Resends, from_submission
from relay.route import Routes, mailbox
from relay.spool import Durability, Spool, always_synced
from relay.spool_figures import Figures
from relay.view import Filter, Status
from smtpd_core.draft import Draft
from smtpd_core.threads import Ticket, abandon_in_children
from smtpd_core.wire.client import Observer
from smtpd_core.wire.envelope import MailParameters
from smtpd_core.wire.replies import Reply

log = logging.getLogger(__name__)

# send() waits this long for the sync.
SEND_SECONDS = 60.0


class Keeping(TypedDict, total=False):
    """How mail is kept until the queue has it; see Outbox."""

    spool_limit: int
    free_floor: int
    durability_of: Callable[[Envelope], Durability]
    recognises_resend: Callable[[Envelope], bool]
    resend_window: float


class Outbox:
    """`stops(envelope)` routes (Routes().stops: all by MX); `holds(address)` says which recipients are for it.

    `spool_limit` and `free_floor` are the spool's, in bytes. `durability_of` says when a message counts as kept,
    `recognises_resend` whose second copies are looked for, within `resend_window` seconds.
    `agents` adds agents by scheme or replaces ours. `alone`: no other process spools into the directory, so nobody
    looks for it. `spools_only`: another process delivers, also where it is not there yet. `returns_circles`: mail whose
    header says that it was delivered to the same mailbox before is returned.
    `observer(hop)` may give an observer for a conversation with a next hop. `recovering` is called for every message
    that start() reads in the spool, with the bytes that are done and those in all.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        stops: Callable[[Envelope], Sequence[Stop]] | None = None,
        holds: Callable[[str], bool] | None = None,
        relaying: Relaying | None = None,
        agents: Mapping[str, Agent] | None = None,
        mailbox_of: Callable[[str], tuple[str, str]] = mailbox,
        queue: Queue | None = None,
        spool_limit: int = 4 << 30,
        free_floor: int = 64 << 20,
        durability_of: Callable[[Envelope], Durability] = always_synced,
        recognises_resend: Callable[[Envelope], bool] = from_submission,
        resend_window: float = 300.0,
        alone: bool = False,
        spools_only: bool = False,
        returns_circles: bool = True,
        idle: IdleLimits | None = None,
        observer: Callable[[Hop], Observer | None] | None = None,
        on_outcome: Callable[[Parcel, Outcome], None] | None = None,
        recovering: Callable[[int, int], None] = lambda done, total: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = os.path.abspath(os.fspath(directory))
        self.relaying = relaying or Relaying()
        self.queue: Queue | None = queue
        self._owns_queue = queue is None
        self._stops = stops or Routes(hostname=self.relaying.hello).stops
        self._holds = holds
        self._more_agents = dict(agents or {})
        self._mailbox_of = mailbox_of
        self._spool_limit = spool_limit
        self._free_floor = free_floor
        self._durability_of = durability_of
        self._recognises_resend = recognises_resend
        self._resends = Resends(clock, resend_window, recognises_resend)
        self._queue_resends: QueueResends | None = None
        self._control: ControlSocket | None = None
        self._alone = alone
        self._spools_only = spools_only
        self._returns_circles = returns_circles
        self._idle_limits = idle
        self._observer = observer
        self._on_outcome = on_outcome
        self._recovering = recovering
        self._clock = clock
        self._spool: Spool | None = None
        self._figures = Figures()
        self._intake: Intake | None = None
        self.dispatcher: Dispatcher | None = None
        self._customs = Customs(self.relaying)
        self._planner = Planner(self.relaying, self._customs.port_of)
        # Known before start(), so that a server may be told of it.
        self.drafts: str | None = os.path.join(self.directory, "spool")

    # Its life

    @property
    def delivers(self) -> bool:
        """Whether this process holds the queue; else it only spools."""
        return self.dispatcher is not None

    def start(self) -> bool:
        """Open the spool, and the queue where nobody else has it; recover, import, begin to deliver.

        False where it runs already: then it is somebody else's to stop.
        Raises OSError and sqlite3.Error where the directory can't be used."""
        if self._spool is not None:
            return False
        spool_directory = os.path.join(self.directory, "spool")
        os.makedirs(spool_directory, mode=0o700, exist_ok=True)
        spool = Spool(
            spool_directory,
            limit=self._spool_limit,
            free_floor=self._free_floor,
            durability_of=self._durability_of,
            resends=self._resends,
        )
        try:
            self._start_delivery(spool_directory, spool)
        except BaseException:
            # Whoever tries again, with this object or another, must find the queue free.
            self._spool = spool
            self.stop(1.0)
            raise
        self._spool, self._figures = spool, spool.figures
        abandon_in_children(self)
        return True

    def _start_delivery(self, spool_directory: str, spool: Spool) -> None:
        is_ours = self._opens_the_queue()
        self._remember_copies(spool_directory, asks_queue=not is_ours)
        if not is_ours or self.queue is None:
            spool.announce = Bell(spool_directory).ring
            return
        self.dispatcher = dispatcher = self._dispatcher(self.queue)
        self._intake = Intake(
            spool_directory,
            self.queue,
            self._stops,
            spool=spool,
            aside=os.path.join(self.directory, "aside"),
            imported=dispatcher.announce,
            alone=self._alone,
            resends=self._resends,
            clock=self._clock,
        )
        if isinstance(self.queue, SqliteQueue):
            self._control = ControlSocket.beside(
                self.directory, self.queue, dispatcher.announce, self._intake.look_around
            )
        spool.announce = self._intake.announce
        self._intake.start()
        dispatcher.start()

    def _opens_the_queue(self) -> bool:
        """False where it is another process's to deliver."""
        if self._spools_only:
            return False
        if self.queue is None:
            try:
                self.queue = SqliteQueue(os.path.join(self.directory, "queue.db"))
            except QueueIsHeld:
                log.info("outbox %s: another process delivers; this one spools", self.directory)
                return False
        return True

    def _remember_copies(self, spool_directory: str, *, asks_queue: bool) -> None:
        """Before mail is taken; a process that only spools goes on asking the queue."""
        if self._resends.window <= 0:
            return
        path = self.queue.path if isinstance(self.queue, SqliteQueue) else os.path.join(self.directory, "queue.db")
        known = QueueResends(path)
        since = self._clock() - self._resends.window
        remember_all(self._resends, spool_directory, known, since, self._recovering)
        if asks_queue:
            self._queue_resends, self._resends.elsewhere = known, known.find
        else:
            known.close()

    def _dispatcher(self, queue: Queue) -> Dispatcher:
        idle = IdleConnections(self._idle_limits)
        smtp = SmtpAgent(
            lambda destination: self._planner.plan(destination),
            lambda destination: self._customs.manners_of(destination),
            idle,
            self._observer,
        )
        mailboxes: dict[str, Agent] = {
            "maildir": MaildirAgent(self.relaying.hello, self._mailbox_of),
            "mbox": MboxAgent(self._mailbox_of),
            "pipe": PipeAgent(mailbox_of=self._mailbox_of),
        }
        if self._returns_circles:
            mailboxes = {name: OncePerMailbox(agent) for name, agent in mailboxes.items()}
        agents: dict[str, Agent] = mailboxes | {
            "refuse": RefuseAgent(),
            "expand": ExpandAgent(),
            "mx": smtp,
            "smtp": smtp,
            "lmtp": smtp,
        }
        return Dispatcher(
            queue,
            agents | self._more_agents,
            self._stops,
            hostname=self.relaying.hello,
            terms_of=lambda destination: self._customs.terms_of(destination),
            couriers=self.relaying.connections,
            idle=idle,
            clock=self._clock,
            on_outcome=self._on_outcome,
        )

    def stop(self, timeout: float = 10.0) -> bool:
        """Commit what was handed in, import it, let deliveries under way end; True where all was done in time.
        What is not is tried again after the next start. Idempotent."""
        deadline = time.monotonic() + timeout
        in_time = True
        if self._spool is not None:
            in_time &= self._spool.stop(_left(deadline))
        if self._control is not None:
            in_time &= self._control.stop(_left(deadline))
            self._control = None
        if self._intake is not None:
            in_time &= self._intake.stop(_left(deadline))
        if self.dispatcher is not None:
            in_time &= self.dispatcher.stop(_left(deadline))
        if self.queue is not None and self._owns_queue and in_time:
            self.queue.close()
            self.queue = None
        if self._queue_resends is not None:
            self._queue_resends.close()
            self._queue_resends = self._resends.elsewhere = None
        self._spool = self._intake = self.dispatcher = None
        return in_time

    def abandon(self) -> None:
        """In the child after a fork: not started, and nothing of the parent's is held. It may be started again."""
        if self._spool is not None:
            self._spool.abandon()
        if self._queue_resends is not None:
            self._queue_resends.abandon()
            self._queue_resends = None
        if self._control is not None:
            self._control.abandon()
        if isinstance(self.queue, SqliteQueue):
            self.queue.abandon()
        if self._owns_queue:
            self.queue = None
        self._resends = Resends(self._clock, self._resends.window, self._recognises_resend)
        self._spool = self._control = self._intake = self.dispatcher = None

    def reload(self, relaying: Relaying, **keeping: Unpack[Keeping]) -> None:
        """Plans, manners, terms and bounces follow these from the next parcel on, and so does how the next message is
        kept. The number of couriers stays, and so does the name of Maildir files, by which a second attempt finds what
        the first one wrote."""
        customs = Customs(relaying)
        self._planner = Planner(relaying, customs.port_of)
        self._customs = customs
        self.relaying = relaying
        if self.dispatcher is not None:
            self.dispatcher.rename(relaying.hello)
        self._spool_limit = keeping.get("spool_limit", self._spool_limit)
        self._free_floor = keeping.get("free_floor", self._free_floor)
        self._durability_of = keeping.get("durability_of", self._durability_of)
        self._recognises_resend = keeping.get("recognises_resend", self._recognises_resend)
        self._resends.change(keeping.get("resend_window", self._resends.window), self._recognises_resend)
        if self._spool is not None:
            self._spool.change(self._spool_limit, self._free_floor, self._durability_of)

    def __enter__(self) -> Outbox:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    # What a server calls

    def has_room(self) -> Reply | None:
        return self._spool.has_room() if self._spool is not None else _outbox_is_closed_452

    def holds(self, address: str) -> bool:
        return self._holds is None or self._holds(address)

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        if self._spool is not None:
            return self._spool.promise(draft, envelope)
        draft.close()
        ticket = Ticket()
        ticket.resolve(OSError("the outbox is not started"))
        return ticket

    # What programs call

    def send(
        self,
        message: EmailMessage | bytes | BinaryIO,
        sender: str,
        recipients: Iterable[str | Recipient],
        parameters: MailParameters | None = None,
    ) -> str:
        """Keep a message and return its queue id once it is synced. Raises OSError where it could not be kept, and
        ValueError for addresses that hold what no address may."""
        envelope = envelope_for(sender, recipients, parameters, self._clock())
        draft = drafted(message, self.drafts)
        id = draft.id
        ticket = self.keep(envelope, draft)
        if not ticket.wait(SEND_SECONDS) and ticket.withdraw():
            raise TimeoutError(f"the spool did not sync within {SEND_SECONDS:g} s")
        if ticket.outcome is not None:
            raise ticket.outcome
        return id

    def try_now(self, domain: str, limit: int = 1000) -> int:
        """ETRN: what is deferred for this domain is due at once, and its hosts count as if nothing had gone wrong.
        For how many messages, at most `limit`, that did something."""
        if self.queue is None or self.dispatcher is None:
            return 0
        probe = Envelope("", (Recipient(f"postmaster@{domain}"),))
        for stop in self._stops(probe):
            self.dispatcher.wake(stop.destination)
        if not self._owns_queue:
            return 0
        now = self._clock()
        wanted = Filter(recipient=f"@{domain}", status=Status.DEFERRED, limit=limit)
        reader = SqliteReader(os.path.join(self.directory, "queue.db"))
        try:
            ids = [listed.id for listed in reader.messages(wanted, now)]
        finally:
            reader.close()
        done = self.queue.retry_now(ids, now) if ids else 0
        self.dispatcher.announce()
        return done

    def wake(self) -> None:
        """Look at the queue now: its clock has moved."""
        if self.dispatcher is not None:
            self.dispatcher.announce()

    @property
    def figures(self) -> Figures:
        """What the spool did since the last start."""
        return self._figures


_outbox_is_closed_452 = Reply(452, "4.3.1", "Mail can't be kept now, try again later")


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def envelope_for(
    sender: str, recipients: Iterable[str | Recipient], parameters: MailParameters | None, now: float
) -> Envelope:
    """An envelope made by a program. Raises ValueError where there is no recipient, or an address can't be one."""
    several = tuple(one if isinstance(one, Recipient) else Recipient(one) for one in recipients)
    if not several:
        raise ValueError("a message needs at least one recipient")
    for address in (sender, *(one.address for one in several)):
        if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in address) or len(address) > 320:
            raise ValueError(f"{address[:80]!r} is no mail address")
    if any(not one.address for one in several):
        raise ValueError("a recipient may not be empty")
    utf8 = not all(address.isascii() for address in (sender, *(one.address for one in several)))
    return Envelope(sender, several, parameters or MailParameters(smtputf8=utf8), arrived=now)


def drafted(message: EmailMessage | bytes | BinaryIO, directory: str | None = None) -> Draft:
    """Message object, bytes or binary file as a draft. Line ends of an object are CRLF; bytes are taken as they are,
    but for lone LF, the line end of this platform's files, which become CRLF."""
    draft = Draft(directory)
    try:
        if isinstance(message, EmailMessage):
            draft.append(message.as_bytes(policy=SMTP.clone(utf8=_needs_utf8(message))))
        elif isinstance(message, (bytes, bytearray, memoryview)):
            draft.append(_with_crlf(bytes(message), b""))
        else:
            last = b""
            while piece := message.read(65_536):
                draft.append(_with_crlf(piece, last))
                last = piece[-1:]
    except BaseException:
        draft.close()
        raise
    return draft


def _with_crlf(piece: bytes, before: bytes) -> bytes:
    if piece.count(b"\n") == piece.count(b"\r\n") + (before == b"\r" and piece.startswith(b"\n")):
        return piece
    starts_inside = before == b"\r" and piece.startswith(b"\n")
    head, rest = (piece[:1], piece[1:]) if starts_inside else (b"", piece)
    return head + rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _needs_utf8(message: EmailMessage) -> bool:
    return any(not str(value).isascii() for name, value in message.items() if name.lower() in _ADDRESS_FIELDS)


_ADDRESS_FIELDS = frozenset({"from", "to", "cc", "bcc", "sender", "reply-to"})
