r"""Dialogues as transcripts: play() runs each whole, byte by byte, cut at every CRLF, and all at once.

    S: 220 mx.test ready        a reply line that the server must say. Of a multi-line reply the first line is enough,
                                written with a space after the code; written with "-", all of its lines must follow
    C: EHLO probe               a line of the client's, CRLF added; \r \n \0 \t \xNN \\ mean what they mean in Python
    C| half a li                octets of the client's, nothing added
    H: RcptTo refuse 550 5.1.1 Nobody    the verdict on the next event of that kind (all others are accepted)
    H: ContentEnds accept 250 2.0.0 Kept; may also be: accept each 250 2.0.0 Kept | 550 5.1.1 Nobody   (LMTP)
    H: BodyChunk spoil 452 4.3.1 Full
    T: (anything)               TLS comes up; before the first line: implicit TLS
    X: (anything)               the client half-closes
    S: (closed)                 the server ends the dialogue

Every way of cutting must give the same replies and the same events, neighbouring BodyChunks joined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smtpd_core.wire import events
from smtpd_core.wire.events import ENDED, NEED_BYTES, OUTPUT_FULL, Event, Waiting
from smtpd_core.wire.replies import Reply
from smtpd_core.wire.server import ProtocolSettings, ServerProtocol

PROBE = ProtocolSettings(hostname="mx.test")
WAYS = ("whole", "byte by byte", "cut at every CRLF", "all at once")
_REPLY = re.compile(r"(\d{3})(?: (\d\.\d{1,3}\.\d{1,3}))?(?: (.*))?\Z", re.S)

Secrets = Callable[[events.NeedSecret], object]


@dataclass
class Played:
    """What one way of playing came to."""

    events: list[Event] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # reply lines
    messages: list[bytes] = field(default_factory=list)  # content that ended well
    decisions: list[list[str] | None] = field(default_factory=list)  # the H: line of each verdict, None for the default
    protocol: ServerProtocol | None = None

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def codes(self) -> list[int]:
        return [int(line[:3]) for line in self.said if line[3:4] != "-"]


def play(
    text: str,
    settings: ProtocolSettings | None = None,
    *,
    secrets: Secrets | None = None,
    trusted: bool = False,
    bindings: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Played:
    """Play a transcript in every way; returns what the whole way came to. `changes` are fields of ProtocolSettings."""
    base = settings or PROBE
    used = replace(base, **changes) if changes else base
    steps = list(_steps(text))
    first: Played | None = None
    for way in WAYS:
        if way == "all at once" and not _may_come_at_once(steps):
            continue
        script = first.decisions if first is not None and way == "all at once" else None
        played = _Play(used, way, secrets, trusted, bindings or {}, script).run(steps)
        if first is None:
            first = played
        assert played.said == first.said, f"{way}: the replies differ from those to the whole"
        assert comparable(played.events) == comparable(first.events), (
            f"{way}: the events differ from those of the whole"
        )
    assert first is not None
    return first


def comparable(found: list[Event]) -> list[Event]:
    """Events with neighbouring chunks joined; chunks of content that did not end well are left out, since how much of
    it was handed on before depends on the cutting."""
    joined: list[Event] = []
    body = b""
    for event in found:
        if isinstance(event, events.BodyChunk):
            body += event.data
            continue
        if isinstance(event, events.ContentEnds):
            joined.append(events.BodyChunk(body))
        body = b""
        joined.append(event)
    return joined


def octets(text: str) -> bytes:
    """The octets that a transcript's text stands for."""
    return re.sub(
        r"\\(r|n|t|0|\\|x[0-9a-fA-F]{2})",
        lambda m: {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}.get(m[1]) or chr(int(m[1][1:], 16)),
        text,
    ).encode("latin-1" if re.search(r"\\x", text) else "utf-8")


@dataclass(frozen=True)
class _Step:
    kind: str
    text: str
    line: int


def _steps(text: str) -> Iterator[_Step]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.lstrip()
        if not stripped:
            continue
        kind = stripped[:2]
        assert kind in ("C:", "C|", "S:", "H:", "T:", "X:"), f"transcript line {number}: {stripped!r}"
        rest = stripped[2:]
        yield _Step(kind, rest[1:] if rest.startswith(" ") else rest, number)


def _may_come_at_once(steps: list[_Step]) -> bool:
    return not any(
        one.kind in ("T:", "X:")
        or (one.kind == "H:" and one.text.startswith("BodyChunk"))
        or (one.kind[0] == "C" and one.text.upper().startswith("STARTTLS"))
        for one in steps
    )


def _reply(text: str) -> Reply:
    match = _REPLY.match(text.strip())
    assert match, f"not a reply: {text!r}"
    return Reply(int(match[1]), match[2] or "", octets(match[3] or "").decode())


