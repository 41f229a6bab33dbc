"""The program's own verbs: `server.commands` looks up, adds, replaces, wraps and removes commands.

Order and phases still hold: a verb is heard where `legal` says, its reply waits its turn in a pipelined group, and a
wrapped verb goes on to the built-in step where the function accepts.
Thread: changed from any thread, for connections from then on; the functions run as hooks of their session.
Not here: the table that is looked at for each line (wire/command_table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smtpd_core.server.hooks import Hook, check_shape
from smtpd_core.threads import HookMeter
from smtpd_core.wire.command_table import CustomVerb
from smtpd_core.wire.replies import Reply, ok_250
from smtpd_core.wire.rules import EVERYWHERE, RULES, Gate, Phase
from smtpd_core.wire.settings import ProtocolSettings

_PHASES = {
    "connected": Phase.CONNECTED,
    "ready": Phase.READY,
    "sender": Phase.SENDER,
    "recipients": Phase.RECIPIENTS,
}


class CommandTable:
    """The verbs, built in and added. A function is called as function(session, argument) and returns a verdict."""

    def __init__(self, budget: float, changed: Callable[[], None]) -> None:
        self.budget = budget
        self._changed = changed
        self._custom: dict[str, CustomVerb] = {}
        self.functions: dict[str, Hook] = {}

    # -- looking

    @property
    def custom(self) -> tuple[CustomVerb, ...]:
        return tuple(self._custom.values())

    def __iter__(self) -> Iterator[str]:
        """Every verb that is known, removed ones not counted."""
        removed = {verb for verb, row in self._custom.items() if row.how == "remove"}
        built_in = [rule.verb for rule in RULES if rule.verb not in removed]
        return iter(built_in + [verb for verb, row in self._custom.items() if row.how == "add"])

    def __contains__(self, verb: object) -> bool:
        return isinstance(verb, str) and verb.upper() in set(self)

    def look_up(self, verb: str) -> Callable[..., Any] | None:
        """The program's function behind a verb, None for a built-in one. KeyError for no verb."""
        verb = verb.upper()
        if verb not in set(self):
            raise KeyError(f"there is no verb {verb}")
        hook = self.functions.get(verb)
        return hook.function if hook is not None else None

    # -- changing

    def add(
        self,
        verb: str,
        function: Callable[..., Any],
        *,
        legal: Iterable[str] | None = None,
        reply: Reply = ok_250,
        needs_tls: bool = False,
        needs_login: bool = False,
    ) -> None:
        """A new verb. `legal`: the session states in which it is heard (connected, ready, sender, recipients; default
        all); `reply` is said where the function returns None; `needs_tls`, `needs_login`: 530 before, on listeners
        that require them. ValueError for a verb that is there already or can't be one."""
        self._place("add", verb, function, legal, reply, needs_tls, needs_login)

    def replace(
        self,
        verb: str,
        function: Callable[..., Any],
        *,
        legal: Iterable[str] | None = None,
        reply: Reply = ok_250,
        needs_tls: bool = False,
        needs_login: bool = False,
    ) -> None:
        """The function in place of the built-in step. Verbs that change what is read next can only be wrapped."""
        self._place("replace", verb, function, legal, reply, needs_tls, needs_login)

    def wrap(self, verb: str, function: Callable[..., Any]) -> None:
        """The function first; where it accepts, the built-in step follows. A refusal ends the command there."""
        self._place("wrap", verb, function, None, ok_250, False, False)

    def remove(self, verb: str) -> None:
        """A built-in verb is answered 502 from now on; an added, replaced or wrapped one is as it was before."""
        verb = verb.upper()
        before = self._custom.pop(verb, None)
        if before is None:
            if verb not in {rule.verb for rule in RULES}:
                raise KeyError(f"there is no verb {verb}")
            self._custom[verb] = CustomVerb(verb, "remove")
        self._try(verb, before)
        self.functions.pop(verb, None)

    def _place(
        self,
        how: str,
        verb: str,
        function: Callable[..., Any],
        legal: Iterable[str] | None,
        reply: Reply,
        needs_tls: bool,
        needs_login: bool,
    ) -> None:
        verb = verb.upper()
        check_shape(f"verb {verb}", ("session", "argument"), function)
        if not isinstance(reply, Reply):
            raise TypeError(f"verb {verb}: reply = {reply!r}: a Reply is due")
        gates = [Gate.TLS_IF_REQUIRED] if needs_tls else []
        if needs_login:
            gates.append(Gate.LOGIN_IF_REQUIRED)
        row = CustomVerb(verb, how, _phases(legal), tuple(gates), reply)
        if how == "add" and verb in self._custom:
            raise ValueError(f"verb {verb}: it is there already; replace or remove it first")
        self._check_place(row)
        before, self._custom[verb] = self._custom.get(verb), row
        function_before = self.functions.get(verb)
        self.functions[verb] = Hook(verb, function, HookMeter(f"command {verb}", self.budget))
        try:
            self._try(verb, before)
        except ValueError:
            if function_before is None:
                del self.functions[verb]
            else:
                self.functions[verb] = function_before
            raise

    def _check_place(self, row: CustomVerb) -> None:
        """Whether the row fits the verbs that there are; what a listener's own table says comes with start()."""
        ProtocolSettings(commands=(row,), expn=True, etrn=True, starttls=True)

    def _try(self, verb: str, before: CustomVerb | None) -> None:
        """Tell the server, which makes its dialects anew; where they can't be made, all is as before."""
        try:
            self._changed()
        except ValueError:
            if before is None:
                self._custom.pop(verb, None)
            else:
                self._custom[verb] = before
            raise


def _phases(names: Iterable[str] | None) -> frozenset[Phase]:
    if names is None:
        return EVERYWHERE
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in _PHASES]
    if unknown:
        raise ValueError(f"legal: {unknown[0]!r} is none of {', '.join(_PHASES)}")
    return frozenset(_PHASES[name] for name in names)
