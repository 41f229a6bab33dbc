"""How a program of the command line ends, whatever stops it: with a line that says why, and never with a traceback.

Where its words go is not its choice: to a reader that left (`| head`), onto a full disk, in an alphabet that lacks a
letter, or nowhere at all (`>&-`).
Thread: main.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import IO

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def port(text: str) -> int:
    """The value of an option."""
    number = int(text)
    if not 0 < number < 65_536:
        raise argparse.ArgumentTypeError(f"{text} is no port: 1 to 65535")
    return number


def ended(work: Callable[[], int], *, lead: str, failed: int = FAILED) -> int:
    """The exit code: that of `work`, or `failed` where the system refused something, after `lead` and what it was."""
    _mend_streams()
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        code, why = failed, ""  # nobody is left to be told
    except KeyboardInterrupt:
        code, why = INTERRUPTED, ""
    except EOFError:
        code, why = WRONG, "the input ended where an answer was due"
    except UnicodeEncodeError as error:
        code, why = WRONG, f"{error.object!r} can't be written in {error.encoding}; LC_ALL=C.UTF-8 has all letters"
    except OSError as error:
        code, why = failed, str(error)
    if why:
        print(f"{lead}: {why}", file=sys.stderr)
    _leave_unsaid()
    return code


def _mend_streams() -> None:
    """None of the three is missing, and what an alphabet lacks is written as an escape."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _nowhere(mode: str) -> IO[str]:
    return open(os.devnull, mode, encoding="utf-8")


def _leave_unsaid() -> None:
    """What can't be written any more is not tried again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