class _Play:
    def __init__(
        self,
        settings: ProtocolSettings,
        way: str,
        secrets: Secrets | None,
        trusted: bool,
        bindings: Mapping[str, bytes],
        script: list[list[str] | None] | None,
    ) -> None:
        self.script = None if script is None else list(script)
        self.way = way
        self.protocol = ServerProtocol(settings)
        self.protocol.client_is_trusted = trusted
        self.bindings = bindings
        self.secrets = secrets
        self.played = Played(protocol=self.protocol)
        self.verdicts: list[list[str]] = []
        self.body = b""
        self.state: Waiting = NEED_BYTES
        self.output = b""
        self.unread: list[str] = []

    def run(self, steps: list[_Step]) -> Played:
        if steps and steps[0].kind == "T:":
            self.protocol.tls_is_up(self.bindings)
            steps = steps[1:]
        if self.way == "all at once":
            steps = [*(s for s in steps if s.kind[0] == "C"), *(s for s in steps if s.kind[0] == "S")]
        pending: list[bytes] = []
        self._go_on_with_verdicts(steps)
        for step in steps:
            if step.kind[0] == "C":
                pending.append(octets(step.text) + (b"\r\n" if step.kind == "C:" else b""))
                continue
            if step.kind == "H:":
                if step not in self._early:
                    self.verdicts.append(step.text.split(" ", 2))
                continue
            self._send(pending)
            if step.kind == "T:":
                self.protocol.tls_is_up(self.bindings)
                self._go_on()
            elif step.kind == "X:":
                self.protocol.end_of_input()
                self._go_on()
            else:
                self._expect(step)
        self._send(pending)
        self._read_output()
        assert not self.unread, f"{self.way}: said besides: {self.unread}"
        return self.played

    def _go_on_with_verdicts(self, steps: list[_Step]) -> None:
        """Verdicts written before the first line of the client's hold from the greeting on."""
        self._early = []
        for step in steps:
            if step.kind != "H:":
                break
            self._early.append(step)
            self.verdicts.append(step.text.split(" ", 2))
        self._go_on()

    def _send(self, pending: list[bytes]) -> None:
        data = b"".join(pending)
        pending.clear()
        for piece in _cut(data, self.way):
            if self.state is ENDED:
                return
            self.protocol.receive(piece)
            self._go_on()

    def _go_on(self) -> None:
        while True:
            event = self.protocol.next_event()
            if event is OUTPUT_FULL:
                self.output += self.protocol.take_output()
            elif isinstance(event, Waiting):
                assert event is not events.AWAITING_VERDICT
                self.state = event
                break
            else:
                self._decide(event)
        self.output += self.protocol.take_output()

    def _decide(self, event: Event) -> None:
        self.played.events.append(event)
        if isinstance(event, events.BodyChunk):
            self.body += event.data
        elif isinstance(event, events.ContentBegins | events.ContentDropped):
            self.body = b""
        elif isinstance(event, events.ContentEnds):
            assert event.size == len(self.body)
            self.played.messages.append(self.body)
        words = self._words(event)
        if words is not None and words[1] == "spoil":
            self.protocol.spoil(_reply(words[2]))
        if self.protocol.verdict is None:
            return
        if isinstance(event, events.NeedSecret) and words is None:
            self.protocol.supply(self.secrets(event) if self.secrets else None)
        elif isinstance(event, events.AuthFailed) and words is None:
            self.protocol.refuse()
        elif words is None or words[1:] == ["accept"]:
            self.protocol.accept()
        elif words[1] == "refuse":
            self.protocol.refuse(_reply(words[2]) if len(words) > 2 else None)
        elif words[2].startswith("each "):
            self.protocol.accept(replies=[_reply(one) for one in words[2][5:].split("|")])
        else:
            self.protocol.accept(_reply(words[2]))

    def _words(self, event: Event) -> list[str] | None:
        if self.script is not None:
            return self.script.pop(0) if self.protocol.verdict is not None else None
        words = self._verdict(type(event).__name__)
        if self.protocol.verdict is not None:
            self.played.decisions.append(words)
        return words

    def _verdict(self, name: str) -> list[str] | None:
        for at, words in enumerate(self.verdicts):
            if words[0] == name:
                return self.verdicts.pop(at)
        return None

    def _read_output(self) -> None:
        if self.output:
            assert self.output.endswith(b"\r\n")
            lines = self.output.decode("ascii").split("\r\n")[:-1]
            self.unread += lines
            self.played.said += lines
            self.output = b""

    def _expect(self, step: _Step) -> None:
        self._read_output()
        where = f"transcript line {step.line} ({self.way})"
        if step.text == "(closed)":
            assert self.state is ENDED, f"{where}: the dialogue goes on"
            return
        assert self.unread, f"{where}: nothing said, {step.text!r} is due"
        said = self.unread.pop(0)
        if said[3:4] == "-" and step.text[3:4] != "-":
            said = said[:3] + " " + said[4:]
            while self.unread and self.unread.pop(0)[3:4] == "-":
                pass
        assert said.rstrip() == step.text.rstrip(), f"{where}: {said!r} was said, {step.text!r} is due"


def _cut(data: bytes, way: str) -> Iterator[bytes]:
    if way == "byte by byte":
        yield from (data[at : at + 1] for at in range(len(data)))
    elif way == "cut at every CRLF":
        yield from (piece for piece in re.split(rb"(?<=\r\n)", data) if piece)
    elif data:
        yield data
