"""One transaction with a next hop: envelope in groups where it may be pipelined, content in windows, the last word on
each recipient.

Every refusal is heard where it falls: of the sender, of a recipient, of the content, of all at once (421). A
connection that is lost leaves its trouble as the last word on whoever has none yet.
Thread: the courier that holds the conversation.
Not here: sockets and time (conversation.py), what a word means (judge.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from relay.hop import Load, Manners, Trouble, Word
from smtpd_core.wire.answers import Answer
from smtpd_core.wire.client import Answered, Client, Step, mail_parameters, rcpt_parameters
from smtpd_core.wire.stuffing import LineEnds

# Commands sent before their answers are read: a group this small fits any socket buffer in both directions, so that
# two ends that both only write can't lock each other (RFC 2920 3.1).
GROUP = 100
# Content up to this rides in one send with the envelope where the hop offers CHUNKING and PIPELINING.
SMALL = 16_384


class Line(Protocol):
    """What a conversation is to its transactions. All but the attributes raise Trouble."""

    client: Client
    manners: Manners
    is_broken: bool
    is_unfinished: bool

    def answer(self, seconds: float) -> Answered: ...
    def flush(self, seconds: float) -> None: ...
    def early_word(self) -> None: ...
    def reset(self) -> None: ...
    def content_is_out(self) -> None: ...


class Transaction:
    """run() once."""

    def __init__(self, line: Line, load: Load) -> None:
        self._line = line
        self._client = line.client
        self._manners = line.manners
        self._load = load
        self._words: list[Word | None] = [None] * len(load.recipients)

    def run(self) -> list[Word]:
        """The last word on each recipient, in their order."""
        try:
            self._transact()
        except Trouble as trouble:
            self._line.is_broken = True
            self._all(trouble.word)
        return [word or Word(Step.CONTENT.value, None, "no answer") for word in self._words]

    def _all(self, word: Word) -> None:
        """For everybody who has no word yet."""
        for n, known in enumerate(self._words):
            if known is None:
                self._words[n] = word

    def _transact(self) -> None:
        load = self._load
        client, extensions = self._client, self._client.extensions
        if self._line.is_unfinished:
            self._line.reset()
        pipelining = "PIPELINING" in extensions
        is_binary = load.body == "BINARYMIME"
        chunking = (self._manners.chunking or is_binary) and "CHUNKING" in extensions
        try:
            client.mail(
                load.sender,
                mail_parameters(
                    load.parameters,
                    extensions,
                    size=load.size,
                    body=load.body,
                    utf8=load.utf8,
                    logged_in=client.is_logged_in,
                ),
            )
        except ValueError as error:
            self._all(Word(Step.MAIL.value, Answer(553, "5.1.7", str(error)), is_ours=True))
            return
        if not pipelining and not self._mail_is_taken():
            return
        if pipelining and chunking and load.size <= SMALL and len(load.recipients) <= GROUP and not client.lmtp:
            self._in_one_send()
            return
        for at in range(0, len(load.recipients), GROUP):
            last = at + GROUP >= len(load.recipients)
            self._rcpts(at, pipelining)
            if pipelining:
                if last and not chunking:
                    client.data()
                if at == 0:
                    self._mail_is_taken()
                self._rcpt_answers(min(GROUP, len(load.recipients) - at))
        self._content(pipelining, chunking)

    def _mail_is_taken(self) -> bool:
        answered = self._line.answer(self._manners.times.mail)
        if answered.answer.is_positive:
            self._line.is_unfinished = True
            return True
        self._all(Word(Step.MAIL.value, answered.answer))
        return False

    def _rcpts(self, at: int, pipelining: bool) -> None:
        dsn = self._client.extensions
        for n, recipient in enumerate(self._load.recipients[at : at + GROUP], at):
            try:
                self._client.rcpt(recipient.address, rcpt_parameters(recipient, dsn))
            except ValueError as error:
                # The place is kept, so that numbers stay the recipients' own.
                self._client.rcpt("", "")
                ours = Word(Step.RCPT.value, Answer(553, "5.1.3", str(error)), is_ours=True)
                self._words[n] = self._words[n] or ours
            if not pipelining:
                self._rcpt_answers(1)

    def _rcpt_answers(self, count: int) -> None:
        for _ in range(count):
            answered = self._line.answer(self._manners.times.rcpt)
            if not answered.answer.is_positive and self._words[answered.number] is None:
                self._words[answered.number] = Word(Step.RCPT.value, answered.answer)

    def _in_one_send(self) -> None:
        """Envelope and a small content in one group: one round trip for the message (RFC 3030 4.2)."""
        self._rcpts(0, True)
        self._client.chunk(b"".join(_as_sent(self._load, SMALL)), last=True)
        self._mail_is_taken()
        self._rcpt_answers(len(self._load.recipients))
        self._last_word()

    def _content(self, pipelining: bool, chunking: bool) -> None:
        client, times = self._client, self._manners.times
        nobody = all(word is not None for word in self._words)
        if chunking:
            if not nobody:
                self._chunks()
            return
        if not pipelining:
            if nobody:
                return
            client.data()
        answered = self._line.answer(times.data)
        if answered.answer.code != 354:
            self._all(Word(Step.DATA.value, answered.answer))
            return
        if client.has_unread:
            self._line.early_word()
        if not nobody:
            for piece in self._load.pieces(self._manners.window):
                client.content(piece)
                if client.pending >= SMALL:
                    self._line.flush(times.block)
                    self._line.early_word()
        # With nobody to deliver to, a lone dot ends it, and its answer means nothing (RFC 2920 3.1).
        client.end_content()
        self._last_word()

    def _chunks(self) -> None:
        held = b""
        for piece in _as_sent(self._load, self._manners.window):
            if held:
                self._client.chunk(held, last=False)
                self._line.flush(self._manners.times.block)
                answered = self._line.answer(self._manners.times.content)
                if not answered.answer.is_positive:
                    self._all(Word(Step.CONTENT.value, answered.answer))
                    return
            held = piece
        self._client.chunk(held, last=True)
        self._last_word()

    def _last_word(self) -> None:
        client = self._client
        if client.has_output:
            self._line.flush(self._manners.times.block)
        self._line.content_is_out()
        dsn = "DSN" in client.extensions
        if not client.lmtp:
            answered = self._line.answer(self._manners.times.content)
            # A refusal may be of the command (503: nobody was accepted), which ends nothing.
            self._line.is_unfinished = not answered.answer.is_positive
            self._all(Word(Step.CONTENT.value, answered.answer, "", dsn))
            return
        self._line.is_unfinished = False
        while client.owed:
            answered = self._line.answer(self._manners.times.content)
            if self._words[answered.number] is None:
                self._words[answered.number] = Word(Step.CONTENT.value, answered.answer, "", dsn)


def _as_sent(load: Load, size: int) -> Iterator[bytes]:
    """The content for chunks: as it is where it was declared binary, else without bare CR or LF (RFC 3030 3)."""
    if load.body == "BINARYMIME":
        yield from load.pieces(size)
        return
    line_ends = LineEnds()
    for piece in load.pieces(size):
        if mended := line_ends.mended(piece):
            yield mended
    if rest := line_ends.rest():
        yield rest
