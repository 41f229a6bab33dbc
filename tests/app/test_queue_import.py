"""`queue import`, as an operator moves a queue."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relay import importing
from relay.disk import Disk
from relay.intake import Intake
from relay.queue_memory import MemoryQueue
from relay.queue_reader import SqliteReader
from relay.queue_sqlite import SqliteQueue
from relay.view import Filter
from smtpd_core.app.cli import main
from tests.app.daemon import ROOT, DaemonProcess, content_of
from tests.support import elsewhere
from tests.support.elsewhere import put_in_queue, put_in_spool
from tests.support.spooling import to_one_maildir


def bring(old: Path, new: Path, *words: str) -> int:
    return main(["queue", "import", str(old), "--state", str(new), *words])


def brought(capsys: pytest.CaptureFixture[str], old: Path, new: Path) -> dict[str, object]:
    bring(old, new, "--json")
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_running_server_delivers_what_is_brought_to_it(
    processes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    put_in_queue(old, [f"Q{n}" for n in range(900)], large=["Q7"], held=["Q8"])
    put_in_spool(old, [f"S{n}" for n in range(100)], large=["S7"])
    daemon = DaemonProcess(new)
    daemon.start({"SMTPD_CORE_THREADS_PROCESSES": processes})
    letter = tmp_path / "letter.eml"
    letter.write_text("Subject: one of its own\n\nhello\n")
    try:
        assert main(["send", "--to", "ann@example.test", "--server", daemon.text, str(letter)]) == 0
        daemon.wait_for(1)
        assert bring(old, new) == 0
        told = capsys.readouterr().out
        assert "1000 messages imported (1 held), 0 were here already\n" in told
        assert f"the running server has them on {new}" in told and f"mv {old} {old}.imported" in told
        mails = daemon.wait_for(1000)
        assert brought(capsys, old, new) == {"imported": 0, "held": 0, "known": 1000, "faults": [], "server": False}
        (held,) = SqliteReader(new / "queue.db").messages(Filter(), time.time())
        assert (held.id, held.recipients[0].status) == ("Q8", "held")
        assert main(["queue", "release", "--state", str(new), "Q8"]) == 0
        daemon.wait_for(1001)
    finally:
        daemon.stop()
    assert len(daemon.mails()) == 1001
    contents = {content_of(path.read_bytes()) for path in mails}
    assert elsewhere.content_of("Q7", elsewhere.LARGE) in contents
    assert elsewhere.content_of("S7", elsewhere.LARGE) in contents


def test_without_a_server_it_waits_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    put_in_queue(old, ["Q1"])
    new.mkdir()
    assert bring(old, new) == 0
    assert f"they are queued when a server starts on {new}" in capsys.readouterr().out
    with DaemonProcess(new) as daemon:
        daemon.wait_for(1)


def test_an_import_that_was_killed_is_made_again_and_brings_the_rest(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    ids = [f"Q{n}" for n in range(4000)]
    put_in_queue(old, ids)
    new.mkdir()
    command = [sys.executable, "-m", "smtpd_core", "queue", "import", str(old), "--state", str(new), "--json"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    while not list((new / "spool").glob("*.seg")):
        assert process.poll() is None
        time.sleep(0.001)  # another process's folder
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    queue = MemoryQueue()
    intake = Intake(new / "spool", queue, to_one_maildir)
    first = intake.import_all()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    second = intake.import_all()
    assert first > 0 and first + second == 4000
    assert told["imported"] + told["known"] == 4000
    assert len(queue.claim("maildir:m", 9999, time.time(), 60)) == 4000


def test_a_server_that_was_killed_leaves_what_can_be_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    letter = tmp_path / "letter.eml"
    letter.write_text("Subject: hello\n\nhello\n")
    with DaemonProcess(old, "--smarthost", "127.0.0.1:9") as daemon:
        assert main(["send", "--to", "ann@far.test", "--server", daemon.text, str(letter)]) == 0
        assert bring(old, new) == 2
        assert "is in use by a running server" in capsys.readouterr().err
        daemon.kill()
    assert brought(capsys, old, new)["imported"] == 1


def test_damage_is_named_and_makes_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    put_in_queue(old, ["Q1", "Q2", "Q3"], large=["Q2"])
    (old / "bodies" / "Q2").unlink()
    queue = SqliteQueue(old / "queue.db")
    queue.change(lambda db: db.execute("UPDATE messages SET envelope = x'00' WHERE id = 'Q3'"))
    queue.close()
    new.mkdir()
    assert bring(old, new) == 1
    told = capsys.readouterr().out
    assert "message Q2: its content is missing\n" in told and "message Q3: its envelope can't be read" in told
    assert "1 messages imported, 0 were here already, 2 faults\n" in told


class Elsewhere(Disk):
    """The other place is another disk, and the body Q2 lies on a bad block of it."""

    def link(self, source: int | str, path: str) -> None:
        if str(source).endswith("Q2") and "/old/" in str(source):
            os.unlink(source)
            os.mkdir(source)  # which can be read as little
        raise OSError(errno.EXDEV, "Invalid cross-device link")


@pytest.mark.parametrize("bad", ["Q1 Q2 Q3", "Q2"])
def test_a_body_that_can_not_be_copied_is_left_behind_and_the_others_come(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the import, each time at the same message."""
    old, new = tmp_path / "old", tmp_path / "new"
    ids = bad.split()
    put_in_queue(old, ids, large=ids)
    new.mkdir()
    monkeypatch.setattr(importing, "Disk", Elsewhere)
    assert bring(old, new) == 1
    told = capsys.readouterr().out
    assert "message Q2: its content can't be read: Is a directory\n" in told
    assert f"{len(ids) - 1} messages imported, 0 were here already, 1 faults\n" in told
    assert not [path for path in (new / "spool" / "importing").rglob("*") if path.name not in ("lock", "bodies")]


def test_places_that_cant_be_meant_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    put_in_queue(old, ["Q1"])
    assert bring(old, tmp_path / "missing") == 2
    assert "is no state directory; start its server once" in capsys.readouterr().err
    (tmp_path / "same").symlink_to(old)
    assert bring(tmp_path / "same", old) == 2
    assert "is the directory to import into" in capsys.readouterr().err
    assert bring(tmp_path, old) == 2
    assert "it has neither queue.db nor spool/" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_mail_that_the_server_could_not_read_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_in_queue(tmp_path / "old", ["Q1"])
    (tmp_path / "new").mkdir()
    os.chown(tmp_path / "new", 12345, 12345)
    assert bring(tmp_path / "old", tmp_path / "new") == 2
    assert "belongs to user number 12345; run this as that user" in capsys.readouterr().err


def test_an_import_that_stops_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_queue(tmp_path / "old", ["Q1"])
    (tmp_path / "new").mkdir()
    monkeypatch.setattr(importing, "FLOOR", 1 << 62)
    assert bring(tmp_path / "old", tmp_path / "new") == 1
    told = capsys.readouterr().err
    assert f"queue import into {tmp_path / 'new'}: " in told
    assert "stay free for the server; what was handed over by then stays; mend that, and make the import again" in told
