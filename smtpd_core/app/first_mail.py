"""What a newcomer is told: how to send a first mail, and where it will lie."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from relay.route import filled
from smtpd_core.app.routing import Routing
from smtpd_core.app.settings import Settings
from smtpd_core.wire.envelope import Recipient


def how_to_send(settings: Settings, addresses: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Lines for the terminal. `addresses` are (service, HOST:PORT) of the listeners."""
    server = next((_reachable(text) for service, text in addresses if service == "mx" and ":" in text), "")
    if not server or server.startswith("unix:"):
        return
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    to = _somebody(settings)
    python = _python()
    yield ""
    yield "send a first mail with one of:"
    yield f"  {python} -m smtpd_core send --to {to} --server {server}"
    yield f"  swaks --to {to} --server {server}"
    yield (
        f"  {python} -c \"import smtplib; smtplib.SMTP('{host.strip('[]')}', {port})"
        f".sendmail('me@example.test', ['{to}'], 'Subject: hello\\n\\nhello')\""
    )
    yield from _where(settings, to)
    yield ""


def _python() -> str:
    """This interpreter as it can be typed in any directory."""
    return shlex.quote(sys.executable)


def _reachable(text: str) -> str:
    return text.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")


def _somebody(settings: Settings) -> str:
    for name, domain in settings.domains.items():
        user = next((one for one in domain.users if one not in ("any", "accounts")), "postmaster")
        return f"{user}@{'example.test' if name == '*' else name}"
    return "you@example.test"


def _where(settings: Settings, to: str) -> Iterator[str]:
    try:
        routing = Routing(settings, lambda user: True)
    except (ValueError, OSError):
        return  # an aliases file changed since the start read it; the next reload says what is wrong with it
    for stop in routing.routes.stops_for([Recipient(to)]):
        scheme, _, where = stop.destination.partition(":")
        if scheme == "maildir":
            path = Path(filled(where, *routing.mailbox(stop.recipient.address))).absolute()
            yield f"it will lie in {path / 'new'}"
        else:
            yield f"it will go on to {stop.destination}"
