"""Outbound: a full queue on disk to smtp-sink over 20 kept connections, ours and Postfix's.

Both begin with all messages queued and synced, and end when the queue is empty. CPU is user + system of the delivering
process tree per 1 000 messages, the sink's not included. Postfix needs root and Debian's package.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from relay.agents.smtp import SmtpAgent
from relay.dispatcher import Dispatcher
from relay.hop import Hop, Manners, TlsLevel
from relay.idle import IdleConnections
from relay.mail import Body, Message, Recipient, Stop
from relay.plan import Plan
from relay.queue_sqlite import SqliteQueue
from relay.terms import Terms as Conditions
from smtpd_core.draft import new_id
from smtpd_core.wire.envelope import Envelope
from tests.bench.rates import scratch
from tests.bench.running import Running, free_port
from tests.bench.stores import PATH, postfix
from tests.bench.targets import NotInstalled, Target, smtp_sink
from tests.bench.terms import Sample, Terms, Workload

CONNECTIONS = 20
SIZE = 1024


def ours(count: int, size: int, folder: Path, port: int) -> tuple[float, float]:
    content = b"Subject: load\r\n\r\n" + b"x" * (size - 19) + b"\r\n"
    queue = SqliteQueue(folder / "queue.db")
    destination = f"smtp:127.0.0.1:{port}"
    for at in range(0, count, 500):
        batch = []
        for number in range(at, min(at + 500, count)):
            to = Recipient(f"user{number}@far.test")
            envelope = Envelope("bob@bench.test", (to,), arrived=time.time())
            message = Message(new_id(), envelope, b"", Body(len(content), content))
            batch.append((message, [Stop(0, to, destination)]))
        queue.add(batch, "bench", at + 1, time.time())
    manners = Manners(hello="bench.test", tls=TlsLevel.NONE)
    plan = Plan((Hop("sink", "127.0.0.1", port),))
    idle = IdleConnections()
    agent = SmtpAgent(lambda _: plan, lambda _: manners, idle)
    conditions = Conditions(concurrency=CONNECTIONS)
    dispatcher = Dispatcher(queue, {"smtp": agent}, lambda _: [], terms_of=lambda _: conditions, idle=idle)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.monotonic()
    dispatcher.start()
    while queue.next_due() is not None:
        time.sleep(0.02)
    took = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    dispatcher.stop()
    queue.close()
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def postfixs(count: int, size: int, folder: Path, port: int) -> tuple[float, float]:
    smtp_port = free_port()
    command = postfix(smtp_port, folder)
    if command is None:
        raise NotInstalled("Postfix")
    program = command[0]
    config = folder / "config"
    main = config / "main.cf"
    text = main.read_text().replace("smtpd_data_restrictions = check_client_access static:HOLD\n", "")
    text += f"""relayhost = [127.0.0.1]:{port}
default_destination_concurrency_limit = {CONNECTIONS}
initial_destination_concurrency = {CONNECTIONS}
smtp_connection_cache_destinations = [127.0.0.1]:{port}
minimal_backoff_time = 3600
"""
    main.write_text(text + "defer_transports = smtp\n")
    with Running(command, smtp_port, folder) as running:
        source = shutil.which("smtp-source", path=PATH)
        command = [str(source), "-s", "10", "-m", str(count), "-l", str(size), "-f", "bob@bench.test"]
        subprocess.run([*command, "-t", "user@far.test", f"127.0.0.1:{smtp_port}"], check=True)
        _await(lambda: _files(folder / "queue", "deferred") >= count, 300)
        main.write_text(text)
        subprocess.run([program, "-c", str(config), "reload"], check=True, stderr=subprocess.DEVNULL)
        time.sleep(1.0)
        before = running.cpu()
        start = time.monotonic()
        subprocess.run([str(shutil.which("postqueue", path=PATH)), "-c", str(config), "-f"], check=True)
        _await(lambda: _files(folder / "queue", "deferred", "active", "incoming") == 0, 300)
        took = time.monotonic() - start
        return took, running.cpu() - before


def _files(queue: Path, *names: str) -> int:
    return sum(len(files) for name in names for _, _, files in os.walk(queue / name))


def _await(fact: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > until:
            raise TimeoutError("the queue does not get there")
        time.sleep(0.05)


def deliver(target: Target, workload: Workload, terms: Terms) -> Sample:
    count = terms.count(3000, 100)
    side = {"smtpd_core": ours, "Postfix": postfixs}[target.name]
    sink_command = smtp_sink(port := free_port(), Path())
    if sink_command is None:
        raise NotInstalled("smtp-sink")
    with scratch() as folder, scratch() as other, Running(sink_command, port, other):
        took, cpu = side(count, SIZE, folder, port)
    return {"rate": count / took, "cpu": cpu * 1000 / count}
