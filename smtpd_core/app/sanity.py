"""What can't be combined, and what can't work on this machine: found before anything is bound.

`faults` are reasons to refuse the start; `warnings` are said and started with. Each begins with its key.
Thread: any. Looks at files and directories, changes nothing.
Not here: types and spellings (values.py, tables.py), addresses (endpoint.py).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator

from smtpd_core.accounts import ntlm
from smtpd_core.accounts.extras import ExtraMissing, needed
from smtpd_core.app import ways
from smtpd_core.app.endpoint import bad_address, bad_bind, is_host_name
from smtpd_core.app.settings import Accounts, Listener, Settings
from smtpd_core.app.surroundings import process, state, unreadable
from smtpd_core.app.values import nearest
from smtpd_core.app.ways import split
from smtpd_core.wire.extensions import EXTENSIONS
from smtpd_core.wire.sasl.mechanisms import MECHANISMS

LOOPBACK = ("127.0.0.0/8", "::1/128")

# NTLM is a row that an extra brings, so the core's table does not have it.
NAMES = (*MECHANISMS, ntlm.NAME)

AGENTS = ("maildir", "mbox", "lmtp", "pipe")

Fault = tuple[str, str]


def faults(settings: Settings) -> list[str]:
    """Reasons to refuse the start, "key: reason"."""
    return [f"{key}: {reason}" for rule in _RULES for key, reason in rule(settings)]


def warnings(settings: Settings) -> list[str]:
    """What works and is probably not meant."""
    found = []
    for n, listener in enumerate(settings.listener, 1):
        if listener.service == "submission" and listener.auth != "required":
            found.append(f"listener[{n}].auth: a submission listener without required logins takes mail from anybody")
        if listener.service == "mx" and listener.tls == "explicit-require":
            found.append(f"listener[{n}].tls: servers without STARTTLS can't send mail to an mx that requires it")
    if settings.domains and not settings.hostname:
        found.append("hostname: not set, so the system's name is told to other servers")
    if settings.tls.minimum in ("1.0", "1.1"):
        found.append(f"tls.minimum: TLS {settings.tls.minimum} is broken and serves only very old clients")
    found += _doubtful_logins(settings)
    if settings.metrics.bind:
        try:
            needed("prometheus_client", extra="daemon", purpose="/metrics")
        except ExtraMissing as missing:
            found.append(f"metrics.bind: {missing}; /healthz and /readyz do without")
    return found


def _doubtful_logins(settings: Settings) -> Iterator[str]:
    accounts = settings.accounts
    offers = [accounts.mechanisms, *(listener.mechanisms for listener in settings.listener)]
    wanted = {name.upper() for names in offers for name in names}
    if accounts.ntlm_version_1 and ntlm.NAME in wanted:
        yield (
            "accounts.ntlm_version_1: the first version of NTLM is broken: who hears one log-in, or plays the server in"
            " one, works out the password's hash within hours and logs in with it; set it only for clients that know"
            " no better"
        )
    elif accounts.ntlm_version_1:
        yield "accounts.ntlm_version_1: counts for nothing, since no mechanisms name NTLM"


def _counts(settings: Settings) -> Iterator[Fault]:
    threads, limits = settings.threads, settings.limits
    if threads.max < 1:
        yield "threads.max", "at least one thread is needed"
    if threads.min > threads.max:
        yield "threads.min", f"{threads.min} is more than threads.max = {threads.max}"
    if threads.max > 4096:
        yield "threads.max", f"{threads.max} threads are more than a system carries; idle connections need none"
    if not 1 <= threads.processes <= 256:
        yield "threads.processes", "expected 1 to 256"
    if limits.max_recipients < 100:
        yield "limits.max_recipients", "RFC 5321 4.5.3.1.8 asks for at least 100"
    if limits.max_errors < 1:
        yield "limits.max_errors", "at least one error must be allowed"
    if settings.relay.enabled and not settings.relay.retry:
        yield "relay.retry", "at least one wait is needed"
    if any(wait < 1 for wait in settings.relay.retry):
        yield "relay.retry", "a wait of less than a second is an attack on the next hop"
    if settings.relay.concurrency < 1:
        yield "relay.concurrency", "at least one connection is needed"
    if not 1 <= settings.relay.connections <= 1024:
        yield "relay.connections", "expected 1 to 1024: each is a thread, with three more for slow destinations"
    for key, port in (("relay.port", settings.relay.port),):
        if not 1 <= port <= 65_535:
            yield key, f"{port} is no port"


def _names(settings: Settings) -> Iterator[Fault]:
    if settings.hostname and not is_host_name(settings.hostname):
        yield "hostname", f"{settings.hostname!r} is no host name"
    try:
        if not 0 <= int(settings.umask, 8) <= 0o777:
            raise ValueError
    except ValueError:
        yield "umask", f"{settings.umask!r} is no octal number like 077"
    for name in settings.domains:
        if name != "*" and not is_host_name(name):
            yield f'domains."{name}"', "no domain name"
    if not settings.state:
        yield "state", "a directory is needed"


def _protocol(settings: Settings) -> Iterator[Fault]:
    offers = [("accounts.mechanisms", settings.accounts.mechanisms)]
    offers += [(f"listener[{n}].mechanisms", one.mechanisms) for n, one in enumerate(settings.listener, 1)]
    for key, names in offers:
        for name in names:
            if name.upper() not in NAMES:
                yield key, f"{name!r} is none of {', '.join(NAMES)}{nearest(name.upper(), NAMES)}"
    known = [one.keyword for one in EXTENSIONS]
    lists = [("limits.without", settings.limits.without)]
    lists += [(f"listener[{n}].without", one.without) for n, one in enumerate(settings.listener, 1)]
    for key, names in lists:
        for name in names:
            if name.upper() not in known:
                yield key, f"{name!r} is no extension that could be left out{nearest(name.upper(), known)}"


def _networks(settings: Settings) -> Iterator[Fault]:
    lists = [
        ("relay.allow_networks", settings.relay.allow_networks),
        ("guard.allow", settings.guard.allow),
        ("guard.block", settings.guard.block),
        ("guard.exempt", settings.guard.exempt),
    ]
    for n, listener in enumerate(settings.listener, 1):
        lists.append((f"listener[{n}].proxy_from", listener.proxy_from))
        lists.append((f"listener[{n}].xclient_from", listener.xclient_from))
    for key, texts in lists:
        for text in texts:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                yield key, f"{text!r} is no network like 192.0.2.0/24 or 2001:db8::/32"


def _open_relay(settings: Settings) -> Iterator[Fault]:
    for text in settings.relay.allow_networks:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        # A /7 or a /15 is more of the Internet than anybody's own network.
        if network.prefixlen < (8 if network.version == 4 else 16):
            yield "relay.allow_networks", f"{text} would make this an open relay; name your own networks"


def _listeners(settings: Settings) -> Iterator[Fault]:
    if not settings.listener:
        yield "listener", "no [[listener]] is given, so nobody could connect"
    seen: dict[str, int] = {}
    for n, listener in enumerate(settings.listener, 1):
        key = f"listener[{n}]"
        yield from ((f"{key}.{name}", reason) for name, reason in _listener(listener, settings))
        if listener.bind in seen and not listener.bind.endswith(":0"):
            yield f"{key}.bind", f"{listener.bind} is taken by listener[{seen[listener.bind]}] already"
        seen[listener.bind] = n


def _listener(listener: Listener, settings: Settings) -> Iterator[Fault]:
    reason = bad_bind(listener.bind)
    if reason:
        yield "bind", reason
    if listener.auth != "off" and not settings.accounts.store:
        yield "auth", f"{listener.auth} needs [accounts] store"
    if (
        listener.auth == "required"
        and listener.tls == "none"
        and not _can_log_in_without_tls(listener, settings.accounts)
    ):
        yield (
            "auth",
            'required with tls = "none": passwords would travel in the clear, so nobody could log in; set tls,'
            ' or accounts.mechanisms to those that show none, as ["SCRAM-SHA-256"]',
        )
    if listener.auth == "required" and listener.service == "mx":
        yield "auth", "an mx listener takes mail from servers, which have no login; use a submission listener"
    if listener.service == "lmtp" and listener.bind.rpartition(":")[2] == "25":
        yield "service", "LMTP must not be offered on port 25 (RFC 2033 5)"


def _can_log_in_without_tls(listener: Listener, accounts: Accounts) -> bool:
    """Allowed on purpose, or by a mechanism that shows nothing and was named; the store has its say at the start."""
    names = [name.upper() for name in listener.mechanisms or accounts.mechanisms]
    rows = [MECHANISMS[name] for name in names if name in MECHANISMS]
    return accounts.cleartext_without_tls or any(
        not (row.clear_text or row.needs_binding or row.needs_certificate) for row in rows
    )


def _certificates(settings: Settings) -> Iterator[Fault]:
    tls = settings.tls
    if tls.clients != "no" and not os.path.isfile(tls.client_ca):
        yield "tls.client_ca", f"clients = {tls.clients!r} needs a file with the authorities; {tls.client_ca!r} is none"
    pairs = [("tls", tls.certificate, tls.key)]
    pairs += [(f"tls.host[{n}]", host.certificate, host.key) for n, host in enumerate(tls.host, 1)]
    for key, certificate, private in pairs:
        if private and not certificate:
            yield f"{key}.key", "given without its certificate"
        for name, path in (("certificate", certificate), ("key", private)):
            if path:
                yield from ((f"{key}.{name}", reason) for reason in unreadable(path, settings))
    more = [("tls.password_file", tls.password_file), ("tls.client_crl", tls.client_crl)]
    more += [(f"tls.host[{n}].password_file", host.password_file) for n, host in enumerate(tls.host, 1)]
    for name, path in more:
        if path:
            yield from ((name, reason) for reason in unreadable(path, settings))
    for n, host in enumerate(tls.host, 1):
        if not host.name:
            yield f"tls.host[{n}].name", "the name that clients ask for is missing"
        if not host.certificate:
            yield f"tls.host[{n}].certificate", "missing"


def _domains(settings: Settings) -> Iterator[Fault]:
    for name, domain in settings.domains.items():
        key = f'domains."{name}"'
        agent, _, where = domain.deliver.partition(":")
        if domain.deliver and (agent not in AGENTS or not where):
            yield (
                f"{key}.deliver",
                f"{domain.deliver!r} is none of maildir:PATH, mbox:PATH, lmtp:HOST:PORT, pipe:COMMAND",
            )
        elif agent == "lmtp" and not where.startswith("unix:") and bad_address(where):
            yield f"{key}.deliver", bad_address(where)
        elif agent in ("maildir", "mbox"):
            yield from ((f"{key}.deliver", reason) for reason in _bad_template(where))
        if "accounts" in domain.users and not settings.accounts.store:
            yield f"{key}.users", '"accounts" needs [accounts] store'
        if domain.aliases_file:
            yield from ((f"{key}.aliases_file", reason) for reason in unreadable(domain.aliases_file, settings))
        for alias, targets in domain.aliases.items():
            yield from ((f"{key}.aliases.{alias}", reason) for reason in map(bad_target, targets) if reason)
        if domain.catch_all and (reason := bad_target(domain.catch_all)):
            yield f"{key}.catch_all", reason
        if len(domain.plus) > 1:
            yield f"{key}.plus", f"{domain.plus!r} is more than one character"


def bad_target(text: str) -> str:
    """What is wrong with the address that an alias stands for, or ""."""
    if not text or text.startswith(("|", "/", ":")) or any(c.isspace() for c in text):
        return f"{text!r} is no address; commands and files are [domains] deliver"
    return ""


def _bad_template(where: str) -> Iterator[str]:
    left = where.replace("{user}", "").replace("{domain}", "")
    if "{" in left or "}" in left:
        yield f"{where!r}: only {{user}} and {{domain}} are filled in"


def _relay(settings: Settings) -> Iterator[Fault]:
    relay = settings.relay
    addresses = [("relay.smarthost", text) for text in split(relay.smarthost)]
    addresses += [
        (f'relay.route."{name}".smarthost', text) for name, r in relay.route.items() for text in split(r.smarthost)
    ]
    for key, text in addresses:
        reason = bad_address(text)
        if reason:
            yield key, reason
    if relay.dns_server:
        text = relay.dns_server if ":" in relay.dns_server else f"{relay.dns_server}:53"
        if reason := bad_address(text):
            yield "relay.dns_server", reason
    yield from ways.faults(settings)


def _metrics(settings: Settings) -> Iterator[Fault]:
    bind = settings.metrics.bind
    if bind and (reason := bad_address(bind, port_zero=True)):
        yield "metrics.bind", reason
    elif bind and bind.rpartition(":")[0].strip("[]") not in ("127.0.0.1", "::1", "localhost"):
        yield "metrics.bind", f"{bind}: figures are for this machine; name a loopback address"


def _spool(settings: Settings) -> Iterator[Fault]:
    spool = settings.spool
    if spool.limit < settings.limits.max_message_size:
        yield "spool.limit", f"{spool.limit} bytes hold no message of limits.max_message_size"
    if spool.free_floor < 0:
        yield "spool.free_floor", "at least 0"
    if not 0 <= spool.resend_window <= 600:
        yield "spool.resend_window", "0 to 600 seconds; later copies are not remembered"


_RULES: tuple[Callable[[Settings], Iterator[Fault]], ...] = (
    _names,
    _counts,
    _listeners,
    _protocol,
    _networks,
    _open_relay,
    _certificates,
    _domains,
    _relay,
    _metrics,
    _spool,
    state,
    process,
)
