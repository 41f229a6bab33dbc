"""Every setting of the daemon, once: type, default, unit and meaning stand beside its field.

The loader, the environment, `reference`, --help and the generated page are made from these classes; nothing repeats
them. Durations are seconds, sizes are bytes; in a file they may be written "5m" or "50MiB".
Thread: frozen; a reload makes new ones.
Not here: reading files (load.py), what can't be combined (sanity.py), what becomes of it (build.py).
"""

# ruff: noqa: RUF009 (setting() makes a field, as dataclasses.field does)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS, BYTES, BYTES_PER_SECOND = "seconds", "bytes", "bytes per second"

_PRIVILEGES = "privileges are given up once, for good"


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    one_of: tuple[str, ...] = (),
    restart: str = "",
    secret: bool = False,
) -> Any:
    """One field. `restart`: why a change needs one; a reload names the setting and keeps the old value. `secret`: its
    value may hold a password, and is never shown."""
    metadata = {"meaning": meaning, "unit": unit, "one_of": one_of, "restart": restart, "secret": secret}
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Threads:
    """[threads]"""

    min: int = setting(2, "idle threads kept ready for new requests")
    max: int = setting(32, "requests active at the same time; idle connections need no thread")
    processes: int = setting(
        1,
        "receiving processes; more than 1 adds a master and a process of its own for the relay (POSIX only)",
        restart="the master forks them once",
    )
    pin: bool = setting(
        False, "pin each receiving process to a core of its own", restart="it is pinned when it is forked"
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """[[listener]]"""

    bind: str = setting(
        "127.0.0.1:2525",
        'HOST:PORT, "[::1]:25", "*:25" (IPv4 and IPv6), "unix:PATH", or "fd:N" (inherited)',
        restart="sockets are bound at the start, while low ports may be used",
    )
    service: str = setting(
        "mx",
        "mx takes mail for our domains, submission takes it from users, lmtp answers for each recipient",
        one_of=("mx", "submission", "lmtp"),
    )
    tls: str = setting(
        "explicit-allow",
        "implicit is TLS from the first byte, explicit is STARTTLS, allowed or required",
        one_of=("none", "implicit", "explicit-allow", "explicit-require"),
    )
    auth: str = setting("off", "whether users log in here", one_of=("off", "offered", "required"))
    proxy_protocol: bool = setting(False, "a PROXY header (version 1 or 2) comes first")
    proxy_from: tuple[str, ...] = setting(("127.0.0.0/8", "::1/128"), "networks (CIDR) whose PROXY header is believed")
    xclient_from: tuple[str, ...] = setting((), "networks (CIDR) that may use XCLIENT and XFORWARD")
    without: tuple[str, ...] = setting((), "ESMTP extensions that this listener does not announce")
    mechanisms: tuple[str, ...] = setting((), "SASL mechanisms to offer here, best first; empty: accounts.mechanisms")
    durability: str = setting(
        "synced",
        "what a 250 means: the message survives power loss, only our process (written), or nothing yet (memory)",
        one_of=("synced", "written", "memory"),
    )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """[limits.timeouts]"""

    greeting: float = setting(300.0, "until the client's first command", unit=SECONDS)
    handshake: float = setting(60.0, "for a TLS handshake", unit=SECONDS)
    command: float = setting(300.0, "until the next command", unit=SECONDS)
    data: float = setting(180.0, "between two pieces of content", unit=SECONDS)
    login: float = setting(120.0, "for each step of a login", unit=SECONDS)
    session: float = setting(86_400.0, "for a whole session", unit=SECONDS)
    hook_wait: float = setting(30.0, "in line for a free thread, then 451 4.3.2", unit=SECONDS)
    stop: float = setting(30.0, "for sessions and deliveries under way when the server stops", unit=SECONDS)


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits]"""

    max_message_size: int = setting(50 * 1024 * 1024, "the largest message, announced as SIZE; 0 is none", unit=BYTES)
    max_recipients: int = setting(1000, "recipients of one message; more are answered 452 4.5.3")
    max_connections: int = setting(20_000, "connections in all; more are answered 421 4.3.2")
    max_connections_per_source: int = setting(100, "connections of one address; loopback is exempt")
    max_errors: int = setting(20, "errors of one client, then 421 4.7.0")
    max_received: int = setting(100, "Received lines of a message; more are a loop (RFC 5321 6.3)")
    return_circles: bool = setting(
        True,
        "return mail that was delivered to the same mailbox here before, by its Delivered-To; off for archives that are"
        " sent in again",
        restart="what was delivered is watched from the start on",
    )
    minimum_rate: int = setting(1024, "at which content must come, averaged; 0 is any", unit=BYTES_PER_SECOND)
    rate_window: float = setting(60.0, "over which the rate is averaged", unit=SECONDS)
    hook_budget: float = setting(30.0, "after which a hook that still runs is logged", unit=SECONDS)
    without: tuple[str, ...] = setting((), 'ESMTP extensions that are not announced, as in ["CHUNKING"]')
    bare_lf: str = setting("refuse", "a bare CR or LF in content", one_of=("refuse", "normalise"))
    bare_lf_in_chunks: str = setting("", "the same under BDAT; empty: as bare_lf", one_of=("", "refuse", "normalise"))
    keep_nul: bool = setting(False, "NUL in content is kept instead of being refused")
    strict_lines: bool = setting(False, "lines of content over 998 octets are refused")
    timeouts: Timeouts = setting(Timeouts, "how long to wait")


@dataclass(frozen=True, slots=True)
class Guard:
    """[guard]"""

    allow: tuple[str, ...] = setting((), "networks (CIDR) that no block list concerns")
    block: tuple[str, ...] = setting((), "networks (CIDR) answered 554 5.7.1")
    allow_only: bool = setting(False, "only networks in allow may connect")
    exempt: tuple[str, ...] = setting(("127.0.0.0/8", "::1/128"), "networks (CIDR) that no limit per source concerns")
    max_per_prefix: int = setting(0, "connections of one /24 or /64; 0 is any")
    connections_per_period: int = setting(0, "new connections of one source within a period; 0 is any")
    messages_per_period: int = setting(0, "messages of one source within a period; 0 is any")
    period: float = setting(60.0, "the period", unit=SECONDS)
    login_delay: float = setting(1.0, "after the first failed login; doubles with each", unit=SECONDS)
    lock_out_after: int = setting(10, "failed logins of one user or source within lock_out_period")
    lock_out_period: float = setting(900.0, "how long failures are remembered", unit=SECONDS)


@dataclass(frozen=True, slots=True)
class TlsHost:
    """[[tls.host]]"""

    name: str = setting("", "the name that the client asks for (SNI)")
    certificate: str = setting("", "PEM file with the chain, or PFX")
    key: str = setting("", "PEM file with the key; empty: it is in the certificate's file")
    password_file: str = setting("", "a file whose first line decrypts the key or PFX file; empty: it is not encrypted")


@dataclass(frozen=True, slots=True)
class Tls:
    """[tls]"""

    certificate: str = setting("", "PEM file with the chain, or PFX; empty: self-signed, made at first start")
    key: str = setting("", "PEM file with the key; empty: it is in the certificate's file")
    minimum: str = setting("1.2", "the oldest TLS version taken", one_of=("1.0", "1.1", "1.2", "1.3"))
    password_file: str = setting("", "a file whose first line decrypts the key or PFX file; empty: it is not encrypted")
    host: tuple[TlsHost, ...] = setting((), "further certificates by name (SNI)")
    clients: str = setting(
        "no",
        "client certificates, which AUTH EXTERNAL logs in with; require refuses the handshake without a good one",
        one_of=("no", "ask", "require"),
    )
    client_ca: str = setting("", "PEM file with the authorities that vouch for clients")
    client_crl: str = setting("", "PEM file with the revocation lists of those authorities")


@dataclass(frozen=True, slots=True)
class Accounts:
    """[accounts]"""

    store: str = setting(
        "",
        '"file:users.toml", "sqlite:users.db", "postgresql://...", "mysql://...", "ldap://...", "pam:",'
        ' "introspect:https://..." or "jwks:https://..."; several, separated by " | ", are asked in order',
        secret=True,
    )
    case_insensitive: bool = setting(False, "user names match regardless of case")
    query: str = setting(
        "",
        "SELECT for a table of another program: one parameter :user, columns user_name and password, and as far as"
        " there are any display_name, email, addresses, may_act_as, active",
    )
    kinds: tuple[str, ...] = setting(
        (), "with query: what the stored passwords serve: password, cleartext, scram-sha-1, scram-sha-256, nt-hash"
    )
    mechanisms: tuple[str, ...] = setting(
        (), "SASL mechanisms to offer, best first; empty: all that the store serves, but NTLM and ANONYMOUS"
    )
    ntlm_version_1: bool = setting(
        False, "NTLM also in its first version, for clients that know no other; who hears it can work out the password"
    )
    sender_rule: str = setting(
        "off",
        "submission: may users send as others than the store gives them; warn writes a line, enforce answers 553 5.7.1",
        one_of=("off", "warn", "enforce"),
    )
    cleartext_without_tls: bool = setting(False, "offer PLAIN and LOGIN where the connection is not encrypted")


@dataclass(frozen=True, slots=True)
class Domain:
    """[domains."example.test"]"""

    deliver: str = setting("", 'where its mail goes: "maildir:PATH", "mbox:PATH", "lmtp:HOST:PORT" or "pipe:COMMAND"')
    users: tuple[str, ...] = setting(("any",), '"any", "accounts" (those of the store), or a list of local parts')
    aliases: Mapping[str, tuple[str, ...]] = setting(dict, "local part = one address or a list of them")
    aliases_file: str = setting("", "a file of lines `name: address, address`, read again on reload")
    catch_all: str = setting("", "the address that takes mail for unknown local parts")
    plus: str = setting("+", "what parts a user from a detail, as in ann+lists; empty: nothing does")


@dataclass(frozen=True, slots=True)
class Spool:
    """[spool]"""

    limit: int = setting(
        4 << 30, "what may lie in the spool until the queue takes it; at the limit MAIL is answered 452 4.3.1",
        unit=BYTES,
    )  # fmt: skip
    free_floor: int = setting(
        64 << 20, "what must stay free on its disk; below, MAIL is answered 452 4.3.1", unit=BYTES
    )
    resends: str = setting(
        "submission",
        "whose message, sent again after our 250 was lost, is answered with the first copy's id instead of being kept"
        " twice: one with the same source, envelope and content, Message-ID included",
        one_of=("off", "submission", "all"),
    )
    resend_window: float = setting(300.0, "how long a copy is recognised, 10 minutes at most", unit=SECONDS)


@dataclass(frozen=True, slots=True)
class Route:
    """[relay.route."example.com"]"""

    smarthost: str = setting("", "HOST:PORT that takes this domain's mail; several, separated by commas")
    port: int = setting(0, "of its mail servers; 0 is the relay's")
    tls: str = setting(
        "auto",
        "auto is verify with a login, else opportunistic; require wants TLS, verify also a good certificate",
        one_of=("auto", "none", "opportunistic", "require", "verify", "implicit"),
    )
    ca_file: str = setting("", "authorities for verify (PEM); empty: the relay's")
    certificate: str = setting("", "our client certificate there (PEM or PFX); empty: the relay's")
    key: str = setting("", "its key, where the certificate's file does not hold it")
    user: str = setting("", "the login at the smart host")
    password_file: str = setting("", "a file with its password in the first line")
    token_file: str = setting("", "or with its OAuth bearer token, which is read at each log-in")
    concurrency: int = setting(0, "connections at most; 0 is the relay's")
    messages_per_minute: int = setting(0, "at most; 0 is any number")


@dataclass(frozen=True, slots=True)
class Relay:
    """[relay]"""

    enabled: bool = setting(False, "send mail for other domains on, by MX or smart host")
    allow_networks: tuple[str, ...] = setting((), "networks (CIDR) that may relay without a login")
    dns_server: str = setting("", "HOST or HOST:PORT; empty: the system's")
    port: int = setting(25, "of the mail servers that MX names")
    smarthost: str = setting("", "HOST:PORT that takes all mail for other domains; several, separated by commas")
    smarthost_user: str = setting("", "the login there")
    smarthost_password_file: str = setting("", "a file with its password in the first line")
    smarthost_token_file: str = setting("", "or with its OAuth bearer token, which is read at each log-in")
    smarthost_tls: str = setting(
        "auto",
        "auto is verify with a login, else opportunistic; require refuses a smart host without STARTTLS, verify also"
        " one whose certificate is not good",
        one_of=("auto", "none", "opportunistic", "require", "verify", "implicit"),
    )
    ca_file: str = setting("", "authorities for verify (PEM); empty: the system's")
    certificate: str = setting("", "our client certificate, for hops that ask for one (PEM or PFX)")
    key: str = setting("", "its key, where the certificate's file does not hold it")
    retry: tuple[float, ...] = setting(
        (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0), "waits between attempts; the last repeats", unit=SECONDS
    )
    expire: float = setting(432_000.0, "after which a message is given up", unit=SECONDS)
    delay_warning: float = setting(14_400.0, "after which the sender is told of the delay; 0 is never", unit=SECONDS)
    concurrency: int = setting(20, "connections to one destination at most")
    connections: int = setting(
        64,
        "connections at work at once, in all; three times as many more may wait for slow destinations",
        restart="couriers are made at the start",
    )
    ipv6_first: bool = setting(True, "try a mail server's IPv6 addresses before its IPv4 ones")
    connect_timeout: float = setting(
        30.0, "for a connection to the next hop; while it has another address, 6 s at most", unit=SECONDS
    )
    timeout: float = setting(300.0, "for each command to the next hop", unit=SECONDS)
    route: Mapping[str, Route] = setting(dict, "what differs for single domains")


@dataclass(frozen=True, slots=True)
class Log:
    """[log]"""

    format: str = setting("text", "how a line looks", one_of=("text", "json"))
    level: str = setting("info", "the least important line", one_of=("debug", "info", "warning", "error"))
    file: str = setting("", "a file to append to (opened again on reload); empty: standard error")
    transcript: bool = setting(False, "log every dialogue, secrets masked")
    transcript_for: tuple[str, ...] = setting((), "log the dialogues of these addresses, networks or users only")


@dataclass(frozen=True, slots=True)
class Metrics:
    """[metrics]"""

    bind: str = setting(
        "",
        "HOST:PORT for /metrics (extra daemon), /healthz and /readyz; empty: none",
        restart="its socket is bound at the start",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration; the names at the top of the file."""

    hostname: str = setting("", "our name in the banner, in EHLO and in Received; empty: the system's")
    state: str = setting("./smtpd-state", "the directory of spool, queue and mail", restart="what is in it is in use")
    user: str = setting("", "run as this user once the ports are bound", restart=_PRIVILEGES)
    group: str = setting("", "and as this group; empty: the user's", restart=_PRIVILEGES)
    pid_file: str = setting(
        "",
        "a file for the number of the process; empty: none",
        restart="it is written once, while the directory may be used",
    )
    umask: str = setting(
        "077", "of what is made, in octal; spool, queue and mail are for their owner alone whatever it says"
    )
    core_dumps: bool = setting(
        False,
        "whether the system may write a core file of this process, which would hold keys and passwords (on Linux also"
        " whether other processes of its user may look into its memory)",
        restart="it is settled once, before a secret is read",
    )
    threads: Threads = setting(Threads, "threads and processes")
    listener: tuple[Listener, ...] = setting((), "where to listen")
    limits: Limits = setting(Limits, "what a client may do")
    guard: Guard = setting(Guard, "who may connect")
    tls: Tls = setting(Tls, "certificates")
    accounts: Accounts = setting(Accounts, "who may log in")
    domains: Mapping[str, Domain] = setting(dict, "our domains")
    spool: Spool = setting(Spool, "what is accepted and not in the queue yet")
    relay: Relay = setting(Relay, "mail for others")
    log: Log = setting(Log, "what is written down")
    metrics: Metrics = setting(Metrics, "what is counted")


EMBEDDED = Settings(listener=(Listener(),))
"""What runs without a configuration: any recipient from loopback, into the Maildir `mail` under the state directory."""
