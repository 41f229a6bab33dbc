"""A conversation with a next hop: greeting, hello, STARTTLS, log-in, then transactions, each step within its time.

It drives the pure client of wire/client.py over a link; a reply is looked for between any two pieces of content.
Rules: credentials never go out in clear text, but on loopback where that was allowed. Content after which the
connection is lost counts as not delivered: the message may arrive twice, it is never lost. Besides the time of each
step there is one for all of the opening and one for all of a transaction up to its final dot, which grows with its
size: a hop that says a byte a second is not waited for all day. The answer to the final dot has a time of its own.
Thread: one courier at a time.
Not here: sockets (link.py), which hop (mx.py), what an answer means (judge.py), keeping connections (idle.py).
"""

from __future__ import annotations

import time

from certs.facts import TlsFacts
from relay.hop import Hop, Load, Manners, TlsLevel, TlsTrouble, Trouble, Word
from relay.link import Link, is_loopback
from relay.transaction import Transaction
from smtpd_core.wire.answers import Answer, BrokenAnswer
from smtpd_core.wire.client import Answered, Client, Observer, Step, number_in
from smtpd_core.wire.sasl.client import SaslError, chosen


class Conversation:
    """open() once, then deliver() as often as may be, then close()."""

    def __init__(self, hop: Hop, manners: Manners, observer: Observer | None = None) -> None:
        self.hop = hop
        self.manners = manners
        self.client = Client(lmtp=manners.lmtp, observer=observer)
        self.is_broken = False
        self.facts: TlsFacts | None = None
        self.delivered = 0
        self.opened = time.monotonic()
        self.is_unfinished = False  # a transaction was begun and not ended: RSET before the next, if one comes
        self._link = Link(hop)
        self._closing: Answer | None = None  # the 421 after which nothing more is to be expected

    # Opening

    def open(self, *, without_tls: bool = False, connect_seconds: float = 0.0) -> None:
        """Connect and come as far as a transaction may begin. Raises Trouble, after which only close() is of use.
        `connect_seconds` is for whoever has less time for a connection than the manners say."""
        times = self.manners.times
        self._link.limit(times.opening)
        try:
            self._open(without_tls, min(connect_seconds or times.connect, times.connect))
        except Trouble:
            self.is_broken = True
            raise

    def _open(self, without_tls: bool, connect_seconds: float) -> None:
        times = self.manners.times
        self._connect(connect_seconds)
        if self.manners.implicit_tls:
            self._start_tls()
        self._positive(Step.GREETING, times.greeting)
        self._hello()
        if not self.manners.implicit_tls and not without_tls:
            self._upgrade()
        self._log_in()
        self._link.lift_limit()

    def _connect(self, seconds: float) -> None:
        try:
            self._link.connect(seconds, self.manners.source_address)
        except OSError as error:
            raise Trouble("connect", f"connect to {self.hop}: {_why(error)}") from None

    def _hello(self) -> None:
        manners, client = self.manners, self.client
        client.hello(manners.hello, extended=manners.extended)
        answered = self.answer(manners.times.hello)
        if answered.answer.is_permanent and manners.extended and not manners.lmtp:
            # 5xx to EHLO: an old server; whatever needs an extension finds out that there is none.
            client.hello(manners.hello, extended=False)
            answered = self.answer(manners.times.hello)
        if not answered.answer.is_positive:
            raise Trouble(Step.HELLO.value, "", answered.answer)

    def _upgrade(self) -> None:
        level = self.manners.tls
        if level is TlsLevel.NONE:
            return
        must = level in (TlsLevel.REQUIRE, TlsLevel.VERIFY)
        if "STARTTLS" not in self.client.extensions or self.manners.open_tls is None:
            if must:
                why = "offers no STARTTLS" if self.manners.open_tls is not None else "can't be reached by TLS from here"
                raise Trouble("tls", f"{self.hop} {why}, which its route requires")
            return
        self.client.starttls()
        answered = self.answer(self.manners.times.tls)
        if not answered.answer.is_positive:
            raise TlsTrouble("tls", "", answered.answer)
        if self.client.has_unread:
            # Clear text behind the reply is somebody's who wants it taken for the host's own word under TLS.
            raise Trouble("tls", f"{self.hop} said more than its reply to STARTTLS")
        self._start_tls()
        self._hello()

    def _start_tls(self) -> None:
        assert self.manners.open_tls is not None
        try:
            self._link.start_tls(self.manners.open_tls, self.manners.times.tls)
        except Exception as error:  # whatever it was, there is no TLS with this hop now
            said = _why(error) if isinstance(error, OSError) else str(error)
            raise TlsTrouble("tls", said if str(self.hop) in said else f"TLS with {self.hop}: {said}") from error
        assert self._link.tls is not None
        self.facts = facts = self._link.tls.facts
        self.client.tls_came_up(facts.bindings)

    def _log_in(self) -> None:
        manners, client = self.manners, self.client
        if manners.credentials is None:
            return
        on_loopback = self.hop.port == 0 or is_loopback(self.hop.address)
        if not client.tls_is_up and not (manners.clear_login_allowed and on_loopback):
            raise Trouble(Step.AUTH.value, f"no TLS with {self.hop}: credentials are not sent in clear text")
        try:
            who = manners.credentials() if callable(manners.credentials) else manners.credentials
        except (OSError, ValueError) as error:
            why = _why(error) if isinstance(error, OSError) else str(error)
            raise Trouble(Step.AUTH.value, f"log-in at {self.hop}: no credentials: {why}") from None
        try:
            mechanism = chosen(
                client.extensions.get("AUTH", "").split(),
                who,
                tls_is_up=client.tls_is_up,
                bindings=client.bindings,
                clear_text_allowed=on_loopback,
            )
        except SaslError as error:
            raise Trouble(Step.AUTH.value, f"log-in at {self.hop}: {error}") from None
        client.log_in(mechanism)
        answered = self.answer(manners.times.mail)
        if client.login_error:
            raise Trouble(Step.AUTH.value, f"log-in at {self.hop}: {client.login_error}")
        if not answered.answer.is_positive:
            raise Trouble(Step.AUTH.value, "", answered.answer)

    # Transactions

    @property
    def remote(self) -> str:
        return f"{self.hop.host} [{self.hop.address}]"

    def rcpt_limit(self) -> int:
        """The most recipients of one transaction (RFC 9422; RFC 5321 4.5.3.1.8 promises 100)."""
        return self._limit("RCPTMAX") or 100

    def domain_limit(self) -> int:
        """How many domains the recipients of one transaction may have (RFC 9422), 0 for any number."""
        return self._limit("RCPTDOMAINMAX")

    def mail_limit(self) -> int:
        """How many transactions this connection may carry (RFC 9422), 0 for any number."""
        return self._limit("MAILMAX")

    def _limit(self, wanted: str) -> int:
        for word in self.client.extensions.get("LIMITS", "").split():
            name, _, value = word.partition("=")
            if name.upper() == wanted:
                return number_in(value)
        return 0

    def deliver(self, load: Load) -> list[Word]:
        """One transaction: the last word on each recipient, in their order. Never raises Trouble; is_broken tells
        whether the connection is of use afterwards."""
        self.delivered += 1
        self._link.limit(self.manners.times.for_load(load))
        try:
            return Transaction(self, load).run()
        finally:
            self._link.lift_limit()

    def content_is_out(self) -> None:
        """From here on the hop decides: who gives up now makes two messages of one (RFC 5321 4.5.3.2.6)."""
        self._link.lift_limit()

    def early_word(self) -> None:
        """A hop may refuse while the content goes out (421, 552): it is heard now, not after the last gigabyte."""
        self._look()
        try:
            answered = self.client.next_answer()
        except BrokenAnswer as error:
            raise Trouble(Step.CONTENT.value, f"{self.hop}: {error}") from None
        if answered is None:
            return
        if answered.answer.code < 400:
            # Its answers are out of step: this one can't be about a content that it has not got.
            raise Trouble(Step.CONTENT.value, f"{self.hop} answered before it had the content: {answered.answer}")
        raise Trouble(Step.CONTENT.value, "", answered.answer)

    def reset(self) -> None:
        self.client.reset()
        answered = self.answer(self.manners.times.reset)
        if not answered.answer.is_positive:
            raise Trouble(Step.MAIL.value, f"{self.hop} refused RSET: {answered.answer}")
        self.is_unfinished = False

    def is_alive(self) -> bool:
        """Whether a kept connection still is of use: nothing was said or closed meanwhile. Never blocks."""
        if self.is_broken or not self._link.is_open:
            return False
        try:
            self._look()
        except Trouble:
            self.is_broken = True
        return not self.is_broken and not self.client.has_unread

    # Bytes

    def _positive(self, step: Step, seconds: float) -> Answered:
        answered = self.answer(seconds)
        if not answered.answer.is_positive:
            raise Trouble(step.value, "", answered.answer)
        return answered

    def answer(self, seconds: float) -> Answered:
        """Send what is to be sent and read the next answer, within `seconds`."""
        client = self.client
        if client.has_output:
            self.flush(seconds)
        step = client.owed_step.value
        deadline = time.monotonic() + seconds
        try:
            while (answered := client.next_answer()) is None:
                if client.has_output:  # a log-in goes on
                    self.flush(seconds)
                self._receive(deadline, step)
        except BrokenAnswer as error:
            raise Trouble(step, f"{self.hop}: {error}") from None
        if answered.answer.code == 421:
            self._closing = answered.answer
            self.is_broken = True
        return answered

    def _receive(self, deadline: float, step: str) -> None:
        try:
            data = self._link.receive(deadline)
        except OSError as error:
            raise self._lost(step, error, "no answer in time") from None
        self._take_in(data, step)

    def _take_in(self, data: bytes, step: str) -> None:
        if not data:
            if self._closing is not None:
                raise Trouble(step, "", self._closing)
            raise Trouble(step, f"{self.hop} closed the connection")
        self.client.receive(data)

    def _lost(self, step: str, error: OSError, timed_out: str) -> Trouble:
        """What the hop said last, where it closed; else the error."""
        if self._closing is not None:
            return Trouble(step, "", self._closing)
        if isinstance(error, TimeoutError) and self._link.is_out_of_time:
            timed_out = "too slow, the time for all of it is over"
        return Trouble(step, f"{self.hop}: {_why(error, timed_out)}")

    def _look(self) -> None:
        """Take in what has arrived, without waiting."""
        step = Step.UNASKED.value
        try:
            data = self._link.look()
        except OSError as error:
            raise Trouble(step, f"{self.hop}: {_why(error)}") from None
        if data is not None:
            self._take_in(data, step)

    def flush(self, seconds: float) -> None:
        try:
            self._link.send(self.client.take_output(), seconds, self._while_stuck)
        except OSError as error:
            # The hop may have said why before it closed.
            step = self.client.owed_step.value
            if self._closing is None:
                self._early_word_after_error()
            raise self._lost(step, error, "can't send in time") from None

    def _while_stuck(self) -> None:
        if self.client.owed == 0 and self._link.tls is None:
            self.early_word()

    def _early_word_after_error(self) -> None:
        try:
            self._look()
            answered = self.client.next_answer()
        except (Trouble, BrokenAnswer):
            return  # it did not say why: the error itself is reported
        if answered is not None and not answered.answer.is_positive:
            self._closing = answered.answer

    def close(self, *, wait: bool = True) -> None:
        """QUIT where the connection is good, without waiting long for the answer, or at all. Idempotent."""
        if not self._link.is_open:
            return
        try:
            if not self.is_broken:
                self.client.quit()
                if wait:
                    self.answer(self.manners.times.quit)
                else:
                    self.flush(min(self.manners.times.quit, 0.2))
        except (Trouble, OSError):
            pass  # all that was to be said is said; the other side may have gone first
        finally:
            self._link.close()
            self.is_broken = True


def _why(error: OSError, timed_out: str = "no answer in time") -> str:
    return timed_out if isinstance(error, TimeoutError) else error.strerror or str(error)
