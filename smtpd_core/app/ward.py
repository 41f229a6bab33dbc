"""A child of the master as the child sees itself: what it tells, and the signals that it waits for.

It tells in lines through a pipe that the master keeps open: "prepared", "serves", "reloaded", "failed WHY", "says"
with what the supervisor is to hear.
Thread: the child's main thread.
Not here: what the master makes of it (processes.py).
"""

from __future__ import annotations

import os
import signal

from smtpd_core.threads import start_loop

LEAVE = signal.SIGUSR2
END = (signal.SIGTERM, signal.SIGINT)

# What one line may hold; a pipe takes so much as a whole.
_LINE = 2048


class Ward:
    """`is_successor`: it was begun by a reload, for settings that are not in force yet."""

    def __init__(self, name: str, told: int, lifeline: int, *, is_successor: bool = False) -> None:
        self.name = name
        self.is_successor = is_successor
        self._told = told
        self._lifeline = lifeline
        self._is_watching = False

    def may_serve(self) -> bool:
        """All that may fail is done. A successor waits here until the new settings are in force; False where they will
        not be, or where it is to end."""
        if not self.is_successor:
            return True
        self._tell("prepared")
        return self.wait() == signal.SIGHUP

    def is_ready(self) -> None:
        """This child serves. Also begins to watch the master, whose death ends the child as TERM would."""
        self._tell("serves")

    def has_reloaded(self, well: bool) -> None:
        """It did what HUP asked it for, or kept what it had and said why in the log."""
        self._tell("reloaded" if well else "failed to reload")

    def says(self, states: str) -> None:
        """What the supervisor is to hear, who listens to the master alone."""
        self._tell("says " + states.replace("\n", "\t"))

    def failed(self, error: BaseException) -> None:
        """Why it is going to end."""
        self._tell(f"failed {error}")

    def _tell(self, line: str) -> None:
        if not self._is_watching:
            self._is_watching = True
            start_loop("lifeline", self._watch_master)
        text = " ".join(line.splitlines()).encode("utf-8", "replace")[:_LINE]
        os.write(self._told, text + b"\n")
        os.kill(os.getppid(), signal.SIGUSR1)

    def wait(self, seconds: float | None = None) -> int | None:
        """The next of TERM, INT, HUP, LEAVE; None where none came within `seconds`.

        LEAVE: a successor serves; take no new connections, and end when those that are open have ended.
        A second TERM or INT is waited for by nobody: it ends the process."""
        awaited = (*END, signal.SIGHUP, LEAVE)
        if seconds is None:
            number = signal.sigwait(awaited)
        else:
            came = signal.sigtimedwait(awaited, seconds)
            if came is None:
                return None
            number = signal.Signals(came.si_signo)
        if number in END:
            for end in END:
                signal.signal(end, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, END)
        return number

    def _watch_master(self) -> None:
        os.read(self._lifeline, 1)  # the master never writes: it returns when the master is gone
        os.kill(os.getpid(), signal.SIGTERM)
