"""What is measured: one row a workload, with its targets (who, and what ours is held against)."""

from __future__ import annotations

from tests.bench import growth, outbound, scale
from tests.bench.rates import rate
from tests.bench.terms import Goal, Workload

MIB = 1 << 20
SINKS = ("smtpd_core", "aiosmtpd", "smtp-sink", "go-smtp", "smtp-server", "Postfix")
WAITED_FOR = (*SINKS, "bare loop")  # which answers clients that wait for each reply only
STORES = ("smtpd_core durable", "smtpd_core daemon", "aiosmtpd fsync", "OpenSMTPD", "Postfix", "Exim")
SECURE = ("smtpd_core", "aiosmtpd", "go-smtp", "smtp-server", "Postfix", "Exim")
CROWDED = ("smtpd_core", "aiosmtpd", "go-smtp", "smtp-server")
STREAMING = ("smtpd_core", "go-smtp", "smtp-server")
OWN = ("smtpd_core",)
RATE = ("rate", "cpu", "generator", "p50_ms", "p99_ms", "resident_mib")
LATENCY = ("p50_ms", "p99_ms")


def times(least: float, peer: str) -> Goal:
    return Goal("rate", at_least=least, peer=peer)


def within(p50: float, p99: float) -> tuple[Goal, Goal]:
    return Goal("p50_ms", at_most=p50), Goal("p99_ms", at_most=p99)


