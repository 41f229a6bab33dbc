"""This server under measurement: `python -m tests.bench.ours PORT FOLDER [--durable|--keep|--hook-ms N] [--threads N]`.

As a sink it has a hook that counts messages and forgets them (--hook-ms makes it block); --keep writes each and its
recipients to files, unsynced, to show what arrived; --durable keeps them in a queue on disk that nothing leaves, so
that what is measured is accepting. All limits, checks and logging are as they come. At its end a sink writes what it
counted to FOLDER/counted.
"""

import argparse
import json
import os
import signal
import time
from pathlib import Path

from certs.issue import ensure_self_signed
from relay.intake import Intake
from relay.mail import Stop
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core import Draft, Envelope, GuardSettings, Message, Session, SmtpServer, Ticket
from smtpd_core.app.life import room_for_connections
from smtpd_core.net.listeners import Listener, bind
from smtpd_core.server.dialects import listeners_of
from smtpd_core.wire.replies import Reply


class Accepting:
    """Spool, intake and queue without a dispatcher: what accepting costs, and nothing leaves."""

    def __init__(self, folder: Path) -> None:
        spool = folder / "spool"
        spool.mkdir()
        self.spool = Spool(spool)
        self.drafts = self.spool.drafts
        self.queue = SqliteQueue(folder / "queue.db")
        self.intake = Intake(spool, self.queue, _stops, spool=self.spool, aside=folder / "aside", alone=True)
        self.spool.announce = self.intake.announce

    def start(self) -> None:
        self.intake.start()

    def stop(self, timeout: float = 10.0) -> bool:
        return self.spool.stop(timeout) and self.intake.stop(timeout)

    def has_room(self) -> Reply | None:
        return self.spool.has_room()

    def holds(self, address: str) -> bool:
        return True

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        return self.spool.promise(draft, envelope)


def _stops(envelope: Envelope) -> list[Stop]:
    return [Stop(n, one, "mx:bench.test") for n, one in enumerate(envelope.recipients)]


class Counting:
    """What the sink was given.
    Thread: any; appending to a list is one step, with and without the interpreter lock.
    """

    def __init__(self, kept: Path | None, seconds: float) -> None:
        self.sizes: list[int] = []
        self.kept = kept
        self.seconds = seconds
        if kept:
            kept.mkdir()

    def take(self, session: Session, message: Message) -> None:
        self.sizes.append(message.size)

    def keep(self, session: Session, message: Message) -> None:
        self.sizes.append(message.size)
        assert self.kept
        message.save(self.kept / f"{message.id}.eml")
        (self.kept / f"{message.id}.to").write_text("\n".join(message.addresses))

    def wait(self, session: Session, message: Message) -> None:
        self.sizes.append(message.size)
        time.sleep(self.seconds)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("port", type=int)
    options.add_argument("folder", type=Path)
    options.add_argument("--durable", action="store_true")
    options.add_argument("--keep", action="store_true")
    options.add_argument("--hook-ms", type=float, default=0.0)
    options.add_argument("--threads", type=int, default=32)
    options.add_argument("--processes", type=int, default=1)
    given = options.parse_args()
    room_for_connections(50_000)  # as far as the system lets
    certificate, key = ensure_self_signed(given.folder / "tls", "bench.test")
    server = SmtpServer(
        port=given.port,
        server_name="bench.test",
        max_data_size=1 << 31,
        max_thread_count=given.threads,
        use_tls="explicit_allow",
        certificate=str(certificate),
        key=str(key),
        guard=GuardSettings(max_connections=50_000),
        store=Accepting(given.folder) if given.durable else None,
        drafts=str(given.folder),
    )
    counting = Counting(given.folder / "kept" if given.keep else None, given.hook_ms / 1000)
    if not given.durable:
        server.on_message_received = counting.keep if given.keep else counting.wait if given.hook_ms else counting.take
    shared = shared_listeners(server) if given.processes > 1 else []
    others = [Other(server, shared, counting) for _ in range(1, given.processes)]
    counted = served(server, shared, counting)
    for other in others:
        counted = [one + more for one, more in zip(counted, other.end(), strict=True)]
    (given.folder / "counted").write_text(json.dumps(counted))


def served(server: SmtpServer, listeners: list[Listener], counting: Counting) -> list[int]:
    """Messages and octets, once it was told to end."""
    server._start(listeners)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    server.stop()
    return [len(counting.sizes), sum(counting.sizes)]


def shared_listeners(server: SmtpServer) -> list[Listener]:
    listeners = [one for door in server._doors(listeners_of(server)) for one in bind(door)]
    for one in listeners:
        one.is_shared = True
    return listeners


class Other:
    """Another process with the same server; made before any has a thread."""

    def __init__(self, server: SmtpServer, listeners: list[Listener], counting: Counting) -> None:
        self._told, told = os.pipe()
        self._process = os.fork()
        if not self._process:
            os.write(told, json.dumps(served(server, listeners, counting)).encode())
            os._exit(0)
        os.close(told)

    def end(self) -> list[int]:
        """What it counted."""
        os.kill(self._process, signal.SIGTERM)
        with open(self._told) as reader:
            counted: list[int] = json.load(reader)
        os.waitpid(self._process, 0)
        return counted


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    main()
