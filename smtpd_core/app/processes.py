"""Several processes on one port: a master that binds, forks and watches; receivers and a relay that do the work.

Rule 1: the master starts no thread, runs no hook and reads no mail. It waits for signals, and that is all.
Rule 2: children inherit the listening sockets (shared, woken one at a time): a killed child takes no accept queue with
        it, only its own sessions.
Rule 3: a child that dies is started again after a delay that grows while it keeps dying.
Rule 4: new settings are in force once a successor has prepared all that may fail with them and those who reload in
        place have taken them over; until then nothing has changed, and where it never comes to that nothing does.
Rule 5: where a child gives up before all serve for the first time, the start has failed, as that of one process would.
Signals: TERM or INT drains and ends with 0, a second one ends at once; HUP replaces the receivers while the old ones
let their sessions end, and is passed on to children that reload in place.
Thread: the main thread only. POSIX only.
Not here: what a child does (build.py), what it tells (ward.py), listeners (net/listeners.py).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from smtpd_core.app.ward import END, LEAVE, Ward

log = logging.getLogger(__name__)

# A child that lived for a minute is not one that keeps dying.
_FIRST_DELAY, _LONGEST_DELAY, _LIVED = 0.1, 30.0, 60.0


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


class Stage(Enum):
    """Where a reload is."""

    NONE = "none is under way"
    PREPARING = "successors prepare, the first of them decides"
    RELOADING = "those who reload in place do so"


class _Child:
    def __init__(self, role: Role, process: int, told: int, now: float, generation: int) -> None:
        self.role = role
        self.process = process
        self.told = told
        self.since = now
        self.generation = generation  # the number of the reload that began it, 0 for none
        self.is_prepared = False
        self.serves = False
        self.is_reloading = False
        self.why = ""
        self.is_leaving = False
        self.replaces: _Child | None = None


def _lines(child: _Child) -> list[str]:
    """What it told since the last time."""
    try:
        return os.read(child.told, 65_536).decode("utf-8", "replace").splitlines()
    except BlockingIOError:
        return []


class Master:
    """See the module. `may_reload` is asked at HUP, before anything is touched: False keeps the old children.
    `took_over` is called when the new settings are in force.

    `tell` hears the states of sd_notify: "READY=1" once all children serve, "RELOADING=1", "STOPPING=1".
    `patience`: seconds for children to drain before they are killed. `beat`: seconds between "WATCHDOG=1", 0 for never.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        may_reload: Callable[[], bool] = lambda: True,
        took_over: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda state: None,
        patience: float = 40.0,
        beat: float = 0.0,
    ) -> None:
        self._roles = list(roles)
        self._may_reload = may_reload
        self._took_over = took_over
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
        self._has_failed = False
        self._stage = Stage.NONE
        self._generation = self._in_force = 0
        self._is_asked = False  # for a reload, which waits until one that nearly is over is

    def run(self) -> int:
        """Fork, watch, and return the exit code after TERM or INT."""
        signals = {*END, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, LEAVE}
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._lifeline, self._life = os.pipe()
        for role in self._roles:
            self._start(role)
        while self._children or (self._due and self._ends_at is None):
            arrived = self._wait(signals)
            if arrived in END:
                if self._ends_at is not None:
                    self._kill_all(signal.SIGKILL)
                    return 1
                self._begin_end()
            elif arrived == signal.SIGHUP:
                self._is_asked = True
            self._hear()
            self._bury()
            if self._is_asked and self._stage is not Stage.RELOADING and self._ends_at is None:
                # Whoever reloads in place answers one HUP after the other, and does not say which.
                self._is_asked = False
                self._reload()
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
        log.info("stopped")
        return 1 if self._has_failed else 0

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

    def _hear(self) -> None:
        for child in list(self._children.values()):
            for line in _lines(child):
                self._heed(child, line)
        if not self._is_announced and len(self._children) == len(self._roles):
            self._is_announced = all(child.serves for child in self._children.values())
            if self._is_announced:
                self._tell("READY=1")

    def _heed(self, child: _Child, line: str) -> None:
        """What a child told."""
        word, _, rest = line.partition(" ")
        if word in ("prepared", "serves"):
            child.is_prepared, child.serves = True, word == "serves"
            if self._stage is Stage.PREPARING and child.generation == self._generation:
                self._pass_on()
            elif self._stage is Stage.NONE and not child.serves and not child.is_leaving:
                os.kill(child.process, signal.SIGHUP)
            if child.serves:
                self._settle_in(child)
        elif word == "says":
            self._tell(rest.replace("\t", "\n"))
        elif child.is_reloading:
            child.is_reloading = False
            if word == "failed":
                self._give_up()
            elif self._stage is Stage.RELOADING and not any(one.is_reloading for one in self._children.values()):
                self._take_over()
        else:
            child.why = rest

    def _settle_in(self, child: _Child) -> None:
        old, child.replaces = child.replaces, None
        if old is not None and old.process in self._children:
            self._let_go(old)
        if not child.is_leaving:
            self._tell_reloaded()

    def _let_go(self, child: _Child) -> None:
        """One that still prepares serves nobody, and may be held up for long."""
        child.is_leaving = True
        child.replaces = None
        os.kill(child.process, LEAVE if child.is_prepared else signal.SIGKILL)

    def _tell_reloaded(self) -> None:
        is_over = self._stage is Stage.NONE and not any(other.replaces for other in self._children.values())
        if self._is_announced and is_over:
            self._tell("READY=1")

    # -- a reload

    def _reload(self) -> None:
        """New receivers first; an old one leaves when its successor serves, so that somebody always accepts."""
        if not self._may_reload():
            log.error("the new settings are not usable; everything stays as it was")
            return
        self._tell("RELOADING=1")
        self._generation += 1
        self._stage = Stage.PREPARING
        replaced = []
        for child in list(self._children.values()):
            child.is_reloading = False
            if child.is_leaving or child.role.reloads_in_place:
                continue
            if child.replaces is not None:
                self._let_go(child)  # it began with settings that are old by now; there is one successor at a time
            else:
                replaced.append(child)
        # Whoever waits to be started again has nothing to keep.
        due = [entry for entry in self._due if not entry[1].reloads_in_place]
        self._due = [entry for entry in self._due if entry not in due]
        for child in replaced:
            self._start(child.role, replaces=child, generation=self._generation)
        for _, role in due:
            if not any(child.role is role for child in replaced):
                self._start(role, generation=self._generation)
        if not replaced and not due:
            self._pass_on()

    def _pass_on(self) -> None:
        """Somebody can serve with the new settings: to those who reload in place."""
        self._stage = Stage.RELOADING
        for child in self._children.values():
            if child.role.reloads_in_place and not child.is_leaving:
                child.is_reloading = True
                os.kill(child.process, signal.SIGHUP)
        if not any(child.is_reloading for child in self._children.values()):
            self._take_over()

    def _take_over(self) -> None:
        """The new settings are in force: whoever is prepared serves, whoever is not yet will."""
        self._stage = Stage.NONE
        self._in_force = self._generation
        self._took_over()
        for child in self._children.values():
            if child.is_prepared and not child.serves and not child.is_leaving:
                os.kill(child.process, signal.SIGHUP)
        self._tell_reloaded()

    def _give_up(self) -> None:
        """Nobody can serve with the new settings, or those who reload in place can't: all is as it was."""
        if self._stage is Stage.NONE:
            return
        self._stage = Stage.NONE
        log.error("the new settings can't be served; everything stays as it was")
        for child in list(self._children.values()):
            child.is_reloading = False
            if child.generation == self._generation and not child.serves and not child.is_leaving:
                if child.replaces is None:
                    self._due.append((time.monotonic(), child.role))  # the one that it was to replace is gone
                self._let_go(child)
        self._tell_reloaded()

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
            for line in _lines(child):
                child.why = line.removeprefix("failed ")
            os.close(child.told)
            if child.is_leaving or self._ends_at is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if not self._is_announced and code > 0 and not child.generation:
                self._fail(child, code)
                continue
            if child.replaces is not None:
                self._miss_successor(child, code)
                continue
            successor = next((other for other in self._children.values() if other.replaces is child), None)
            if successor is not None:
                log.error("%s (process %d) ended with %d; its successor starts", child.role.name, process, code)
                successor.replaces = None
                continue
            self._plan_again(child, code)
            self._miss(child)

    def _miss_successor(self, child: _Child, code: int) -> None:
        """Where the others serve with the new settings already, so must this one, and it is tried again."""
        why = child.why or f"it ended with {code}"
        log.error("%s: the successor can't serve, the old one stays: %s", child.role.name, why)
        if self._stage is Stage.NONE and child.generation in (0, self._in_force):
            self._plan_again(child, code)
        self._miss(child)
        self._tell_reloaded()

    def _fail(self, child: _Child, code: int) -> None:
        """Rule 5: it could not begin, and would not the next time."""
        log.critical(
            "%s (process %d) ended with %d before all served, so the start ends", child.role.name, child.process, code
        )
        self._has_failed = True
        self._begin_end()

    def _miss(self, child: _Child) -> None:
        """It died while a reload was under way, which may have waited for it alone."""
        is_last = self._stage is Stage.PREPARING and not any(
            other.generation == self._generation and not other.is_leaving for other in self._children.values()
        )
        if is_last or child.is_reloading:
            self._give_up()

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
            role = entry[1]
            old = next((one for one in self._children.values() if one.role is role and not one.is_leaving), None)
            self._start(role, replaces=old)

    # -- children

    def _start(self, role: Role, replaces: _Child | None = None, generation: int = 0) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            os.close(reader)
            self._be_child(role, Ward(role.name, writer, self._lifeline, is_successor=generation > 0))
        os.close(writer)
        child = _Child(role, process, reader, time.monotonic(), generation)
        child.replaces = replaces
        self._children[process] = child

    def _be_child(self, role: Role, ward: Ward) -> None:
        """Never returns: what the master has on its stack and in its atexit is not ours."""
        code = 1
        try:
            os.close(self._life)
            for other in self._children.values():
                os.close(other.told)
            if role.processor is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, {role.processor})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGUSR1})
            code = role.run(ward)
        except BaseException:
            log.critical("%s failed", role.name, exc_info=True)
        finally:
            try:
                logging.shutdown()
                sys.stdout.flush()  # standard error is written line by line; a log that is stuck in it has its lock
            finally:
                os._exit(code)

    def _end_child(self, child: _Child) -> None:
        child.is_leaving = True
        prepares = child.generation > 0 and not child.is_prepared
        os.kill(child.process, signal.SIGKILL if prepares else signal.SIGTERM)

    def _begin_end(self) -> None:
        self._tell("STOPPING=1")
        log.info("stopping: %d processes may finish", len(self._children))
        self._ends_at = time.monotonic() + self.patience
        for child in self._children.values():
            self._end_child(child)

    def _kill_all(self, number: signal.Signals) -> None:
        for child in self._children.values():
            os.kill(child.process, number)
        for process in list(self._children):
            os.waitpid(process, 0)
        self._children.clear()
