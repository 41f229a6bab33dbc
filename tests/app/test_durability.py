"""A listener's durability decides what its 250 means, and the reply names a level below the usual."""

from __future__ import annotations

import pytest

from relay.spool import Durability
from smtpd_core.app.relaying import durability_of
from smtpd_core.app.settings import Listener, Settings
from smtpd_core.wire.envelope import Envelope, Origin, Recipient


@pytest.mark.parametrize(
    ("listener", "level"),
    [
        ("mx 127.0.0.1:25", Durability.SYNCED),
        ("mx [2001:db8::1]:24", Durability.WRITTEN),
        ("mx 127.0.0.1:4711", Durability.WRITTEN),
        ("submission 127.0.0.1:4711", Durability.SYNCED),
        ("lmtp unix:/run/lmtp", Durability.MEMORY),
        ("", Durability.SYNCED),
    ],
)
def test_the_level_is_that_of_the_listener_which_took_the_message(listener: str, level: Durability) -> None:
    settings = Settings(
        listener=(
            Listener(bind="127.0.0.1:25"),
            Listener(bind="*:24", durability="written"),
            Listener(bind="127.0.0.1:0", durability="written"),
            Listener(bind="unix:/run/lmtp", service="lmtp", durability="memory"),
        )
    )
    envelope = Envelope("a@b.test", (Recipient("c@d.test"),), origin=Origin(listener=listener))
    assert durability_of(settings)(envelope) is level
