"""Delivery to a next hop by SMTP or LMTP: "mx:DOMAIN", "smtp:HOST:PORT[,HOST:PORT...]", "lmtp:HOST:PORT", "lmtp:PATH".

Hosts are tried in the order of the plan while the trouble is the host's; recipients share transactions within the
hop's limits; connections come from and go back to the idle ones. At least once: where an answer to the final dot is
lost the message is tried again, and may arrive twice.
Thread: any courier, several at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from relay.agents.agent import OpenBody, pieces
from relay.agents.fitting import Misfit, fitted
from relay.conversation import Conversation
from relay.hop import Hop, Load, Manners, TlsLevel, TlsTrouble, Trouble, Word
from relay.idle import IdleConnections
from relay.judge import connection_is_used_up, host_is_in_trouble, judged
from relay.mail import Outcome, Parcel, Result, Stop
from relay.plan import NoRoute, Plan
from smtpd_core.threads import Lock
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.client import Observer
from smtpd_core.wire.envelope import MailParameters

# Addresses tried in one attempt. RFC 5321 5.1 asks for at least two; more than this only makes a dead domain slow.
MAX_HOPS = 6
# Seconds for which a hop that could not be talked to comes after the others: without that every message would wait out
# the time-out of a dead first server before it reaches the second.
AILING_SECONDS = 120.0
# Seconds for a connection while there is another address to try: enough for two lost packets, and not so much that a
# family of addresses that leads nowhere from here is felt.
QUICK_CONNECT = 6.0
# Characters of a hop's answer that are kept. A reply may have a megabyte, and every recipient gets one each time.
MAX_SAID = 1000
MAX_AILING = 10_000


class SmtpAgent:
    """`plan_of(destination)` gives the hops (raises NoRoute); `manners_of(destination)` how to talk to them."""

    def __init__(
        self,
        plan_of: Callable[[str], Plan],
        manners_of: Callable[[str], Manners],
        idle: IdleConnections,
        observer: Callable[[Hop], Observer | None] | None = None,
    ) -> None:
        self._plan_of = plan_of
        self._manners_of = manners_of
        self._idle = idle
        self._observer = observer
        self._lock = Lock()
        self._ailing: dict[Hop, float] = {}

    def deliver(self, parcel: Parcel, open_body: OpenBody, now: float) -> list[Outcome]:
        try:
            plan = self._plan_of(parcel.destination)
        except NoRoute as error:
            return [error.outcome(stop.number, now) for stop in parcel.stops]
        return _Attempt(self, parcel, open_body, now).run(plan)

    def close(self) -> None:
        self._idle.close()

    # Hops that are in trouble

    def in_order(self, hops: tuple[Hop, ...]) -> list[Hop]:
        """As planned, but those that failed a moment ago last."""
        if not self._ailing:
            return list(hops)
        now = time.monotonic()
        with self._lock:
            return sorted(hops, key=lambda hop: self._ailing.get(hop, 0.0) > now)

    def note(self, hop: Hop, is_well: bool) -> None:
        if is_well and not self._ailing:
            return
        now = time.monotonic()
        with self._lock:
            self._ailing.pop(hop, None)
            if is_well:
                return
            if len(self._ailing) >= MAX_AILING:
                self._ailing = {one: until for one, until in self._ailing.items() if until > now}
            self._ailing[hop] = now + AILING_SECONDS

    # Connections

    def connect(self, hop: Hop, manners: Manners, *, fresh: bool, is_last: bool) -> tuple[Conversation, bool]:
        """A conversation ready for a transaction, and whether it was a kept one. Raises Trouble."""
        seconds = manners.times.connect if is_last else QUICK_CONNECT
        if not fresh:
            kept = self._idle.lend(hop, manners)
            if kept is not None:
                return kept, True
        observer = self._observer(hop) if self._observer else None
        conversation = Conversation(hop, manners, observer)
        try:
            conversation.open(connect_seconds=seconds)
        except TlsTrouble:
            conversation.close()
            # No policy asked for TLS: an unencrypted delivery is better than none. With credentials it is not.
            if manners.tls is not TlsLevel.OPPORTUNISTIC or manners.credentials is not None:
                raise
            conversation = Conversation(hop, manners, observer)
            self._open_or_close(conversation, seconds)
        except Trouble:
            conversation.close()
            raise
        return conversation, False

    @staticmethod
    def _open_or_close(conversation: Conversation, seconds: float) -> None:
        try:
            conversation.open(without_tls=True, connect_seconds=seconds)
        except Trouble:
            conversation.close()
            raise

    def manners_of(self, destination: str) -> Manners:
        return self._manners_of(destination)

    def give(self, conversation: Conversation) -> None:
        self._idle.give(conversation)


class _Attempt:
    """One parcel's way along its plan."""

    def __init__(self, agent: SmtpAgent, parcel: Parcel, open_body: OpenBody, now: float) -> None:
        self._agent = agent
        self._parcel = parcel
        self._open_body = open_body
        self._now = now
        self._manners = agent.manners_of(parcel.destination)
        self._left = list(parcel.stops)
        times = self._manners.times
        # Until then one more transaction may begin: a hop that takes one recipient at a time is not served all day.
        self._until = time.monotonic() + times.opening + times.transaction
        self._done: dict[int, Outcome] = {}
        self._is_back = False

    def run(self, plan: Plan) -> list[Outcome]:
        hops = self._agent.in_order(plan.hops)[:MAX_HOPS]
        enough = time.monotonic() + self._manners.times.opening
        tried = 0
        while hops:
            hop = hops.pop(0)
            words, remote = self._at(hop, is_last=not hops)
            tried += 1
            if self._is_back:
                # Only better servers are left, as where our name is in the list (RFC 5321 5.1).
                better = plan.hops[: plan.hops.index(hop)]
                hops = [one for one in hops if one in better]
            # Two are always tried (RFC 5321 5.1); a third not where those took all the time that one should.
            last_hop = not hops or (tried > 1 and time.monotonic() > enough)
            again = []
            for stop, word in words:
                if not last_hop and host_is_in_trouble(word):
                    again.append(stop)
                self._done[stop.number] = self._outcome(stop, word, remote, self._done.get(stop.number))
            self._left = again
            if not again:
                break
        return [self._done[stop.number] for stop in self._parcel.stops]

    def _at(self, hop: Hop, is_last: bool) -> tuple[list[tuple[Stop, Word]], str]:
        """The last word of this hop on each stop that is left."""
        remote = f"{hop.host} [{hop.address}]"
        words: list[tuple[Stop, Word]] = []
        stops = self._left
        fresh = False
        while stops:
            if words and time.monotonic() > self._until:
                later = Word("rcpt", Answer(450, "4.4.5", "not tried: the others took too long"), is_ours=True)
                return words + [(stop, later) for stop in stops], remote
            try:
                conversation, was_kept = self._agent.connect(hop, self._manners, fresh=fresh, is_last=is_last)
            except Trouble as trouble:
                self._agent.note(hop, False)
                return words + [(stop, trouble.word) for stop in stops], remote
            self._agent.note(hop, True)
            if self._is_this_host(conversation):
                self._is_back = True
                conversation.close()
                text = f"mail for {self._parcel.destination[3:]} loops back to this host"
                circle = Word("hello", Answer(554, "5.4.6", text), is_ours=True)
                return words + [(stop, circle) for stop in stops], remote
            batch = _batch(stops, conversation)
            try:
                said = self._transaction(conversation, batch)
            except BaseException:
                # The body could not be read to its end: cut off without a final dot, it counts for nothing there.
                conversation.is_broken = True
                conversation.close()
                raise
            if was_kept and all(map(connection_is_used_up, said)):
                # Nothing was begun on it, so a new one is no second attempt.
                conversation.close(wait=False)
                fresh = True
                continue
            fresh = False
            self._agent.give(conversation)
            waiting = {stop.number for stop in batch}
            stops = [stop for stop in stops if stop.number not in waiting]
            if conversation.is_broken and all(map(_is_trouble, said)):
                # The others would only wait for the same, one batch after the other.
                told = said[0] if said[0].answer else Word("mail", None, said[0].error)
                words += zip(batch, said, strict=True)
                return words + [(stop, told) for stop in stops], remote
            put_off = {
                stop.number
                for stop, word in zip(batch, said, strict=True)
                if judged(word).kind == "too many recipients"
            }
            if len(put_off) == len(batch):
                put_off = set()
            # Some were taken: the rest goes in a transaction of its own, now (RFC 5321 4.5.3.1.10).
            again = [stop for stop in batch if stop.number in put_off]
            again += [
                replace(stop, recipient=replace(stop.recipient, orcpt=""))
                for stop, word in zip(batch, said, strict=True)
                if _may_be_for_its_orcpt(stop, word, conversation)
            ]
            asked_again = {stop.number for stop in again}
            stops = again + stops
            words.extend((s, w) for s, w in zip(batch, said, strict=True) if s.number not in asked_again)
        return words, remote

    def _is_this_host(self, conversation: Conversation) -> bool:
        """Whether a domain's server greets us with our own name: its MX leads here under another one."""
        own = self._manners.hello.lower()
        return (
            "." in own and self._parcel.destination.startswith("mx:") and conversation.client.peer_name.lower() == own
        )

    def _transaction(self, conversation: Conversation, batch: list[Stop]) -> list[Word]:
        parcel = self._parcel
        load = Load(
            sender=parcel.envelope.sender,
            recipients=tuple(stop.recipient for stop in batch),
            parameters=self._parameters(),
            size=len(parcel.trace) + parcel.size,
            pieces=lambda size: pieces(parcel, self._open_body, size),
            body=parcel.envelope.parameters.body,
            utf8=parcel.envelope.parameters.smtputf8,
        )
        try:
            load = fitted(load, conversation.client.extensions)
        except Misfit as misfit:
            return [Word("mail", misfit.answer, is_ours=True) for _ in batch]
        return conversation.deliver(load)

    def _parameters(self) -> MailParameters:
        """The sender's, with what is left of a BY time."""
        envelope = self._parcel.envelope
        by = envelope.parameters.by
        if by is None:
            return envelope.parameters
        left = int(envelope.arrived + by.seconds - self._now)
        if by.mode == "R":
            left = max(left, 1)  # 0 would be a mistake there (RFC 2852 4); what is over was returned before
        return replace(envelope.parameters, by=replace(by, seconds=left))

    def _outcome(self, stop: Stop, word: Word, remote: str, before: Outcome | None) -> Outcome:
        verdict = judged(word, lmtp=self._manners.lmtp)
        answer = word.answer
        if verdict.scope == "host" and verdict.result is Result.FAILED and before and not before.result.is_final:
            # A host that takes no mail is no reason to give up while a better one was only away.
            return before
        return Outcome(
            stop.number,
            verdict.result,
            code=answer.code if answer else 0,
            enhanced=(answer.enhanced if answer else "") or verdict.enhanced,
            text=_shown(answer.text if answer else word.error),
            remote="" if word.is_ours else remote,
            at=self._now,
            scope=verdict.scope,
            kind=verdict.kind,
            dsn_passed_on=word.dsn_passed_on and verdict.result in (Result.RELAYED, Result.DELIVERED),
        )


