"""`queue`: look at and change the queue, beside a running server or without one.

Looking reads the database; orders go to the process that holds the queue, or are carried out here where there is none.
On a terminal `list` and `stats` are tables; elsewhere their lines are plain, and stay as they are.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path

from relay.control import ask, orders
from relay.queue import QueueUnreadable
from relay.queue_reader import SqliteReader, Unreadable
from relay.queue_sqlite import SqliteQueue
from relay.spool_check import spool_faults
from relay.timing import deadline, first_attempt
from relay.view import Addressee, Filter, Listed, Status, Story, Try
from smtpd_core.app.cmd_queue_import import bring
from smtpd_core.app.load import load
from smtpd_core.app.settings import Settings
from smtpd_core.app.terminal import progress, show_table
from smtpd_core.app.values import duration, path
from smtpd_core.wire.envelope import Envelope
from smtpd_core.wire.shown import shown, shown_with_tabs

DONE, FAILED, WRONG = 0, 1, 2

# Messages that a table is made of; the next ones begin another, so that memory does not grow with the queue.
_AT_ONCE = 500

ORDERS = {
    "retry": ("try deferred messages now", "--destination example.test"),
    "hold": ("try these messages no more until they are released", "--sender @example.test"),
    "release": ("let held messages go", "--all"),
    "delete": ("remove messages without a bounce", "6KZTC0V6V00JXNF"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _verb(verbs, "list", "the messages in order of arrival", _list, "--status deferred --older 1h", filters=True)
    _verb(verbs, "show", "the whole story of a message", _show, "6KZTC0V6V00JXNF", ids="one")
    _verb(verbs, "cat", "a message as the next hop would get it", _cat, "6KZTC0V6V00JXNF > letter.eml", ids="one")
    for name, (meaning, example) in ORDERS.items():
        _verb(verbs, name, meaning, _order, example, ids="some", filters=True)
    _verb(verbs, "stats", "the queue in numbers", _stats, "--json")
    _verb(verbs, "check", "verify everything on disk, and set aside what can't be read", _check, "--state ./moved")
    parser_of_import = _verb(
        verbs, "import", "take what another queue has still to deliver", _import, "./old --state ./state"
    )
    parser_of_import.add_argument("source", metavar="FROM", help="the state directory of a server that does not run")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    meaning: str,
    run: Callable[[argparse.Namespace], int],
    example: str,
    *,
    ids: str = "",
    filters: bool = False,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=meaning,
        description=meaning[0].upper() + meaning[1:] + ".",
        epilog=f"example:\n  python -m smtpd_core queue {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=path, metavar="F", help="the server's configuration")
    where.add_argument("--state", type=path, metavar="DIR", help="the server's state directory")
    if name != "cat":
        parser.add_argument("--json", action="store_true", help="as JSON, one object a line")
    if ids == "one":
        parser.add_argument("id", metavar="ID")
    if ids == "some":
        parser.add_argument("ids", metavar="ID", nargs="*", help="messages; or say which by filters")
        parser.add_argument("--all", action="store_true", help="every message")
    if filters:
        parser.add_argument("--destination", default="", metavar="D", help="mx:example.test, or example.test")
        parser.add_argument("--sender", default="", metavar="A", help='an address, "@domain", or "<>"')
        parser.add_argument("--recipient", default="", metavar="A", help='an address, or "@domain"')
        parser.add_argument("--status", default="", choices=Status.ALL, metavar="S", help=", ".join(Status.ALL))
        parser.add_argument("--older", default=0.0, type=_age, metavar="T", help='arrived before: "30m", "2h", "1d"')
        parser.add_argument("--younger", default=0.0, type=_age, metavar="T", help="arrived within")
        parser.add_argument("--limit", default=0, type=_count, metavar="N", help="so many at most")
    parser.set_defaults(work=run)
    return parser


def run(options: argparse.Namespace) -> int:
    work: Callable[[argparse.Namespace], int] = options.work
    try:
        return work(options)
    except (Unreadable, QueueUnreadable) as error:
        print(f"queue {options.verb}: {state_of(options) / 'queue.db'}: {error}", file=sys.stderr)
        return FAILED


def state_of(options: argparse.Namespace) -> Path:
    """The state directory that the options mean."""
    if options.state:
        return Path(options.state)
    return Path((load(options.config, os.environ) if options.config else Settings()).state)


def _reader(options: argparse.Namespace) -> SqliteReader:
    return SqliteReader(state_of(options) / "queue.db")


def _filter(options: argparse.Namespace) -> Filter:
    return Filter(
        destination=options.destination,
        sender=options.sender,
        recipient=options.recipient,
        status=options.status,
        older_than=options.older,
        younger_than=options.younger,
        limit=options.limit,
    )


def _list(options: argparse.Namespace) -> int:
    now = time.time()
    count = 0
    messages = _reader(options).messages(_filter(options), now)
    while several := list(islice(messages, _AT_ONCE)):
        count += len(several)
        if options.json:
            print("\n".join(json.dumps(asdict(one)) for one in several))
        elif not show_table(_COLUMNS, (row for one in several for row in _rows(one, now))):
            print("\n".join(shown(line) for one in several for line in _lines(one, now)))
    if not options.json:
        print(f"{count} message{'' if count == 1 else 's'}")
    return DONE


def _show(options: argparse.Namespace) -> int:
    now = time.time()
    try:
        story = _reader(options).show(options.id, now)
    except KeyError:
        return _unknown(options.id)
    print(json.dumps(asdict(story), indent=2) if options.json else "\n".join(map(shown, _told(story, now))))
    return DONE


def _cat(options: argparse.Namespace) -> int:
    reader = _reader(options)
    try:
        trace, body = reader.trace(options.id), reader.open_body(options.id)
    except KeyError:
        return _unknown(options.id)
    with body:
        if sys.stdout.isatty():
            _show_lines(chain(io.BytesIO(trace), iter(partial(body.readline, 1 << 16), b"")))
            return DONE
        sys.stdout.buffer.write(trace)
        while piece := body.read(1 << 16):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return DONE


def _show_lines(lines: Iterable[bytes]) -> None:
    """Lines of a stranger's message, with nothing in them that steers the terminal."""
    for line in lines:
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        print(shown_with_tabs(text), end="\n" if line.endswith(b"\n") else "")


