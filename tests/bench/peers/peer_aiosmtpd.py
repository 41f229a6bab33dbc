"""aiosmtpd as a peer: a sink, or with --durable a store that writes each message to a file and syncs it.

It is told its name: without one it looks its own up for every connection.
"""

import asyncio
import itertools
import os
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Peer:
    def __init__(self, kept: Path | None) -> None:
        self.kept = kept
        self.numbers = itertools.count()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.kept:
            descriptor = os.open(self.kept / f"{next(self.numbers)}.eml", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, envelope.original_content or b"")
            os.fsync(descriptor)
            os.close(descriptor)
        return "250 OK"


async def main(port: int, folder: Path, durable: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls" / "self-signed.pem", folder / "tls" / "self-signed.key")
    kept = folder / "kept" if durable else None
    if kept:
        kept.mkdir()
    peer = Peer(kept)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(peer, hostname="bench.test", tls_context=context, data_size_limit=2**31), "127.0.0.1", port
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), "--durable" in sys.argv))
