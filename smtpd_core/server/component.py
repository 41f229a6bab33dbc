"""The component's properties and events: every name once, with its default, its meaning and when a change counts.

Rule: a name that is not here is an error at once, as constructor keyword and as attribute.
Thread: any.
Not here: what a change does (server.py), how checks are made (options.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from certs.contexts import ServerContexts
from certs.files import Pair
from smtpd_core.accounts import Account, AccountStore, UserAccount
from smtpd_core.net import Guard, GuardSettings, ListenerSettings, Timeouts
from smtpd_core.server.hooks import NAMES, Slots, no_such_hook
from smtpd_core.server.keeping import Keeping
from smtpd_core.server.options import (
    AT_ONCE,
    AT_START,
    NEXT_CONNECTION,
    NEXT_WAIT,
    EventOption,
    Option,
    a_certificate,
    a_debug_log,
    a_directory,
    a_guard,
    a_keeping,
    a_path,
    a_salt_key,
    accounts,
    client_certificates,
    flag,
    one_of,
    one_or_none,
    seconds,
    sender_rule,
    several,
    text,
    texts,
    unknown_name,
    whole,
)

if TYPE_CHECKING:
    from logging import Logger

Accounts = AccountStore | Iterable[UserAccount] | Callable[[str, str], "Account | str | bool | None"] | None


class Properties(TypedDict, total=False):
    """The constructor's keywords."""

    port: int
    local_binding: str
    use_ipv6: bool
    service: str
    listeners: Sequence[ListenerSettings]
    batch_size: int
    max_thread_count: int
    min_thread_count: int
    max_recipients: int
    max_data_size: int
    max_errors: int
    max_received: int
    timeout: float
    session_timeout: float
    timeouts: Timeouts | None
    hook_budget: float
    server_name: str
    banner: str
    help_text: str
    user_accounts: Accounts
    case_insensitive: bool
    use_auth: str
    auth_mechanisms: Sequence[str]
    ntlm_version_1: bool
    scram_salt_key: bytes
    clear_text_without_tls: bool
    restrict_senders: bool | str
    use_tls: str
    certificate: str | Pair
    key: str
    key_password: str
    tls_minimum: str
    require_client_certificate: bool | str
    client_ca_file: str
    client_crl_file: str
    contexts: ServerContexts | None
    guard: GuardSettings | Guard | None
    store: Keeping | None
    outbox: Keeping | None
    drafts: str | None
    relay_from: Sequence[str]
    xclient_from: Sequence[str]
    bare_line_ends: str
    bare_line_ends_in_chunks: str
    keep_nul: bool
    strict_lines: bool
    without_extensions: Sequence[str]
    debug_log: bool | str | Logger | None
    debug_log_format: str
    transcript_memory: int
    on_start: Callable[..., Any] | None
    on_stop: Callable[..., Any] | None
    on_accept_connection: Callable[..., Any] | None
    on_close_connection: Callable[..., Any] | None
    on_read_connection: Callable[..., Any] | None
    on_hello: Callable[..., Any] | None
    on_authenticate: Callable[..., Any] | None
    on_mail_from: Callable[..., Any] | None
    on_recipient_to: Callable[..., Any] | None
    on_message_received: Callable[..., Any] | None
    on_partial_message: Callable[..., Any] | None
    on_get_certificate: Callable[..., Any] | None
    on_verify: Callable[..., Any] | None
    on_expand: Callable[..., Any] | None
    on_etrn: Callable[..., Any] | None
    on_receive_command: Callable[..., Any] | None
    on_send_response: Callable[..., Any] | None
    on_server_error: Callable[..., Any] | None


