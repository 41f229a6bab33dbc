"""The language of faults: what goes wrong on one server, at which stage, for whom, how often.

    faults.on("RCPT", to="*@full.test").reply(452, times=2)
    faults.on("content").close()                      accepted, then cut before the reply
    faults.on("HANDSHAKE").certificate("expired")
    faults.add("RCPT to=*@full.test reply 452 times=2")    the same language as one line of text

In a catcher an address can be the fault: magic("fault.test") makes of a recipient reply-452@fault.test, close@, stall@,
delay-2@, content-reply-554@ or content-close@ what it says.
A plan is deterministic: the first fault in order of writing that matches and is not used up acts, one per stage.
Thread: writing from the test, asking from the server's threads.
Not here: one fault (fault.py), how it is played on a connection (faulty.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from smtpd_core.testing.fault import CONTENT, Fault, unknown_stage
from smtpd_core.testing.fault_text import parse
from smtpd_core.threads import Lock

__all__ = ["Fault", "Faults"]


class Faults:
    """The plan of one server: faults in the order in which they were written."""

    def __init__(self) -> None:
        self._plan: list[Fault] = []
        self._magic = ""
        self._lock = Lock()

    def on(
        self,
        stage: str,
        *,
        to: str | None = None,
        sender: str | None = None,
        user: str | None = None,
        hello: str | None = None,
    ) -> Fault:
        """A fault at this stage, where all patterns given match. What goes wrong is said on the result. ValueError
        where there is no such stage."""
        if why := unknown_stage(stage):
            raise ValueError(f"faults.on({stage!r}): {why}")
        given = {"to": to, "sender": sender, "user": user, "hello": hello}
        fault = Fault(stage.upper(), {key: pattern for key, pattern in given.items() if pattern is not None})
        with self._lock:
            self._plan.append(fault)
        return fault

    def add(self, text: str) -> None:
        """A fault written as text, see parse(), or "magic DOMAIN"."""
        word, _, domain = text.partition(" ")
        if word == "magic":
            self.magic(domain)
            return
        fault = parse(text)
        with self._lock:
            self._plan.append(fault)

    def magic(self, domain: str) -> None:
        """From now on recipients in this domain say themselves what goes wrong. ValueError without a domain."""
        if not domain.strip() or "@" in domain:
            raise ValueError(f"magic {domain!r}: a domain is due, as in 'magic fault.test'")
        with self._lock:
            self._magic = domain.strip().lower()

    def clear(self) -> None:
        with self._lock:
            self._plan.clear()
            self._magic = ""

    @property
    def plan(self) -> list[Fault]:
        """The faults, used up or not."""
        with self._lock:
            return list(self._plan)

    @property
    def idle(self) -> list[Fault]:
        """Those that have not acted: nothing matched them, or too seldom, or one before them was always first."""
        with self._lock:
            return [one for one in self._plan if not one.has_acted]

    def take(self, stage: str, facts: Mapping[str, str]) -> Fault | None:
        """The fault that acts now; counts it."""
        with self._lock:
            for fault in self._plan:
                if fault.hang_up_after is not None or not fault.matches(stage, facts):
                    continue
                fault.seen += 1
                if fault.seen <= fault.after or (fault.times and fault.seen > fault.after + fault.times):
                    continue
                return fault
        return self._of_address(stage, facts.get("to", "")) if self._magic else None

    def _of_address(self, stage: str, to: str) -> Fault | None:
        for address in to.lower().split("\n"):
            local, _, domain = address.rpartition("@")
            if domain == self._magic:
                words = local.split("-")
                at = CONTENT if words[0] == CONTENT.lower() else "RCPT"
                if at == stage:
                    try:
                        return parse(" ".join([at, *words[at == CONTENT :]]))
                    except ValueError:
                        return None  # an address like any other
        return None

    def hang_up_after(self, facts: Mapping[str, str]) -> int | None:
        """Octets of content after which to close, for the transaction that begins now."""
        with self._lock:
            for fault in self._plan:
                if fault.hang_up_after is None or not fault.matches(CONTENT, facts):
                    continue
                fault.seen += 1
                if fault.after < fault.seen and (not fault.times or fault.seen <= fault.after + fault.times):
                    return fault.hang_up_after
        return None
