"""What is measured: one row a workload, in the terms of the load generator.

`messages` are sized for about two seconds on a server of some thousand messages a second; `scale` in run.py shrinks
them for the quick form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    what: str
    options: dict[str, int | bool] = field(default_factory=dict)
    stores: bool = False  # measured on targets that sync before their 250
    tls: bool = False
    in_megabytes: bool = False  # the figure is MB/s, not messages per second


WORKLOADS = (
    Workload("W1", "1 KiB, one message a connection, 20 sessions", {"messages": 6000, "sessions": 20}),
    Workload("W2", "1 KiB, connection kept, 20 sessions", {"messages": 15_000, "sessions": 20, "per_connection": 0}),
    Workload("W3", "4 KiB, synced, 10 sessions", {"messages": 4000, "sessions": 10, "size": 4096}, stores=True),
    Workload(
        "W3R",
        "4 KiB, synced, connection kept, 10 sessions",
        {"messages": 6000, "sessions": 10, "size": 4096, "per_connection": 0},
        stores=True,
    ),
    Workload(
        "W3R50",
        "4 KiB, synced, connection kept, 50 sessions",
        {"messages": 10_000, "sessions": 50, "size": 4096, "per_connection": 0},
        stores=True,
    ),
    Workload(
        "W4",
        "10 MiB, 76-column lines, 4 sessions",
        {"messages": 60, "sessions": 4, "size": 10 * MIB, "per_connection": 100},
        in_megabytes=True,
    ),
    Workload(
        "W4D",
        "10 MiB, every line starts with a dot",
        {"messages": 40, "sessions": 4, "size": 10 * MIB, "per_connection": 0, "dots": True},
        in_megabytes=True,
    ),
    Workload("W5", "STARTTLS, full handshake each", {"messages": 800, "sessions": 10, "starttls": True}, tls=True),
    Workload(
        "W6",
        "50 recipients in one write, connection kept",
        {"messages": 2000, "sessions": 20, "recipients": 50, "group": True, "per_connection": 0},
    ),
)
