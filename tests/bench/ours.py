"""This server under measurement, embedded: ours.py PORT FOLDER [--durable] [--hook-ms N] [--threads N].

A sink takes mail with an empty on_message_received; --durable syncs it to a spool first; --hook-ms makes it block.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from certs.issue import ensure_self_signed
from relay.spool import Spool
from smtpd_core import Draft, Envelope, GuardSettings, SmtpServer, Ticket
from smtpd_core.wire.replies import Reply


class SpoolStore:
    """The spool alone: what a 250 costs before anything is delivered."""

    def __init__(self, folder: Path) -> None:
        (folder / "spool").mkdir()
        self.spool = Spool(folder / "spool")
        self.drafts = self.spool.drafts

    def has_room(self) -> Reply | None:
        return self.spool.has_room()

    def holds(self, address: str) -> bool:
        return True

    def keep(self, envelope: Envelope, draft: Draft) -> Ticket:
        return self.spool.promise(draft, envelope)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("port", type=int)
    options.add_argument("folder", type=Path)
    options.add_argument("--durable", action="store_true")
    options.add_argument("--hook-ms", type=float, default=0.0)
    options.add_argument("--threads", type=int, default=32)
    given = options.parse_args()
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
        store=SpoolStore(given.folder) if given.durable else None,
        drafts=str(given.folder),
    )
    if not given.durable:
        seconds = given.hook_ms / 1000
        server.on_message_received = (lambda session, message: time.sleep(seconds)) if seconds else _take
    server.start()
    server.wait()


def _take(session: object, message: object) -> None:
    pass


if __name__ == "__main__":
    main()
