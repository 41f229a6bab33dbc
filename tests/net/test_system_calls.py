"""What a turn costs: traced, because a kept connection's turn is to be recv, send and nothing else of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.net.echo import Client

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from smtpd_core.net import Door, Engine, ListenerSettings
from tests.net.echo import Club
engine = Engine([Door(ListenerSettings(bind="127.0.0.1:0", tls="none"))], Club().open, min_threads=0)
engine.start()
print(engine.addresses[0][1], flush=True)
sys.stdin.readline()
engine.stop(5)
"""


def calls(trace: Path, lines: int) -> Counter[str]:
    """The system calls of a server that answers so many lines of one client, from its first look for one on: what it
    imports costs now more, now less, as files are compiled or not."""
    program = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert program.stdout is not None
    with Client(("127.0.0.1", int(program.stdout.readline()))) as client:
        for _ in range(lines):
            assert client.ask("x") == "250 x"
    program.communicate("\n", 30)
    text = trace.read_text()
    found = re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", text[text.index("accept4(") :], re.M)
    return Counter(found)


@pytest.mark.debian("strace")
def test_a_kept_connection_costs_one_recv_one_send_and_the_poll_for_each_turn(tmp_path):
    few, many = calls(tmp_path / "few", 50), calls(tmp_path / "many", 450)
    more = {name: (many[name] - few[name]) / 400 for name in many}
    assert 0.9 < more["recvfrom"] < 1.1
    assert 0.9 < more["sendto"] < 1.1
    others = {name: rate for name, rate in more.items() if name not in ("recvfrom", "sendto", "epoll_wait", "futex")}
    assert max(others.values()) < 0.05, others
