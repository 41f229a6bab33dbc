"""The figures of a server in several processes: added up, never backwards, and nobody waits for anybody."""

from __future__ import annotations

import os
import signal
import smtplib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from smtpd_core.app.figures import METRICS, Figure
from smtpd_core.app.sums import JOINED_BY, SILENT, Reports, Sums
from smtpd_core.net.post_box import PostBox
from tests.app.daemon import DaemonProcess
from tests.app.test_several import children, send, wait_until
from tests.app.test_watching import fetch

CONFIG = """
hostname = "mx.our.test"
listener = [{ bind = "127.0.0.1:0" }]
metrics = { bind = "127.0.0.1:0" }
threads = { processes = 2 }
"""


def several(tmp_path: Path) -> DaemonProcess:
    config = tmp_path / "smtpd.toml"
    config.write_text(CONFIG)
    return DaemonProcess(tmp_path / "state", "--config", str(config), listen="")


def values(daemon: DaemonProcess) -> dict[str, float]:
    lines = [line for line in fetch(daemon, "/metrics")[1].splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def sample(name: str, value: float, *labels: str) -> Figure:
    return Figure(name, labels, value)


# Names as they stand in the text of what only grows, also of the parts of a histogram and a summary.
GROWING = tuple(
    metric.name + part
    for metric in METRICS
    if metric.kind != "gauge"
    for part in ({"counter": ("",)}.get(metric.kind) or ("_count", "_sum", "_bucket"))
)


def test_every_gauge_says_how_several_are_one() -> None:
    assert set(JOINED_BY) == {metric.name for metric in METRICS if metric.kind == "gauge"}


def test_messages_of_all_receivers_are_counted_once(tmp_path: Path) -> None:
    with several(tmp_path) as daemon:
        with ThreadPoolExecutor(6) as clients:
            list(clients.map(lambda number: send(daemon, number), range(30)))
        daemon.wait_for(30)
        ended = 'smtpd_sessions_ended_total{login="no",tls="none"}'
        wait_until(lambda: values(daemon).get(ended) == 30)
        found = values(daemon)
        assert found["smtpd_messages_total"] == 30
        assert found['smtpd_commands_total{verb="MAIL"}'] == 30
        assert found['smtpd_replies_total{code="354"}'] == 30
        assert found['smtpd_hook_seconds_count{hook="on_recipient_to"}'] == 30
        assert found['smtpd_spool_sync_seconds_bucket{le="+Inf"}'] == found["smtpd_spool_sync_seconds_count"] > 0
        assert found['smtpd_deliveries_total{result="delivered",way="maildir"}'] == 30
        assert found["smtpd_queue_messages"] == 0


def test_open_connections_are_those_of_all_receivers_and_go_with_a_killed_one(tmp_path: Path) -> None:
    with several(tmp_path) as daemon:
        sessions = [smtplib.SMTP(*daemon.address, timeout=30) for _ in range(10)]
        wait_until(lambda: values(daemon).get("smtpd_connections_open") == 10)
        for child in sorted(children(daemon))[1:]:  # the relay was the first
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: values(daemon).get("smtpd_connections_open") == 0)
        for session in sessions:
            session.close()


def test_no_counter_goes_backwards_whoever_dies_or_is_replaced(tmp_path: Path) -> None:
    with several(tmp_path) as daemon:
        seen: dict[str, float] = {}
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                for name, value in values(daemon).items():
                    if name.partition("{")[0] in GROWING:
                        assert value >= seen.get(name, 0.0), name
                        seen[name] = value
                time.sleep(0.05)

        with ThreadPoolExecutor(1) as watchers:
            watching = watchers.submit(watch)
            try:
                sent = 0
                for what in ("kill", "reload", "kill"):
                    for _ in range(5):
                        send(daemon, sent)
                        sent += 1
                    wait_until(lambda sent=sent: values(daemon).get("smtpd_messages_total", 0) >= sent)
                    if what == "kill":
                        victims = sorted(children(daemon))[1:]
                        for victim in victims:
                            os.kill(victim, signal.SIGKILL)
                        wait_until(lambda old=victims: len(set(children(daemon)) - set(old)) == 3)
                    else:
                        old = sorted(children(daemon))[1:]
                        daemon.signal(signal.SIGHUP)
                        wait_until(lambda old=old: not set(children(daemon)) & set(old))
                send(daemon, sent)
                wait_until(lambda: values(daemon).get("smtpd_messages_total") == sent + 1)
            finally:
                over.set()
            watching.result(30)


