"""The bench does not lie: what fails, is short of runs or was never asked for is said, and no figure stands for it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench import install, profile, run, running, stored
from tests.bench.plot import bars
from tests.bench.rates import drive, generator, rate, scratch, serving, show_what_arrives
from tests.bench.report import Found, document, page, show, together
from tests.bench.running import ROOT, Running, free_port, tree
from tests.bench.targets import TARGETS, Target
from tests.bench.terms import Goal, Sample, Terms, Workload
from tests.bench.workloads import WORKLOADS
from tests.support.unpacked import Unavailable

AIOSMTPD = next(one for one in TARGETS if one.name == "aiosmtpd")
W1, W6 = (next(one for one in WORKLOADS if one.name == name) for name in ("W1", "W6"))
OURS, PEER = (Target(name, lambda port, folder: None, lambda: "1") for name in ("smtpd_core", "a peer"))


def measured_by(measure: Callable[[Target, Workload, Terms], Sample]) -> Workload:
    return Workload("X", "nothing", measure, ("smtpd_core", "a peer"), ("rate",))


def test_aiosmtpd_does_not_look_its_own_name_up_for_each_connection() -> None:
    """It did, as it does where nobody tells it, and what a name server answers is no cost of its own."""
    with scratch() as folder, serving(AIOSMTPD, folder, Terms()) as peer, socket.socket() as sock:
        sock.connect(("127.0.0.1", peer.port))
        assert sock.makefile("rb").readline().startswith(b"220 bench.test ")


def test_a_sink_that_ends_without_its_count_has_no_figure() -> None:
    with pytest.raises(stored.Miscounted, match="without a word"):
        rate(replace(AIOSMTPD, counts=True), W1, Terms(seconds=0.1))


def test_what_two_processes_count_is_added_up() -> None:
    """A connection each for 40 messages, so that both have some."""
    target = next(one for one in TARGETS if one.name == "smtpd_core in two")
    with scratch() as folder:
        with serving(target, folder, Terms()) as running:
            load = drive(running, target, {"messages": 40, "sessions": 8, "size": 1024}, Terms())
        assert load["messages"] == 40
        assert json.loads((folder / "counted").read_text()) == [40, 40 * 1024]


def test_a_server_that_compiles_itself_is_timed_when_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """smtp-server was timed from its first message on, at half of its rate, and a target against it read as met."""
    ours, node = (next(one for one in TARGETS if one.name == name) for name in ("smtpd_core", "smtp-server"))
    assert node.warm_up > 0
    loads: list[Sample] = []

    def driven(*of: Any) -> Sample:
        loads.append(drive(*of))
        return loads[-1]

    monkeypatch.setattr("tests.bench.rates.drive", driven)
    found = rate(replace(ours, warm_up=0.1), W1, Terms(seconds=0.2))
    warming, timed = loads
    assert warming["seconds"] < timed["seconds"]
    assert found["p50_ms"] == timed["p50_ms"]


def test_a_message_that_came_for_fewer_recipients_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def for_one(port: int, target: Target, options: dict[str, int | float | bool], terms: Terms) -> list[str]:
        return generator(port, target, {**options, "recipients": 1}, terms)

    show_what_arrives(W6, Terms())
    monkeypatch.setattr("tests.bench.rates.generator", for_one)
    with pytest.raises(stored.Miscounted, match="for 1 recipients, not for 50"):
        show_what_arrives(W6, Terms())


@pytest.mark.parametrize(
    "error", [ValueError("no JSON"), AssertionError(), IndexError("cut short"), OSError(28, "full")]
)
def test_whatever_goes_wrong_with_one_server_the_others_are_measured(error: Exception) -> None:
    """A store that could not be read ended the run, and what it had found by then was lost."""

    def measure(target: Target, workload: Workload, terms: Terms) -> Sample:
        if target is PEER:
            raise error
        return {"rate": 1.0}

    found = run.compare(measured_by(measure), [OURS, PEER], 2, Terms())
    assert list(found.medians) == ["smtpd_core"]
    assert found.missing == {"a peer": str(error) or "AssertionError"}


def test_medians_of_fewer_runs_than_were_asked_for_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 0.0, 9.0])  # the second run of the second target is not begun
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    found = run.compare(measured_by(lambda *_: {"rate": 1.0, "cpu": 1.0}), [OURS, PEER], 2, Terms(), until=5.0)
    show(found)
    assert "[of 1 only]" in capsys.readouterr().out
    written = document([found], [OURS, PEER], Terms(), 0.0)
    assert written["workloads"]["X"]["fewer_runs"] == {"a peer": 1}
    assert "| a peer (of 1 only) | 1 | 1 |" in "\n".join(page(written))


@pytest.mark.parametrize(
    ("goal", "own", "verdict"),
    [
        (Goal("rate", at_least=1, peer="x"), 99.9, "missed (0.99)"),
        (Goal("rate", at_most=1, peer="x"), 100.1, "missed (1.01)"),
        (Goal("rate", at_least=1, peer="x"), 100.0, "met (1.00)"),
    ],
)
def test_a_target_just_missed_does_not_read_as_met(goal: Goal, own: float, verdict: str) -> None:
    assert goal.verdict({"rate": own}, {"rate": 100.0}) == verdict


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--workloads", "W1 w2"], "no workload w2; there are W1, W2"),
        (["--peers", "aiosmtpd,exmi"], "no peer exmi; there are aiosmtpd, bare loop, smtp-sink"),
        (["--interpreters", "/nowhere/python"], "/nowhere/python is not an interpreter of Python"),
        (["--runs", "0"], "'0' is not a whole number above 0"),
        (["--runs", "five"], "'five' is not a whole number above 0"),
        (["--seconds", "0"], "'0' is not a number above 0"),
        (["--scale", "nan"], "'nan' is not a number above 0"),
    ],
)
def test_a_slip_in_an_option_is_named_before_anything_runs(
    words: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer that nobody knows was left out without a word, and a load of no seconds had no end."""
    monkeypatch.setattr(sys, "argv", ["run", *words])
    with pytest.raises(SystemExit):
        run.options()
    assert complaint in capsys.readouterr().err


