"""This server under measurement: `ours.py PORT FOLDER [--durable] [--hook-ms N] [--threads N]`.

As a sink it has a hook that takes messages and forgets them (--hook-ms makes it block); --durable keeps them in a queue
on disk that nothing leaves, so that what is measured is accepting. All limits, checks and logging are as they come.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from certs.issue import ensure_self_signed
from relay.intake import Intake
from relay.mail import Stop
from relay.queue_sqlite import SqliteQueue
from relay.spool import Spool
from smtpd_core import Draft, Envelope, GuardSettings, SmtpServer, Ticket
from smtpd_core.app.life import room_for_connections
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


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("port", type=int)
    options.add_argument("folder", type=Path)
    options.add_argument("--durable", action="store_true")
    options.add_argument("--hook-ms", type=float, default=0.0)
    options.add_argument("--threads", type=int, default=32)
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
    if not given.durable:
        seconds = given.hook_ms / 1000
        server.on_message_received = (lambda session, message: time.sleep(seconds)) if seconds else _take
    with server:
        signal.sigwait([signal.SIGTERM, signal.SIGINT])


def _take(session: object, message: object) -> None:
    pass


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    main()