def test_a_server_without_receivers_is_not_ready(tmp_path: Path) -> None:
    with several(tmp_path) as daemon:
        assert fetch(daemon, "/readyz") == (200, "ready\n")


def told(box: PostBox, sums: Sums, *reports: Reports) -> None:
    """What they post reaches the sums."""
    for one in reports:
        one.post()
        sums.add(box.take())


def test_counters_are_kept_from_those_who_end_and_gauges_are_not() -> None:
    box, now = PostBox(), [100.0]
    sums = Sums(box, lambda: now[0])
    first, second = [sample("smtpd_messages_total", 3), sample("smtpd_threads", 2)], [sample("smtpd_messages_total", 4)]
    reports = Reports(box, lambda: first), Reports(box, lambda: second)
    told(box, sums, *reports)
    told(box, sums, *reports)
    assert sums.joined([]) == [sample("smtpd_messages_total", 7), sample("smtpd_threads", 2)]
    assert sums.joined([sample("smtpd_messages_total", 1)])[0] == sample("smtpd_messages_total", 8)
    now[0] += SILENT + 1
    assert sums.receivers == 0 and sums.joined([]) == [sample("smtpd_messages_total", 7)]
    successor = Reports(box, lambda: [sample("smtpd_messages_total", 1)])
    told(box, sums, successor)
    assert sums.receivers == 1 and sums.joined([]) == [sample("smtpd_messages_total", 8)]
    successor.post(ends=True)
    sums.add(box.take())
    assert sums.receivers == 0
    box.close()


def test_the_worst_of_several_gauges_is_shown() -> None:
    box = PostBox()
    sums = Sums(box)
    told(box, sums, Reports(box, lambda: [sample("smtpd_spool_has_room", 0), sample("smtpd_spool_group_largest", 7)]))
    joined = sums.joined([sample("smtpd_spool_has_room", 1), sample("smtpd_spool_group_largest", 3)])
    assert joined == [sample("smtpd_spool_has_room", 0), sample("smtpd_spool_group_largest", 7)]
    box.close()


def test_a_box_that_nobody_empties_holds_nobody_up_and_loses_no_count() -> None:
    box = PostBox()
    sums = Sums(box)
    counts = iter(range(1, 1_000_000))
    reports = Reports(box, lambda: [sample("smtpd_messages_total", next(counts))])
    while box.post(b"{}"):
        pass
    for _ in range(100):
        reports.post()
    sums.start()
    wait_until(lambda: posted(reports, sums) >= 100)
    sums.stop()
    assert posted(reports, sums) < next(counts), "each is counted once"
    box.close()


def test_figures_of_many_certificates_are_posted_in_several_messages() -> None:
    box, now = PostBox(), [100.0]
    sums = Sums(box, lambda: now[0])
    several = [
        Figure("smtpd_certificate_expiry_seconds", (f"{n}.example.test", f"/etc/{'long/' * 10}{n}.pem"), float(n))
        for n in range(1500)
    ]
    sums.start()
    Reports(box, lambda: [*several, sample("smtpd_messages_total", 3)]).post()
    wait_until(lambda: len(sums.joined([])) == 1501)
    assert sums.receivers == 1 and sample("smtpd_messages_total", 3) in sums.joined([])
    sums.stop()
    box.close()


def posted(reports: Reports, sums: Sums) -> float:
    reports.post()
    return next(iter(one.value for one in sums.joined([])), 0.0)


def test_what_can_not_be_read_costs_nothing_but_a_line() -> None:
    sums = Sums(PostBox())
    for message in (b"", b"{", b"[]", b'{"from": 1}', b'{"from": "x", "begins": true, "grown": [["a"]], "gauges": []}'):
        sums.add(message)
    sums.add(b'{"from": "x", "begins": true, "grown": [["no_such_metric", [], 1]], "gauges": []}')
    assert sums.joined([]) == []