def chosen(monkeypatch: pytest.MonkeyPatch, *words: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["run", *words])
    return run.options()


def test_names_are_divided_by_commas_or_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, "--workloads", "W1, W3 W5").workloads == ["W1", "W3", "W5"]
    looked: list[str] = []
    monkeypatch.setattr(profile, "look", lambda workload, *_: [looked.append(workload.name) or ""])
    monkeypatch.setattr(sys, "argv", ["profile", "W1,W2", "W5"])
    assert profile.main() == 0
    assert looked == ["W1", "W2", "W5"]


def test_on_one_processor_server_and_load_are_not_said_to_be_pinned(tmp_path: Path) -> None:
    one = str(min(os.sched_getaffinity(0)))
    words = ["taskset", "-c", one, sys.executable, "-m", "tests.bench.run", "--workloads", "start-stop"]
    done = subprocess.run([*words, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "server and load share their processors" in done.stdout
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["pinned"] is False
    assert ", 1 processor, " in written["machine"]


def test_figures_that_others_are_added_to_keep_their_date(tmp_path: Path) -> None:
    found = Found(W1, 1, {"smtpd_core": {"rate": 1.0}}, counts={"smtpd_core": 1})
    new = document([found], [OURS], Terms(), 0.0)
    old = {**new, "date": "2020-01-01", "workloads": {"W2": {**new["workloads"]["W1"]}}}
    del old["workloads"]["W2"]["date"]
    (tmp_path / "results.json").write_text(json.dumps(old))
    both = together(tmp_path, new, ["W1", "W2"])["workloads"]
    assert [both["W2"]["date"], both["W1"]["date"]] == ["2020-01-01", new["date"]]


def test_terms_that_differ_are_found_before_an_hour_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = chosen(monkeypatch, "--out", str(tmp_path), "--add")
    other = document([], [], Terms(seconds=9.0), 0.0)
    (tmp_path / "results.json").write_text(json.dumps(other))
    monkeypatch.setattr(run, "compare", lambda *_: pytest.fail("something ran"))
    with pytest.raises(SystemExit, match="other terms"):
        run.measured(options)


def test_no_word_of_the_plot_is_cut_off() -> None:
    sample = {"rate": 123_456.0, "cpu": 0.1234, "generator": 1.0}
    found = Found(W1, 1, {"smtpd_core": sample}, counts={"smtpd_core": 1})
    drawn = ElementTree.fromstring(bars(document([found], [OURS], Terms(), 0.0)))
    for part in drawn.iter("{http://www.w3.org/2000/svg}text"):
        assert part.text
        if part.get("text-anchor") != "end":
            assert float(part.get("x", 0)) + 6.8 * len(part.text) < float(drawn.get("width", 0)), part.text


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_registry_that_nobody_answers_for_is_named_and_leaves_no_half_of_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took npm more than a minute to say where its log is, and no word of why."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("npm_config_registry", f"http://{where}/")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
        monkeypatch.setattr(install, "PLACE", tmp_path / "peers")
        with pytest.raises(Unavailable, match=f"reason: connect ECONNREFUSED {where}"):
            install.smtp_server()
    assert not list((tmp_path / "peers").iterdir())


def killed(pids: list[int]) -> list[int]:
    """Those that still ran, and so had to be."""
    left = [pid for pid in pids if running._is_running(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_leaves_neither_servers_nor_folders(number: signal.Signals, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.bench.run", "--workloads", "W1", "--peers", "none", "--seconds", "60"]
    settings = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        until = time.monotonic() + 30
        while len(family := tree(bench.pid)) < 3 and time.monotonic() < until:  # itself, a server and its load
            time.sleep(0.01)
        bench.send_signal(number)
        said = bench.communicate(timeout=30)[1]
    assert killed(family) == []
    assert said == b"interrupted: its servers are ended, and their folders removed\n"
    assert not list(tmp_path.glob("bench-*"))


def test_a_server_that_has_not_greeted_yet_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Running] = []

    def interrupted(self: Running) -> None:
        begun.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Running, "_await_banner", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Running([sys.executable, "-c", "import signal; signal.pause()"], free_port(), tmp_path)
    assert killed([begun[0].process.pid]) == []


STUBBORN = """
import os, signal, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
while True:
    listening.accept()[0].sendall(b"220 mx.test\\r\\n")
"""


def test_a_child_of_a_server_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "END_WITHIN", 0.1)
    port = free_port()
    with Running([sys.executable, "-c", STUBBORN, str(port)], port, tmp_path) as server:
        _, child = tree(server.process.pid)
    until = time.monotonic() + 10
    while running._is_running(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert killed([child]) == []
