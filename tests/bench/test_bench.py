"""The bench itself: it finds what it should, and does not say met where it did not look.

Small runs: what they measure is not looked at, only that it is measured, compared and written down.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd_core import SmtpServer
from tests.bench import stored
from tests.bench.install import load_program
from tests.bench.letters import content
from tests.bench.lines import Plot, curves
from tests.bench.rates import generator, scratch, serving
from tests.bench.running import ROOT
from tests.bench.targets import TARGETS
from tests.bench.terms import Goal, Terms
from tests.bench.workloads import WORKLOADS

DURABLE = next(one for one in TARGETS if one.name == "smtpd_core durable")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_a_short_run_measures_compares_and_writes_down(tmp_path: Path) -> None:
    options = ["--runs", "1", "--seconds", "0.2", "--scale", "0.01", "--peers", "aiosmtpd", "--out", str(tmp_path)]
    done = run("tests.bench.run", "--workloads", "W1,W3R,start-stop", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "results.json").read_text())
    assert list(written["workloads"]) == ["W1", "W3R", "start-stop"]
    first = written["workloads"]["W1"]
    assert first["medians"]["smtpd_core"]["rate"] > 0 < first["medians"]["aiosmtpd"]["rate"]
    assert written["versions"]["aiosmtpd"].startswith("1.")
    verdicts = {one["against"]: one["verdict"] for one in first["goals"]}
    assert verdicts["go-smtp"] == "not measured" != verdicts["aiosmtpd"]
    assert "smtpd_core durable" in written["workloads"]["W3R"]["medians"]
    ElementTree.parse(tmp_path / "rates.svg")
    assert "## W3R" in (tmp_path / "README.md").read_text()


def test_a_run_of_some_workloads_can_be_added_to_the_figures_of_others(tmp_path: Path) -> None:
    options = ["--scale", "0.01", "--peers", "none", "--out", str(tmp_path)]
    assert run("tests.bench.run", "--workloads", "start-stop", *options).returncode == 0
    assert run("tests.bench.run", "--workloads", "still", "--add", *options).returncode == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["workloads"]) == ["still", "start-stop"]
    options[1] = "0.02"
    done = run("tests.bench.run", "--workloads", "still", "--add", *options)
    assert done.returncode == 1
    assert "other terms" in done.stderr


def test_an_unknown_workload_is_named() -> None:
    done = run("tests.bench.run", "--workloads", "W1,W99")
    assert done.returncode == 2
    assert "no workload W99" in done.stderr


def test_every_target_of_a_workload_exists_and_every_goal_names_one_of_its_peers() -> None:
    names = {one.name for one in TARGETS}
    for workload in WORKLOADS:
        assert set(workload.targets) <= names, workload.name
        assert {goal.peer for goal in workload.goals if goal.peer} <= set(workload.targets[1:]), workload.name


@pytest.mark.parametrize("in_c", [False, True])
def test_the_load_is_stored_octet_for_octet(in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both generators send the same messages: numbered, dots stuffed, none left out."""
    if in_c and load_program() is None:
        pytest.skip("load.c is not built: python -m tests.bench.install")
    if not in_c:
        monkeypatch.setattr("tests.bench.rates.install.load_program", lambda: None)
    job = {"messages": 30, "sessions": 4, "size": 100_000, "dots": True, "per_connection": 3}
    with scratch() as folder:
        with serving(DURABLE, folder, Terms()) as running:
            words = generator(running.port, DURABLE, job, Terms())
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["messages"] == 30
        stored.compare(stored.queue(folder), 30, 100_000, True)


@pytest.mark.parametrize("in_c", [False, True])
@pytest.mark.parametrize(("per_connection", "sessions", "connections"), [(0, 3, 3), (10, 1, 3), (1, 1, 30)])
def test_a_connection_carries_as_many_messages_as_the_job_says(
    per_connection: int, sessions: int, connections: int, in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 means all of them: it was left out of the command once, and every message had a connection of its own."""
    if in_c and load_program() is None:
        pytest.skip("load.c is not built: python -m tests.bench.install")
    if not in_c:
        monkeypatch.setattr("tests.bench.rates.install.load_program", lambda: None)
    greeted: list[object] = []
    server = SmtpServer(port=0)
    server.on_message_received = lambda session, message: None
    server.on_accept_connection = greeted.append
    with server:
        job = {"messages": 30, "sessions": sessions, "per_connection": per_connection}
        words = generator(server.address[1], DURABLE, job, Terms())
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert len(greeted) == connections


def letters(*numbers: int) -> Iterator[bytes]:
    yield from (b"Received: by a store\r\n" + content(500, False, number) for number in numbers)


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ((0, 2), "1 of 3 messages that were answered 250 are not stored"),
        ((0, 1, 1), "message 1 is stored twice"),
        ((0, 1, 2, 3), "message 3 is stored but was not accepted"),
    ],
)
def test_a_store_that_does_not_hold_what_it_promised_is_found_out(found: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(stored.Miscounted, match=complaint):
        stored.compare(letters(*found), 3, 500, False)


def test_a_changed_octet_is_found_out() -> None:
    with pytest.raises(stored.Miscounted, match="not octet for octet"):
        stored.compare((one.replace(b"xyz", b"xyZ", 1) for one in letters(0)), 1, 500, False)


def test_line_ends_on_disk_may_be_those_of_the_system() -> None:
    stored.compare((one.replace(b"\r\n", b"\n") for one in letters(0, 1)), 2, 500, False)


@pytest.mark.parametrize(
    ("goal", "own", "peer", "verdict"),
    [
        (Goal("rate", at_least=2, peer="x"), {"rate": 300.0}, {"rate": 100.0}, "met (3.00)"),
        (Goal("rate", at_least=4, peer="x"), {"rate": 300.0}, {"rate": 100.0}, "missed (3.00)"),
        (Goal("rate", at_least=2, peer="x"), {"rate": 300.0}, None, "not measured"),
        (Goal("p99_ms", at_most=10), {"p99_ms": 9.0}, None, "met (9.00)"),
        (Goal("p99_ms", at_most=10), {"p99_ms": 11.0}, None, "missed (11.00)"),
        (Goal("p99_ms", at_most=10), None, None, "not measured"),
    ],
)
def test_a_verdict_needs_both_sides(
    goal: Goal, own: dict[str, float] | None, peer: dict[str, float] | None, verdict: str
) -> None:
    assert goal.verdict(own, peer) == verdict


@pytest.mark.parametrize("grows", [False, True])
def test_curves_carry_every_figure(grows: bool) -> None:
    plot = Plot("Cost", "What bends it: nothing.", "things", "ms", {1: "1", 10: "10", 100: "100"}, grows)
    drawn = curves(plot, {"one": [(1, 0.5), (10, 5.0), (100, 123.0)], "two": [(1, 2.0), (10, 2.5)]}, "a machine")
    said = {part.text for part in ElementTree.fromstring(drawn).iter() if part.text}
    assert {"0.5", "5", "123", "2", "2.5", "one", "two", "Cost", "a machine"} <= said


def test_the_curves_of_the_queue_are_drawn(tmp_path: Path) -> None:
    done = run("tests.bench.flat", "queue", "--scale", "0.001", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "flat.json").read_text())["queue"]["lines"]
    assert [length for length, _ in lines["claim"]] == [100, 1000]
    ElementTree.parse(tmp_path / "flat-queue.svg")
