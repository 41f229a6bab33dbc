"""A process that holds messages in flight, to be weighed: python -m tests.support.in_flight PORT COUNT

The hop at the port takes the envelope and then stops reading. Prints the KiB of private memory that each of the COUNT
messages added, with its courier's thread and its connection. Linux only.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from dataclasses import replace

from relay.hop import Manners, StepTimes, TlsLevel
from tests.support.parcels import agent_for, parcel

LINE = b"." + b"y" * 76 + b"\r\n"


def private_kib() -> int:
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def main(port: int, count: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(LINE * 60_000)
        file.flush()
        manners = Manners(hello="relay.test", tls=TlsLevel.NONE, times=StepTimes.all(120.0, 120.0))
        agent = agent_for(port, manners=manners)
        large = replace(parcel("bob@there.test"), size=60_000 * len(LINE))
        opened = threading.Semaphore(0)

        def open_body():  # type: ignore[no-untyped-def]
            opened.release()
            return open(file.name, "rb", buffering=0)

        def put_in_flight(several: int) -> None:
            for _ in range(several):
                threading.Thread(target=agent.deliver, args=(large, open_body, 5.0), daemon=True).start()
            for _ in range(several):
                assert opened.acquire(timeout=60)
            settle()

        put_in_flight(5)
        before = private_kib()
        put_in_flight(count)
        print((private_kib() - before) / count)
        sys.stdout.flush()
        os._exit(0)  # they are in flight for good


def settle() -> None:
    """Until nothing grows any more: every buffer on the way is full."""
    last, calm = -1, 0
    while calm < 5:
        weight = private_kib()
        calm = calm + 1 if weight == last else 0
        last = weight
        time.sleep(0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
