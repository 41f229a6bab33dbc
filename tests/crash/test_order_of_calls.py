"""A trace of the running server's system calls: every 250 follows the write and the sync of its message, in order."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

MESSAGES, LARGE = 20, 400_000

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_QUEUED = re.compile(r"250 2\.0\.0 [^\\\"]*queued as (?P<id>\w+)")


class Call:
    """One system call; `began` and `ended` are line numbers of the trace."""

    def __init__(self, text: str, began: int, ended: int) -> None:
        self.text, self.began, self.ended = text, began, ended
        self.name = text.partition("(")[0]
        self.file = re.search(r"\((?:AT_FDCWD<[^>]*>|\d+)?<?(?P<file>[^>]*)>", text)

    def is_on(self, part: str) -> bool:
        return self.file is not None and part in self.file["file"]


def calls_of(trace: Path) -> list[Call]:
    """The calls in order of their end; those that other threads interrupted are put together again."""
    found, begun = [], dict[str, tuple[str, int]]()
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        match = _LINE.match(line)
        if match is None:
            continue
        pid, rest = match["pid"], match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = (rest.removesuffix("<unfinished ...>"), number)
        elif rest.startswith("<..."):
            text, start = begun.pop(pid)
            found.append(Call(text + rest.partition("resumed>")[2], start, number))
        else:
            found.append(Call(rest, number, number))
    return found


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Call], set[str]]:
    """The trace of a server that took small messages and a large one; the ids that it promised."""
    folder = tmp_path_factory.mktemp("traced")
    trace = folder / "trace"
    server = subprocess.Popen(
        [
            "strace", "-f", "-y", "-s", "400", "-e", "abbrev=none", "-o", trace,
            "-e", "trace=writev,write,fdatasync,fsync,linkat,sendto,sendmsg",
            sys.executable, "-m", "smtpd_core", "serve", "--listen", "127.0.0.1:0", "--state", folder / "state",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = next(int(line.rpartition(":")[2]) for line in server.stdout if line.startswith("listening mx"))
        promised = set()
        for content in [b"Subject: small\r\n\r\nhello\r\n"] * MESSAGES + [b"x" * 70 + b"\r\n"] * 1:
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.ehlo("probe.test")
                client.mail("bob@example.test")
                client.rcpt("ann@example.test")
                code, text = client.data(content if b"Subject" in content else content * (LARGE // len(content)))
                assert code == 250
                promised.add(text.decode().split()[-1])
    finally:
        for child in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        assert server.stdout is not None
        server.stdout.read()
        server.wait(30)
    return calls_of(trace), promised


@pytest.mark.debian("strace")
def test_every_250_follows_the_write_and_the_sync_of_its_record(traced: tuple[list[Call], set[str]]) -> None:
    calls, promised = traced
    sent = {
        match["id"]: call
        for call in calls
        if call.name in ("sendto", "sendmsg", "write") and (match := _QUEUED.search(call.text))
    }
    assert set(sent) == promised and len(promised) == MESSAGES + 1
    for id, reply in sent.items():
        written = next(one for one in calls if one.name == "writev" and one.is_on(".seg") and id in one.text)
        synced = [
            one for one in calls if one.name == "fdatasync" and one.is_on(".seg") and one.text.endswith("= 0")
            and written.ended < one.began and one.ended < reply.began
        ]  # fmt: skip
        assert synced, f"{id}: no sync between the write and the 250"


@pytest.mark.debian("strace")
def test_a_large_body_is_synced_and_linked_and_its_name_synced_before_the_record(
    traced: tuple[list[Call], set[str]],
) -> None:
    calls, promised = traced
    (link,) = [
        one for one in calls if one.name == "linkat" and "/spool/bodies/" in one.text and "/proc/self" in one.text
    ]
    id = next(one for one in promised if one in link.text)
    record = next(one for one in calls if one.name == "writev" and one.is_on(".seg") and id in one.text)
    body_synced = [one for one in calls if one.name == "fdatasync" and "deleted" in one.text and one.ended < link.began]
    name_synced = [
        one for one in calls if one.name == "fsync" and one.is_on("spool/bodies")
        and link.ended < one.began and one.ended < record.began
    ]  # fmt: skip
    assert body_synced and name_synced


@pytest.mark.debian("strace")
def test_a_new_segments_header_and_name_are_synced_before_its_first_record(
    traced: tuple[list[Call], set[str]],
) -> None:
    calls, _ = traced
    header, first, *_ = (one for one in calls if one.name == "writev" and one.is_on(".seg"))
    between = [one for one in calls if header.ended < one.began and one.ended < first.began]
    assert any(one.name == "fdatasync" and one.is_on(".seg") for one in between)
    assert any(one.name == "fsync" and one.is_on("/spool") for one in between)
