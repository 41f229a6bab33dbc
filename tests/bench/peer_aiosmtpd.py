"""aiosmtpd as a peer: a sink, or with --durable a store that writes each message to a file and syncs it."""

import asyncio
import itertools
import os
import ssl
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Peer:
    def __init__(self, folder: Path, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self.numbers = itertools.count()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.durable:
            descriptor = os.open(self.folder / f"{next(self.numbers)}.eml", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, envelope.original_content or b"")
            os.fsync(descriptor)
            os.close(descriptor)
        return "250 OK"


async def main(port: int, folder: Path, durable: bool) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from certs.issue import ensure_self_signed

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ensure_self_signed(folder, "bench.test"))
    peer = Peer(folder, durable)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(peer, tls_context=context, data_size_limit=2**31), "127.0.0.1", port
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), "--durable" in sys.argv))
