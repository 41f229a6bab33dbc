"""Several processes on one port: a master that binds, forks and watches; receivers and a relay that do the work.

Rule 1: the master starts no thread, runs no hook and reads no mail. It waits for signals, and that is all.
Rule 2: children inherit the listening sockets (shared, woken one at a time): a killed child takes no accept queue with
        it, only its own sessions.
Rule 3: a child that dies is started again after a delay that grows while it keeps dying.
Signals: TERM or INT drains and ends with 0, a second one ends at once; HUP replaces the receivers while the old ones
let their sessions end, and is passed on to children that reload in place.
Thread: the main thread only. POSIX only.
Not here: what a child does (build.py), listeners (net/listeners.py).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smtpd_core.threads import start_loop

log = logging.getLogger(__name__)

LEAVE = signal.SIGUSR2
_END = (signal.SIGTERM, signal.SIGINT)

# A child that lived for a minute is not one that keeps dying.
_FIRST_DELAY, _LONGEST_DELAY, _LIVED = 0.1, 30.0, 60.0


class Ward:
    """What a child gets: tell that it serves, then wait for signals. Thread: the child's main thread."""

    def __init__(self, name: str, ready: int, lifeline: int) -> None:
        self.name = name
        self._ready = ready
        self._lifeline = lifeline

    def is_ready(self) -> None:
        """This child serves. Also begins to watch the master, whose death ends the child as TERM would."""
        os.write(self._ready, b"+")
        os.close(self._ready)
        os.kill(os.getppid(), signal.SIGUSR1)
        start_loop("lifeline", self._watch_master)

    def wait(self, seconds: float | None = None) -> int | None:
        """The next of TERM, INT, HUP, LEAVE; None where none came within `seconds`.

        LEAVE: a successor serves; take no new connections, and end when those that are open have ended.
        A second TERM or INT is waited for by nobody: it ends the process."""
        awaited = (*_END, signal.SIGHUP, LEAVE)
        if seconds is None:
            number = signal.sigwait(awaited)
        else:
            came = signal.sigtimedwait(awaited, seconds)
            if came is None:
                return None
            number = signal.Signals(came.si_signo)
        if number in _END:
            for end in _END:
                signal.signal(end, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _END)
        return number

    def _watch_master(self) -> None:
        os.read(self._lifeline, 1)  # the master never writes: it returns when the master is gone
        os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Role:
    """One child. `run` serves until ward.wait() says to end, and returns the exit code; it reads the settings itself.

    `reloads_in_place`: HUP is passed on; otherwise HUP replaces the child by a new one.
    `processor`: the one that the child is pinned to, None for any.
    """

    name: str
    run: Callable[[Ward], int]
    reloads_in_place: bool = False
    processor: int | None = None


class _Child:
    def __init__(self, role: Role, process: int, ready: int, now: float) -> None:
        self.role = role
        self.process = process
        self.ready = ready
        self.since = now
        self.serves = False
        self.is_leaving = False
        self.replaces: _Child | None = None


