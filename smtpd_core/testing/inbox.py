"""What the server has accepted so far, with waiting instead of sleeping.

Thread: deliver() from the server's threads, all else from any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from smtpd_core.testing.letter import Letter
from smtpd_core.testing.patterns import fits
from smtpd_core.threads import Condition

# How long wait_for waits where the test does not say. Mail on loopback takes milliseconds.
PATIENCE = 5.0


class Filter(NamedTuple):
    """What a letter has to match, by patterns (`*@example.test`). None matches all; a header that is missing is only
    like ""."""

    to: str | None = None
    sender: str | None = None
    subject: str | None = None
    headers: dict[str, str] | None = None
    user: str | None = None
    hello: str | None = None

    def matches(self, letter: Letter) -> bool:
        return (
            (self.to is None or any(fits(self.to, one) for one in letter.recipients))
            and (self.sender is None or fits(self.sender, letter.sender))
            and (self.subject is None or fits(self.subject, letter.subject))
            and (self.user is None or fits(self.user, letter.envelope.origin.user))
            and (self.hello is None or fits(self.hello, letter.envelope.origin.hello))
            and all(_has(letter, name, pattern) for name, pattern in (self.headers or {}).items())
        )

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items() if value is not None)
        return said or "anything"


def _has(letter: Letter, name: str, pattern: str) -> bool:
    return fits(pattern, letter.header(name)) and (pattern == "" or letter.has(name))


class Inbox:
    """Captured letters in order of acceptance. `settle` is called before an exact answer is given: it returns once
    every connection that was open at the call is closed and handled (or raises after its time-out)."""

    def __init__(self, settle: Callable[[float], None] = lambda timeout: None) -> None:
        self._letters: list[Letter] = []
        self._arrival = Condition()
        self._settle = settle

    def deliver(self, letter: Letter) -> None:
        with self._arrival:
            self._letters.append(letter)
            self._arrival.notify_all()

    def clear(self) -> None:
        with self._arrival:
            self._letters.clear()

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[Letter]:
        with self._arrival:
            return iter(list(self._letters))

    def __getitem__(self, at: int) -> Letter:
        return self._letters[at]

    def filter(
        self,
        to: str | None = None,
        sender: str | None = None,
        subject: str | None = None,
        headers: dict[str, str] | None = None,
        user: str | None = None,
        hello: str | None = None,
    ) -> list[Letter]:
        """The letters here now that match, oldest first."""
        wanted = Filter(to, sender, subject, headers, user, hello)
        return [one for one in self if wanted.matches(one)]

    def wait_for(
        self,
        to: str | None = None,
        sender: str | None = None,
        subject: str | None = None,
        headers: dict[str, str] | None = None,
        user: str | None = None,
        hello: str | None = None,
        count: int = 1,
        timeout: float = PATIENCE,
    ) -> Letter:
        """The `count`-th letter that matches, as soon as it is there.

        Raises AssertionError, listing what did arrive, after `timeout` seconds. ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count {count}: 1 or more is due; for none there is assert_none()")
        wanted = Filter(to, sender, subject, headers, user, hello)
        until = time.monotonic() + timeout
        with self._arrival:
            while True:
                found = [one for one in self._letters if wanted.matches(one)]
                if len(found) >= count:
                    return found[count - 1]
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._arrival.wait(left)
            here = "".join(f"\n  {one!r}" for one in self._letters) or " nothing"
        raise AssertionError(
            f"no letter with {wanted} within {timeout:g} s ({len(found)} of {count}); what arrived:{here}"
        )

    def assert_none(
        self,
        to: str | None = None,
        sender: str | None = None,
        subject: str | None = None,
        timeout: float = PATIENCE,
        *,
        headers: dict[str, str] | None = None,
        user: str | None = None,
        hello: str | None = None,
    ) -> None:
        """No letter matches, and none that was under way when this was called: open connections are awaited first."""
        self._settle(timeout)
        wanted = Filter(to, sender, subject, headers, user, hello)
        found = [one for one in self if wanted.matches(one)]
        if found:
            raise AssertionError(f"expected no letter with {wanted}, but there are {found}")
