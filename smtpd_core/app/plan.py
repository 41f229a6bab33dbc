"""What a configuration means, in words: who may send what to where, over which listener, and what becomes of it.

Thread: any.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smtpd_core.app.settings import Domain, Listener, Settings
from smtpd_core.app.values import say_duration, say_size
from smtpd_core.app.ways import level_of, split, whole_relay

_SERVICE = {
    "mx": "mail for our domains from anybody",
    "submission": "mail from our users",
    "lmtp": "mail for our domains from trusted programs, with an answer for each recipient",
}
_TLS = {
    "none": "without TLS",
    "implicit": "under TLS from the first byte",
    "explicit-allow": "with STARTTLS where the client wants it",
    "explicit-require": "only after STARTTLS",
}
_AUTH = {"off": "nobody logs in", "offered": "users may log in", "required": "only logged-in users send"}


def explain(settings: Settings) -> list[str]:
    """The plan, a line each."""
    return [*_listeners(settings), *_domains(settings), *_others(settings), *_keeping(settings), *_limits(settings)]


def _listeners(settings: Settings) -> Iterator[str]:
    for listener in settings.listener:
        what = f"{_SERVICE[listener.service]}, {_TLS[listener.tls]}; {_login(listener)}"
        yield f"{listener.service} on {listener.bind}: {what}."


def _login(listener: Listener) -> str:
    words = _AUTH[listener.auth]
    if listener.proxy_protocol:
        words += f"; a PROXY header comes first, believed from {', '.join(listener.proxy_from)}"
    return words


def _domains(settings: Settings) -> Iterator[str]:
    mail = Path(settings.state) / "mail"
    if not settings.domains and not settings.relay.enabled:
        yield f"Any recipient, from this machine only: Maildir {mail}."
        yield "Strangers are refused, nothing leaves the machine."
    for name, domain in settings.domains.items():
        what = "Every other domain" if name == "*" else name
        yield f"{what}: {_users(domain)}; to {domain.deliver or f'maildir:{mail}/{{domain}}/{{user}}'}."


def _users(domain: Domain) -> str:
    if "any" in domain.users:
        words = "every local part"
    elif "accounts" in domain.users:
        words = "every account of the store"
    else:
        words = f"{len(domain.users)} named users"
    if domain.aliases or domain.aliases_file:
        words += f", {len(domain.aliases)} aliases" + (
            f" and those of {domain.aliases_file}" if domain.aliases_file else ""
        )
    return words + (f", all else to {domain.catch_all}" if domain.catch_all else "")


def _others(settings: Settings) -> Iterator[str]:
    relay = settings.relay
    if not relay.enabled:
        if settings.domains:
            yield "Mail for other domains is refused."
        return
    who = [f"the networks {', '.join(relay.allow_networks)}"] if relay.allow_networks else []
    if any(listener.auth != "off" for listener in settings.listener):
        who.insert(0, "logged-in users")
    yield f"Mail for other domains: taken from {' and '.join(who) or 'nobody'}; {_way(settings)}."
    for name, route in relay.route.items():
        hop = route.smarthost or relay.smarthost or f"its mail servers, port {route.port or relay.port}"
        yield f"  except {name}: by {hop} (TLS: {level_of(route)})."
    yield (
        f"Tried again after {', '.join(say_duration(wait) for wait in relay.retry)} (the last repeats); "
        f"given up after {say_duration(relay.expire)}."
    )


def _way(settings: Settings) -> str:
    relay = settings.relay
    if relay.smarthost:
        level = level_of(whole_relay(relay))
        return f"sent on through {' or else '.join(split(relay.smarthost))} (TLS: {level})"
    return f"sent on to the domain's own mail servers (MX, port {relay.port}), with TLS where they offer it"


def _keeping(settings: Settings) -> Iterator[str]:
    state = Path(settings.state)
    tls = settings.tls.certificate or f"self-signed, in {state / 'tls'}, made at first start"
    yield f"Certificate: {tls}; TLS {settings.tls.minimum} or newer."
    if settings.accounts.store:
        yield f"Accounts: {settings.accounts.store.partition(':')[0]} store."
    yield f"A 250 means that the message is synced to {state / 'spool'}; the queue is {state / 'queue.db'}."


def _limits(settings: Settings) -> Iterator[str]:
    limits, threads = settings.limits, settings.threads
    yield (
        f"Messages up to {say_size(limits.max_message_size) if limits.max_message_size else 'any size'}, "
        f"{limits.max_recipients} recipients; {limits.max_connections} connections, "
        f"{limits.max_connections_per_source} of one address; {threads.min} to {threads.max} threads."
    )
    if threads.processes > 1:
        share = -(-limits.max_connections // threads.processes)
        source = -(-limits.max_connections_per_source // threads.processes)
        yield (
            f"{threads.processes} receiving processes, each with its share of the limits: "
            f"{share} connections, {source} of one address."
        )
    if settings.metrics.bind:
        yield f"Metrics: http://{settings.metrics.bind}/metrics, /healthz and /readyz."