def _batch(stops: list[Stop], conversation: Conversation) -> list[Stop]:
    """Those of the next transaction, within the hop's limits."""
    batch = stops[: conversation.rcpt_limit()]
    most = conversation.domain_limit()
    if not most:
        return batch
    domains: set[str] = set()
    fitting = []
    for stop in batch:
        domain = stop.recipient.address.rpartition("@")[2].lower()
        if domain in domains or len(domains) < most:
            domains.add(domain)
            fitting.append(stop)
    return fitting


def _may_be_for_its_orcpt(stop: Stop, word: Word, conversation: Conversation) -> bool:
    """Whether a recipient is refused that a hop might take without ORCPT. Any type of address is right there (RFC 3461
    4.2), but OpenSMTPD, which knows no UTF-8, answers 553 to all but rfc822."""
    orcpt, extensions = stop.recipient.orcpt, conversation.client.extensions
    if not orcpt or orcpt.lower().startswith("rfc822;") or "DSN" not in extensions or "SMTPUTF8" in extensions:
        return False
    return word.step == "rcpt" and not word.is_ours and word.answer is not None and word.answer.is_permanent


def _is_trouble(word: Word) -> bool:
    """Lost, or closed with 421: nobody else gets an answer there now."""
    return word.answer is None or word.answer.code == 421


def _shown(said: str) -> str:
    """On one line, bounded, and without what would steer a terminal: it goes into the queue, logs and reports."""
    text = " ".join(said[: 4 * MAX_SAID].split())
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_SAID]