def _order(options: argparse.Namespace) -> int:
    ids: Sequence[str] = options.ids
    which = _filter(options)
    if ids and (options.all or which != Filter()):
        print(f"queue {options.verb}: give ids, or filters, or --all, not several of these", file=sys.stderr)
        return WRONG
    if not ids and not options.all and which == Filter():
        print(f"queue {options.verb}: which messages? Give ids, filters, or --all", file=sys.stderr)
        return WRONG
    if not ids:
        ids = [one.id for one in _reader(options).messages(which, time.time())]
    try:
        done = _carry_out(state_of(options), options.verb, ids)
    except ValueError as error:
        print(f"queue {options.verb}: {error}", file=sys.stderr)
        return FAILED
    print(json.dumps({"done": done, "of": len(ids)}) if options.json else f"{options.verb}: {done} of {len(ids)}")
    return DONE if done == len(ids) else FAILED


def _carry_out(state: Path, order: str, ids: Sequence[str]) -> int:
    """By the server that holds the queue; here where none does."""
    try:
        return ask(state, order, ids)
    except (ConnectionRefusedError, FileNotFoundError):
        if not (state / "queue.db").exists():
            raise FileNotFoundError(f"no queue here: {state / 'queue.db'} does not exist") from None
    queue = SqliteQueue(state / "queue.db")
    try:
        return orders(queue)[order](ids)
    finally:
        queue.close()


def _stats(options: argparse.Namespace) -> int:
    now = time.time()
    totals = _reader(options).totals(now)
    if options.json:
        print(json.dumps(asdict(totals)))
        return DONE
    oldest = f", the oldest {_ago(totals.oldest, now)}" if totals.oldest is not None else ""
    print(f"{totals.messages} messages, {totals.bytes} bytes{oldest}")
    counts = sorted(totals.recipients.items())
    if not counts or not show_table(("RECIPIENTS", "status"), ((str(count), name) for name, count in counts)):
        for name, count in counts:
            print(f"{count:10} recipients {name}")
    rows = [(str(count), destination, _when(first, now)) for destination, count, first in totals.destinations]
    if not rows or not show_table(("RECIPIENTS", "destination", "next"), rows):
        for number, destination, when in rows:
            print(f"{number:>10} for {destination}, next {when}")
    return DONE


def _check(options: argparse.Namespace) -> int:
    state = state_of(options)
    reader = _reader(options)
    with progress("queue check", reader.totals(time.time()).messages) as looked:
        faults = [*reader.faults(looked), *spool_faults(state / "spool")]
    unreadable = sorted({one.id for one in faults if one.id})
    if unreadable:
        _carry_out(state, "set aside", unreadable)
    aside = sorted(path.name for path in (state / "aside").glob("*"))
    if options.json:
        print(json.dumps({"faults": [one.text for one in faults], "set aside": unreadable, "aside": aside}))
    else:
        for one in faults:
            print(shown(one.text) + ("; set aside" if one.id else ""))
        for name in aside:
            print(shown(f"kept aside: {state / 'aside' / name}"))
        print(f"{len(faults)} faults, {len(aside)} files aside")
    return FAILED if faults else DONE