class Master:
    """See the module. `may_reload` is asked at HUP, before anything is touched: False keeps the old children.

    `tell` hears the states of sd_notify: "READY=1" once all children serve, "RELOADING=1", "STOPPING=1".
    `patience`: seconds for children to drain before they are killed. `beat`: seconds between "WATCHDOG=1", 0 for never.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        may_reload: Callable[[], bool] = lambda: True,
        tell: Callable[[str], None] = lambda state: None,
        patience: float = 40.0,
        beat: float = 0.0,
    ) -> None:
        self._roles = list(roles)
        self._may_reload = may_reload
        self._tell = tell
        self.patience = patience
        self._beat = beat
        self._beats_at = time.monotonic() + beat if beat else 0.0
        self._children: dict[int, _Child] = {}
        self._delays: dict[str, float] = {}
        self._due: list[tuple[float, Role]] = []  # roles to start again
        self._lifeline, self._life = -1, -1
        self._ends_at: float | None = None
        self._is_announced = False

    def run(self) -> int:
        """Fork, watch, and return the exit code after TERM or INT."""
        signals = {*_END, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, LEAVE}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._lifeline, self._life = os.pipe()
        for role in self._roles:
            self._start(role)
        while self._children or (self._due and self._ends_at is None):
            arrived = self._wait(signals)
            if arrived in _END:
                if self._ends_at is not None:
                    self._kill_all(signal.SIGKILL)
                    return 1
                self._begin_end()
            elif arrived == signal.SIGHUP and self._ends_at is None:
                self._reload()
            self._hear_ready()
            self._bury()
            self._start_due()
            if self._beats_at and time.monotonic() >= self._beats_at:
                self._beats_at = time.monotonic() + self._beat
                self._tell("WATCHDOG=1")
            if self._ends_at is not None and time.monotonic() >= self._ends_at:
                log.warning("%d processes did not drain in time and are killed", len(self._children))
                self._kill_all(signal.SIGKILL)
                return 1
        os.close(self._life)
        os.close(self._lifeline)
        return 0

    @property
    def processes(self) -> dict[str, list[int]]:
        """Process numbers by role."""
        found: dict[str, list[int]] = {}
        for child in self._children.values():
            found.setdefault(child.role.name, []).append(child.process)
        return found

    # -- waiting

    def _wait(self, signals: set[signal.Signals]) -> int | None:
        """The next signal, or None when something else is due."""
        now = time.monotonic()
        moments = [moment for moment, _ in self._due]
        if self._ends_at is not None:
            moments.append(self._ends_at)
        if self._beats_at:
            moments.append(self._beats_at)
        if not moments:
            return signal.sigwait(signals)
        came = signal.sigtimedwait(signals, max(0.0, min(moments) - now))
        return None if came is None else came.si_signo

    def _hear_ready(self) -> None:
        for child in list(self._children.values()):
            if child.serves:
                continue
            try:
                if os.read(child.ready, 1):
                    child.serves = True
            except BlockingIOError:
                continue
            if child.serves:
                os.close(child.ready)
                self._settle_in(child)
        if not self._is_announced and len(self._children) == len(self._roles):
            self._is_announced = all(child.serves for child in self._children.values())
            if self._is_announced:
                self._tell("READY=1")

    def _settle_in(self, child: _Child) -> None:
        old, child.replaces = child.replaces, None
        if old is not None and old.process in self._children:
            self._let_go(old)
        if not child.is_leaving:
            self._tell_reloaded()

    def _let_go(self, child: _Child) -> None:
        child.is_leaving = True
        child.replaces = None
        os.kill(child.process, LEAVE)

    def _tell_reloaded(self) -> None:
        if self._is_announced and not any(other.replaces for other in self._children.values()):
            self._tell("READY=1")

    def _bury(self) -> None:
        """Take note of the dead, and plan their successors."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            child = self._children.pop(process, None)
            if child is None:
                continue
            if not child.serves:
                os.close(child.ready)
            if child.is_leaving or self._ends_at is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if child.replaces is not None:
                log.error("%s: the successor ended with %d; the old one stays", child.role.name, code)
                self._tell_reloaded()
                continue
            successor = next((other for other in self._children.values() if other.replaces is child), None)
            if successor is not None:
                log.error("%s (process %d) ended with %d; its successor starts", child.role.name, process, code)
                successor.replaces = None
                continue
            self._plan_again(child, code)

    def _plan_again(self, child: _Child, code: int) -> None:
        name, now = child.role.name, time.monotonic()
        before = 0.0 if now - child.since >= _LIVED else self._delays.get(name, 0.0)
        delay = min(_LONGEST_DELAY, before * 2 or _FIRST_DELAY)
        self._delays[name] = delay
        log.error("%s (process %d) ended with %d; starting it again in %g s", name, child.process, code, delay)
        self._due.append((now + delay, child.role))

    def _start_due(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self._due if entry[0] <= now]
        if self._ends_at is not None:
            self._due.clear()
            return
        for entry in due:
            self._due.remove(entry)
            self._start(entry[1])

    # -- children

    def _start(self, role: Role, replaces: _Child | None = None) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            os.close(reader)
            self._be_child(role, writer)
        os.close(writer)
        child = _Child(role, process, reader, time.monotonic())
        child.replaces = replaces
        self._children[process] = child

    def _be_child(self, role: Role, ready: int) -> None:
        """Never returns: what the master has on its stack and in its atexit is not ours."""
        code = 1
        try:
            os.close(self._life)
            for other in self._children.values():
                if not other.serves:
                    os.close(other.ready)
            if role.processor is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {role.processor})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGUSR1})
            code = role.run(Ward(role.name, ready, self._lifeline))
        except BaseException:
            log.critical("%s failed", role.name, exc_info=True)
        finally:
            try:
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _end_child(self, child: _Child) -> None:
        child.is_leaving = True
        os.kill(child.process, signal.SIGTERM)

    def _begin_end(self) -> None:
        self._tell("STOPPING=1")
        self._ends_at = time.monotonic() + self.patience
        for child in self._children.values():
            self._end_child(child)

    def _reload(self) -> None:
        """New receivers first; an old one leaves when its successor serves, so that somebody always accepts."""
        if not self._may_reload():
            log.error("the new settings are not usable; everything stays as it was")
            return
        self._tell("RELOADING=1")
        successors = []
        for child in list(self._children.values()):
            if child.is_leaving:
                continue
            if child.replaces is not None:
                self._let_go(child)  # it began with settings that are old by now; there is one successor at a time
            elif child.role.reloads_in_place:
                os.kill(child.process, signal.SIGHUP)
            else:
                successors.append(child)
        for child in successors:
            self._start(child.role, replaces=child)
        if not successors:
            self._tell("READY=1")

    def _kill_all(self, number: signal.Signals) -> None:
        for child in self._children.values():
            os.kill(child.process, number)
        for process in list(self._children):
            os.waitpid(process, 0)
        self._children.clear()
