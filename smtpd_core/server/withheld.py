"""What is told of an exception that was raised with a secret at hand: its kind and where it came from, not its words.

The text of such an exception may quote the password, or the login of a back end; so may its repr, the exceptions
chained to it, and the variables in the frames of its traceback. None of them is in what is told.
Thread: any.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any


class WithheldError(Exception):
    """Told to on_server_error in place of an exception of on_authenticate, of the account store, or of another part
    that has a secret in hand.

    `kind` is its class, `where` who raised it, `places` the files, lines and functions it came through. `original` is
    the exception itself, for a program that knows what it holds: no repr, traceback or dump of this one's attributes
    has it. To keep it is to keep the secrets in its frames.
    """

    __slots__ = ("_original", "kind", "places", "where")

    def __init__(self, where: str, original: BaseException) -> None:
        self.where = where
        self.kind = type(original)
        self.places = "".join(
            f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n'
            for frame in traceback.extract_tb(original.__traceback__)
        )
        self._original = original
        super().__init__(f"{where} failed: {self.kind.__name__}, its text withheld")

    @property
    def original(self) -> BaseException:
        """The exception as it was raised."""
        return self._original

    def tell(self, listener: Callable[[Any, Any], object], session: object) -> None:
        """Call `listener(session, self)` as if this one were being handled: what writes down the exception at hand,
        as log.exception() does, would else find the original, which the caller is handling."""
        try:
            raise self from None
        except WithheldError:
            self.__context__ = self.__traceback__ = None
            listener(session, self)

    def __reduce__(self) -> str:
        raise TypeError("a WithheldError stays in its process: its original holds secrets")