def _import(options: argparse.Namespace) -> int:
    return bring(Path(options.source), state_of(options), as_json=options.json)


# -- in words


_COLUMNS = ("id", "SIZE", "arrived", "from", "to", "status", "by", "next", "reason")


def _rows(one: Listed, now: float) -> Iterator[tuple[str, ...]]:
    """A row for each recipient; what is of the message stands in the first."""
    of_message = (one.id, str(one.size), _ago(one.arrived, now), f"<{one.sender}>")
    for to in one.recipients:
        when = _when(to.next_attempt, now) if to.status in (Status.WAITING, Status.DEFERRED) else ""
        yield (*of_message, f"<{to.address}>", to.status, to.destination, when, to.reason)
        of_message = ("", "", "", "")


def _lines(one: Listed, now: float) -> list[str]:
    lines = [f"{one.id}  {one.size:>9}  {_ago(one.arrived, now):>9}  <{one.sender}>"]
    for to in one.recipients:
        when = f", next {_when(to.next_attempt, now)}" if to.status in (Status.WAITING, Status.DEFERRED) else ""
        lines.append(f"    {to.status:<9} <{to.address}> by {to.destination}{when}")
        if to.reason:
            lines.append(f"              {to.reason}")
    return lines


def _told(story: Story, now: float) -> list[str]:
    envelope, origin = story.envelope, story.envelope.origin
    received = f"received {_ago(story.listed.arrived, now)} ({_clock(story.listed.arrived)})"
    if origin.address:
        received += f" from {origin.hello or 'nobody'} [{origin.address}]:{origin.port}"
    for what, value in (("by", origin.protocol), ("", origin.tls), ("as user", origin.user), ("on", origin.listener)):
        received += f" {what} {value}".replace("  ", " ") if value else ""
    lines = [f"message {story.listed.id}, {story.listed.size} bytes, from <{envelope.sender}>", received]
    if origin.session:
        lines.append(f"session {origin.session}")
    given = {name: value for name, value in asdict(envelope.parameters).items() if value not in (None, "", False)}
    if given:
        lines.append("parameters " + " ".join(f"{name}={value}" for name, value in given.items()))
    tries = {to.number: [one for one in story.tries if one.number == to.number] for to in story.listed.recipients}
    for to in story.listed.recipients:
        lines.append(f"<{to.address}> by {to.destination}: {to.status}, {to.attempts} attempts")
        for one in tries[to.number]:
            heard = " ".join(str(part) for part in (one.code or "", one.enhanced, one.text) if part)
            lines.append(f"    {_clock(one.at)} {one.result} {one.remote}: {heard}".replace(" : ", ": "))
        lines.append(f"    {_next(to, tries[to.number], envelope, now)}")
    return lines


def _next(to: Addressee, tries: Sequence[Try], envelope: Envelope, now: float) -> str:
    """What comes next for a recipient, and why."""
    if to.status == Status.HELD:
        return "no next attempt: held until an operator releases it"
    if to.status == Status.ACTIVE:
        return f"a courier has it; its claim is good for {_span(to.next_attempt - now)} more"
    if to.status in Status.FINAL:
        return "no next attempt: that was the last word"
    when = f"next attempt {_when(to.next_attempt, now)} ({_clock(to.next_attempt)})"
    if not tries:
        is_put_off = first_attempt(envelope, envelope.arrived) > envelope.arrived
        return f"{when}, the first one{', for which its sender had it held' if is_put_off else ''}"
    if to.next_attempt == deadline(envelope):
        return f"{when}, when the time within which its sender wants it delivered is over, though {to.reason}"
    if to.next_attempt < tries[-1].next_attempt:
        return f"{when}, sooner than {_clock(tries[-1].next_attempt)} because an operator or the next hop asked for it"
    return f"{when} because of the last one's {to.reason}" if to.reason else when


def _age(text: str) -> float:
    try:
        return float(duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of messages; write 1 or more")
    return int(text)


def _ago(at: float, now: float) -> str:
    return f"{_span(now - at)} ago" if at <= now else f"in {_span(at - now)}"


def _when(at: float, now: float) -> str:
    return "now" if at <= now else f"in {_span(at - now)}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _unknown(id: str) -> int:
    print(f"queue: no message {id}", file=sys.stderr)
    return FAILED