class Component:
    """Where the names live; SmtpServer is the one component."""

    def __init__(self, slots: Slots) -> None:
        self._values: dict[str, Any] = {}
        self._slots = slots

    # Where it listens
    port: Option[int] = Option(25, "TCP port; 0 is any, see address.", AT_START, check=whole(0, 65_535))
    local_binding: Option[str] = Option(
        "",
        'Where to listen: "" is loopback, "*" every interface, or an address, a host name, "unix:PATH", "fd:N".',
        AT_START,
        check=text,
    )
    use_ipv6: Option[bool] = Option(False, "IPv6 too, for loopback and for every interface.", AT_START, check=flag)
    service: Option[str] = Option("mx", "mx, submission or lmtp.", AT_START, check=one_of("mx", "submission", "lmtp"))
    listeners: Option[Sequence[ListenerSettings]] = Option(
        (),
        "Several listeners, each with its own bind, service, TLS and AUTH, instead of the one.",
        AT_START,
        check=several(ListenerSettings, "a list of ListenerSettings"),
    )
    batch_size: Option[int] = Option(
        65_536, "Bytes moved per socket read or write.", AT_START, check=whole(512, 16_777_216)
    )
    xclient_from: Option[tuple[str, ...]] = Option(
        (), "Networks (CIDR) whose XCLIENT and XFORWARD are believed.", AT_START, check=texts
    )

    # Limits
    max_thread_count: Option[int] = Option(32, "Hooks active at the same time.", AT_ONCE, check=whole(1, 10_000))
    min_thread_count: Option[int] = Option(2, "Idle threads kept ready.", AT_ONCE, check=whole(0, 10_000))
    max_recipients: Option[int] = Option(1_000, "Recipients of a message; 0 is any number.", check=whole(0))
    max_data_size: Option[int] = Option(
        50 * 1024 * 1024, "Octets of a message, announced as SIZE; 0 is no limit.", check=whole(0)
    )
    max_errors: Option[int] = Option(20, "Mistakes of a client until 421; 0 is any number.", check=whole(0))
    max_received: Option[int] = Option(
        100, "Received lines of a message; more are a loop (RFC 5321 6.3).", AT_ONCE, check=whole(1)
    )
    timeout: Option[float] = Option(
        300.0,
        "Seconds that a client may take for a command (RFC 5321 4.5.3.2); 0 is for ever.",
        NEXT_WAIT,
        check=seconds,
    )
    session_timeout: Option[float] = Option(
        86_400.0, "Seconds of a whole session; 0 is for ever.", NEXT_CONNECTION, check=seconds
    )
    timeouts: Option[Timeouts | None] = Option(
        None,
        "All other deadlines: handshake, data, login, ticket, hook_wait, minimum_rate, ...",
        NEXT_WAIT,
        check=one_or_none(Timeouts, due="Timeouts(...)"),
    )
    hook_budget: Option[float] = Option(
        30.0, "Seconds after which a hook that still runs is logged with its stack.", AT_ONCE, check=seconds
    )

    # What it says
    server_name: Option[str] = Option(
        "", "Host name in banner, EHLO and Received; the machine's by default.", check=text
    )
    banner: Option[str] = Option("", 'Text behind the host name in the greeting; "ready" by default.', check=text)
    help_text: Option[str] = Option("", "More lines for HELP.", check=text)

    # Who may log in
    user_accounts: Option[Accounts] = Option(
        None, "An account store, a list of UserAccount, or a function check(user, password).", check=accounts
    )
    case_insensitive: Option[bool] = Option(False, "User names of a list match regardless of case.", check=flag)
    use_auth: Option[str] = Option(
        "",
        "off, offered or required; by default offered where there are accounts, else off.",
        AT_START,
        check=one_of("", "off", "offered", "required"),
    )
    auth_mechanisms: Option[tuple[str, ...]] = Option(
        (),
        "SASL mechanisms, best first; by default all that the accounts can serve but NTLM and ANONYMOUS.",
        check=texts,
    )
    ntlm_version_1: Option[bool] = Option(False, "NTLM also in its first version, which is easily broken.", check=flag)
    scram_salt_key: Option[bytes] = Option(
        b"",
        "Secret octets, 16 or more, the same after a restart: from them come the SCRAM salts of unknown users and of"
        " passwords kept in clear; by default this process makes its own.",
        check=a_salt_key,
    )
    clear_text_without_tls: Option[bool] = Option(False, "PLAIN and LOGIN on unencrypted connections.", check=flag)
    restrict_senders: Option[str] = Option(
        "off",
        "off, warn or enforce: users send only as the addresses of their accounts; True is enforce.",
        AT_ONCE,
        check=sender_rule,
    )

    # TLS
    use_tls: Option[str] = Option(
        "none",
        "none, implicit (from the first byte), explicit_allow (STARTTLS) or explicit_require.",
        AT_START,
        check=one_of("none", "implicit", "explicit_allow", "explicit_require"),
    )
    certificate: Option[str | Pair] = Option(
        "",
        'Path of a PEM or PFX file, a certs Pair, or "self-signed" for one made at start.',
        AT_START,
        check=a_certificate,
    )
    key: Option[str] = Option(
        "", "Path of the private key (PEM), where it is not with the certificate.", AT_START, check=a_path
    )
    key_password: Option[str] = Option("", "Password of the key or PFX file.", AT_START, check=text)
    tls_minimum: Option[str] = Option(
        "1.2", "The oldest TLS version: 1.0, 1.1, 1.2 or 1.3.", AT_START, check=one_of("1.0", "1.1", "1.2", "1.3")
    )
    require_client_certificate: Option[str] = Option(
        "no",
        "no, ask (session.tls tells what came) or require: the handshake fails without a good one; True is require.",
        AT_START,
        check=client_certificates,
    )
    client_ca_file: Option[str] = Option("", "Authorities (PEM) for client certificates.", AT_START, check=a_path)
    client_crl_file: Option[str] = Option(
        "", "Revocation lists (PEM or DER) of those authorities: one for each that issues.", AT_START, check=a_path
    )
    contexts: Option[ServerContexts | None] = Option(
        None,
        "certs ServerContexts instead of certificate and key; renewable while running.",
        check=one_or_none(ServerContexts, due="certs.contexts.ServerContexts(...)"),
    )

    # Who may connect, and what for
    guard: Option[GuardSettings | Guard | None] = Option(
        None,
        "Allow and block lists, limits per source and in all, login delays, lock-out: GuardSettings, or a Guard.",
        AT_ONCE,
        check=a_guard,
    )
    relay_from: Option[tuple[str, ...]] = Option(
        ("127.0.0.0/8", "::1/128"),
        "Networks (CIDR) that may relay through the outbox without a login.",
        AT_ONCE,
        check=texts,
    )

    # What keeps mail
    store: Option[Keeping | None] = Option(None, "Keeps local mail, as relay.MailboxStore.", AT_ONCE, check=a_keeping)
    outbox: Option[Keeping | None] = Option(None, "Keeps mail for others, as relay.Outbox.", AT_ONCE, check=a_keeping)
    drafts: Option[str | None] = Option(
        None,
        "Directory for the nameless files of large messages; by default the store's, else the system's.",
        AT_ONCE,
        check=a_directory,
    )

    # How strict it is
    bare_line_ends: Option[str] = Option(
        "refuse", "Bare CR or LF in content: refuse or normalise.", check=one_of("refuse", "normalise")
    )
    bare_line_ends_in_chunks: Option[str] = Option(
        "", "The same under BDAT; by default as bare_line_ends.", check=one_of("", "refuse", "normalise")
    )
    keep_nul: Option[bool] = Option(False, "NUL in content is kept instead of being refused.", check=flag)
    strict_lines: Option[bool] = Option(False, "Lines of content over 998 octets are refused.", check=flag)
    without_extensions: Option[tuple[str, ...]] = Option((), "ESMTP extensions not to offer.", check=texts)

    # Who watches
    debug_log: Option[bool | str | Logger | None] = Option(
        None,
        "True, a path or a logger: the dialogue, secrets masked. It also turns transcripts on.",
        check=a_debug_log,
    )
    debug_log_format: Option[str] = Option("text", "text or json (one object a line).", check=one_of("text", "json"))
    transcript_memory: Option[int] = Option(
        0, "Sessions whose transcript is remembered, failed ones first; 100 with debug_log.", check=whole(0, 100_000)
    )

    on_start = EventOption()
    on_stop = EventOption()
    on_accept_connection = EventOption()
    on_close_connection = EventOption()
    on_read_connection = EventOption()
    on_hello = EventOption()
    on_authenticate = EventOption()
    on_mail_from = EventOption()
    on_recipient_to = EventOption()
    on_message_received = EventOption()
    on_partial_message = EventOption()
    on_get_certificate = EventOption()
    on_verify = EventOption()
    on_expand = EventOption()
    on_etrn = EventOption()
    on_receive_command = EventOption()
    on_send_response = EventOption()
    on_server_error = EventOption()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("on_") and name not in NAMES:
            raise AttributeError(no_such_hook(name))
        if not name.startswith("_") and name not in SETTABLE:
            raise AttributeError(unknown_name(name, [*PROPERTIES, *NAMES]))
        object.__setattr__(self, name, value)

    def _change(self, option: Option[Any], value: Any) -> None:
        """A property is set."""
        raise NotImplementedError

    def _set_hook(self, name: str, function: Callable[..., Any] | None) -> None:
        """An event is set."""
        raise NotImplementedError


PROPERTIES = tuple(name for name, value in vars(Component).items() if isinstance(value, Option))
SETTABLE = frozenset((*PROPERTIES, *NAMES, "active", "doors"))
