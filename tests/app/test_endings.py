"""However a program of the command line is stopped, it says why in a line, and its exit code tells; no tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.daemon import ROOT
from tests.app.terminals import OnTerminal

WORDS = {
    "smtpd_core": ("reference",),
    "relay": ("schedule",),
    "certs": ("show", "chain.pem", "--json"),
}
# What each says of itself where its words can't be written.
REFUSED = {"smtpd_core": 1, "relay": 74, "certs": 2}

ALPHABETS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0"},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    done = run("python -m certs self-signed mx.test --subject Jürgen€ --name chain", tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def run(line: str, folder: Path, **surroundings: str) -> subprocess.CompletedProcess[str]:
    """A line of shell, `python` being this interpreter. Output is buffered, as it is for everybody."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    script = f'set -o pipefail; python() {{ {sys.executable} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **surroundings},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )


def line_of(program: str) -> str:
    return f"python -m {program} {' '.join(WORDS[program])}"


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("program", WORDS)
def test_a_full_disk_is_named(program: str, buffered: str, place: Path) -> None:
    done = run(f"{line_of(program)} > /dev/full", place, PYTHONUNBUFFERED=buffered)
    assert done.returncode == REFUSED[program]
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


@pytest.mark.parametrize("program", WORDS)
def test_a_reader_that_left_is_no_trouble(program: str, place: Path) -> None:
    done = run(f"{line_of(program)} | true", place)
    assert done.returncode in (0, REFUSED[program]) and done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("program", WORDS)
def test_closed_streams_are_no_trouble(program: str, closed: str, place: Path) -> None:
    done = run(f"{line_of(program)} {closed}", place)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", "< /dev/null"])
def test_a_password_that_nobody_gives_is_asked_for_in_vain(closed: str, place: Path) -> None:
    done = run(f"python -m smtpd_core user add ann --store file:users.toml {closed}", place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize(
    "command",
    [
        "certs show chain.pem",
        "smtpd_core mx Jürgen€.test --config smtpd.toml",
        "relay mx Jürgen€.test --dns-server 127.0.0.1:1",
        "smtpd_core user list --store file:users.toml",
    ],
)
def test_an_alphabet_that_lacks_a_letter_has_an_escape_for_it(command: str, alphabet: str, place: Path) -> None:
    (place / "smtpd.toml").write_text("listener = [{}]\n")
    run("python -m smtpd_core user add ann --display-name Jürgen€ --store file:users.toml <<< secret", place)
    done = run(f"python -m {command}", place, **ALPHABETS[alphabet])
    assert "codec" not in done.stderr and "Traceback" not in done.stderr
    assert "rgen" in done.stdout


def test_letters_that_the_locale_can_not_read_are_refused_in_words(place: Path) -> None:
    from relay.queue_sqlite import SqliteQueue

    SqliteQueue(place / "queue.db").close()
    done = run("python -m smtpd_core queue show ü --state .", place, **ALPHABETS["the C locale"])
    assert done.returncode == 2
    assert done.stderr.startswith("smtpd_core: ") and done.stderr.count("\n") == 1 and "LC_ALL" in done.stderr


@pytest.mark.parametrize(("end", "code"), [(b"\x03", 130), (b"\x04", 2)], ids=["an interrupt", "an end of the input"])
@pytest.mark.parametrize(
    "words",
    [
        ["smtpd_core", "user", "add", "ann", "--store", "file:users.toml"],
        ["smtpd_core", "user", "check", "ann", "--store", "file:there.toml"],
        ["smtpd_core", "send", "--to", "ann@here.test", "--user", "ann"],
        ["smtpd_core", "conform", "127.0.0.1:1", "--user", "ann"],
        ["certs", "self-signed", "mx.test", "--key-password", "ask"],
    ],
    ids=" ".join,
)
def test_at_a_prompt(words: list[str], end: bytes, code: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("python -m smtpd_core user add ann --store file:there.toml <<< secret", place)
    monkeypatch.chdir(place)
    with OnTerminal([sys.executable, "-m", *words]) as program:
        program.read_until(lambda text: "assword" in text and ": " in text)
        program.press(end)
        rest = program.read_all()
        assert program.process.wait(60) == code
    assert "Traceback" not in rest