WORKLOADS = (
    Workload(
        "W1", "1 KiB, one message a connection, 20 sessions", rate, WAITED_FOR, RATE,
        goals=(times(1, "go-smtp"), times(4, "aiosmtpd")),
    ),
    Workload(
        "W2", "1 KiB, connection kept, 20 sessions", rate, WAITED_FOR, RATE,
        options={"per_connection": 0},
        goals=(times(0.6, "go-smtp"), times(1.5, "smtp-server"), times(3.5, "aiosmtpd")),
    ),
    Workload(
        "W3", "4 KiB, synced, one message a connection, 10 sessions", rate, STORES, RATE,
        options={"sessions": 10, "size": 4096},
        goals=(times(2.5, "OpenSMTPD"), times(5, "Postfix")),
    ),
    Workload(
        "W3R", "4 KiB, synced, connection kept, 10 sessions", rate, STORES, RATE,
        options={"sessions": 10, "size": 4096, "per_connection": 0},
        goals=(times(2, "OpenSMTPD"),),
    ),
    Workload(
        "W3R50", "4 KiB, synced, connection kept, 50 sessions", rate, STORES, RATE,
        options={"sessions": 50, "size": 4096, "per_connection": 0},
        goals=(times(3.5, "OpenSMTPD"),),
    ),
    Workload(
        "W4", "10 MiB, 76-column lines, connection kept, 4 sessions", rate, SINKS, RATE,
        options={"sessions": 4, "size": 10 * MIB, "per_connection": 0},
        goals=(times(1.2, "smtp-sink"),),
        unit="MB/s",
    ),
    Workload(
        "W4D", "10 MiB, every line starts with a dot, connection kept, 4 sessions", rate, SINKS, RATE,
        options={"sessions": 4, "size": 10 * MIB, "per_connection": 0, "dots": True},
        goals=(times(1, "go-smtp"),),
        unit="MB/s",
    ),
    Workload(
        "W5", "STARTTLS, full handshake each, P-256, 20 sessions", rate, SECURE, RATE,
        options={"starttls": True},
        goals=(times(0.75, "go-smtp"), times(2, "aiosmtpd")),
    ),
    Workload(
        "W6", "MAIL, 50 RCPT and DATA in one write, connection kept, 20 sessions", rate, SINKS, RATE,
        options={"recipients": 50, "group": True, "per_connection": 0},
        goals=(times(1, "go-smtp"), times(10, "aiosmtpd")),
    ),
    Workload(
        "W2P", "W2 with two processes on one port, nothing pinned", rate, ("smtpd_core in two", "smtpd_core"),
        columns=RATE,
        options={"per_connection": 0},
        goals=(Goal("cpu", at_most=1.11, peer="smtpd_core"),),
    ),
    Workload(
        "idle", "a new client beside 10 000 idle connections", scale.beside_idle, CROWDED,
        columns=(*LATENCY, "each_kib", "threads"),
        options={"crowd": 10_000},
        goals=(*within(2, 10), Goal("each_kib", at_most=6)),
        is_once=True,
    ),
    Workload(
        "idle-tls", "a new client beside 2 000 idle connections under TLS", scale.beside_idle, CROWDED,
        columns=(*LATENCY, "each_kib", "threads"),
        options={"crowd": 2000, "starttls": True},
        goals=(*within(2, 10), Goal("each_kib", at_most=40)),
        is_once=True,
    ),
    Workload(
        "still", "1 000 idle connections and nothing else", scale.still, CROWDED,
        columns=("wake_ups", "cpu_a_minute", "threads"),
        options={"crowd": 1000},
        goals=(Goal("wake_ups", at_most=2), Goal("cpu_a_minute", at_most=0.1)),
        is_once=True,
    ),
    Workload(
        "slow", "a new client beside 2 000 connections that send one octet a second", scale.beside_slow, CROWDED,
        columns=(*LATENCY, "threads"),
        options={"crowd": 2000},
        goals=within(2, 10),
        is_once=True,
    ),
    Workload(
        "blocking-handler", "a hook of 100 ms, 20 kept connections, 20 threads", rate, ("smtpd_core slow hook",),
        columns=RATE,
        options={"per_connection": 0},
        goals=(Goal("rate", at_least=150),),
    ),
    Workload(
        "big-upload", "100 uploads of 25 MiB at once, and another client's NOOP", scale.big_upload, STREAMING,
        columns=("grown_mib", *LATENCY),
        goals=(Goal("grown_mib", at_most=64), Goal("p99_ms", at_most=30)),
        is_once=True,
    ),
    Workload(
        "one-gib", "one message of 1 GiB", scale.huge, ("smtpd_core durable",),
        columns=("grown_mib", "seconds"),
        goals=(Goal("grown_mib", at_most=8),),
        is_once=True,
    ),
    Workload(
        "open-loop", "300 messages a second at fixed instants", scale.open_loop, CROWDED,
        columns=LATENCY,
        goals=within(0.9, 2.5),
    ),
    Workload(
        "open-loop-durable", "the same, synced", scale.open_loop,
        targets=("smtpd_core durable", "OpenSMTPD", "Postfix", "Exim"),
        columns=LATENCY,
        goals=within(1.3, 4.0),
    ),
    Workload(
        "start-stop", "start() and stop()", scale.start_stop, OWN,
        columns=("start_stop_ms",),
        goals=(Goal("start_stop_ms", at_most=20),),
        is_once=True,
        is_in_process=True,
    ),
    Workload(
        "relay", "a full queue over 20 kept connections to smtp-sink", outbound.deliver, ("smtpd_core", "Postfix"),
        columns=("rate", "cpu"),
        goals=(times(1, "Postfix"),),
        is_in_process=True,
    ),
    Workload(
        "queue-growth", "cost with 1 000 000 messages queued against 1 000", growth.queue_growth, OWN,
        columns=("add_growth", "claim_growth", "settle_growth"),
        goals=tuple(Goal(f"{one}_growth", at_most=1.5) for one in ("add", "claim", "settle")),
        is_once=True,
        is_in_process=True,
    ),
    Workload(
        "recovery", "100 000 spooled messages after a crash", growth.recovery, ("smtpd_core durable",),
        columns=("seconds",),
        goals=(Goal("seconds", at_most=10),),
        is_once=True,
        is_in_process=True,
    ),
)  # fmt: skip
