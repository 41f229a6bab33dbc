"""Logging in: who asks, what the account store says, what a failure costs.

Order: lock-out, on_authenticate, the store. All of it happens in one hook of the login share, since any step may block.
Rule: nothing here logs, keeps or raises a secret.
Thread: the session's turn.
Not here: the mechanisms (wire/sasl), counting failures (net/guard.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpd_core.accounts import Account, AccountStore, MemoryStore, StoreUnavailable, UserAccount, ntlm
from smtpd_core.server.hooks import Hook
from smtpd_core.server.verdicts import Accept, Refuse
from smtpd_core.wire.events import NeedSecret
from smtpd_core.wire.replies import Reply, login_unavailable_454
from smtpd_core.wire.sasl.mechanisms import MECHANISMS, Mechanism

# What a program can answer by itself in on_authenticate, without a store.
HOOK_KINDS = frozenset({"password", "token"})

# Kinds where the client shows its secret, so that a program may decide without having the account's.
_SHOWN = frozenset({"password", "token", "certificate"})


class Login:
    """What on_authenticate is told. `password` and `token` are None where the mechanism does not show them (CRAM-MD5,
    SCRAM): then only a UserAccount, a refusal or None can be the answer. repr() never shows a secret."""

    __slots__ = ("kind", "mechanism", "password", "token", "user")

    def __init__(self, event: NeedSecret) -> None:
        self.mechanism = event.mechanism
        self.user = event.user
        self.kind = event.kind
        shown = event.detail if isinstance(event.detail, str) else None
        self.password = shown if event.kind == "password" else None
        self.token = shown if event.kind == "token" else None

    def __repr__(self) -> str:
        return f"<Login of {self.user!r} by {self.mechanism}>"


class BadAnswer(TypeError):
    """A store or program answered with what is no answer. Its words are ours and quote no value."""


class Answer:
    """What goes to the mechanism (`secret`), or a refusal. `account` is kept for the end of the exchange."""

    __slots__ = ("account", "refusal", "secret")

    def __init__(self, secret: object = None, account: Account | None = None, refusal: Reply | None = None) -> None:
        self.secret = secret
        self.account = account
        self.refusal = refusal


def answer_of_program(verdict: object, event: NeedSecret, salt_key: bytes) -> Answer | None:
    """What on_authenticate returned; None leaves it to the store. Raises BadAnswer."""
    if verdict is None:
        return None
    if isinstance(verdict, UserAccount):
        store = MemoryStore([verdict], case_insensitive=True)
        store.salt_key = salt_key  # the salts of names that nobody knows are of it too
        answer = _ask_store(store, event)
        if answer.secret is not None:
            answer.account = verdict.without_password()
        return answer
    if isinstance(verdict, Refuse):
        return Answer(refusal=verdict.reply)
    if isinstance(verdict, Reply) and not verdict.is_positive:
        return Answer(refusal=verdict)
    if isinstance(verdict, Reply | Accept):
        verdict = Account(event.user)
    if not isinstance(verdict, Account):
        raise BadAnswer(
            f"on_authenticate returned a {type(verdict).__name__}: None, Account, UserAccount, Accept or Refuse is due"
        )
    if event.kind not in _SHOWN:
        raise BadAnswer(
            f"{event.mechanism} proves a secret that is not shown: on_authenticate may return a UserAccount"
        )
    return Answer(verdict.user_name, verdict)


def answer_of_store(store: AccountStore | None, event: NeedSecret) -> Answer:
    """What the store says. StoreUnavailable becomes 454."""
    if store is None:
        return Answer()
    try:
        return _ask_store(store, event)
    except StoreUnavailable:
        return Answer(refusal=login_unavailable_454)


def _ask_store(store: AccountStore, event: NeedSecret) -> Answer:
    account: Account | None
    if event.kind == "password":
        account = store.verify(event.user, str(event.detail))
    elif event.kind == "token":
        account = store.verify_token(event.user, str(event.detail))
    elif event.kind == "certificate":
        account = store.account(event.user)
    else:
        return Answer(store.secret(event.user, event.kind))
    _must_be_account(account)
    return Answer(account.user_name if account is not None else None, account)


def _must_be_account(answer: object) -> None:
    """Stores are written by others: what is no account must not become a user."""
    if answer is not None and not isinstance(answer, Account):
        raise BadAnswer(f"an account store answered with a {type(answer).__name__}: an Account or None is due")


def account_of(store: AccountStore | None, identity: str) -> Account | Reply | None:
    """The account behind an identity that a mechanism proved by itself. A Reply where the store did not answer."""
    if store is None:
        return Account(identity)
    try:
        account = store.account(identity)
    except StoreUnavailable:
        return login_unavailable_454
    _must_be_account(account)
    return account


def acting(store: AccountStore | None, account: Account, identity: str) -> Account | Reply | None:
    """The account whose part is taken (the authorisation identity of RFC 4422 3.4.1), None where that is not allowed.

    The store allows it (Account.may_act_as), and the one acted as must be known to it.
    """
    if identity in ("", account.user_name):
        return account
    return account_of(store, identity) if identity in account.may_act_as else None


def added_mechanisms(wanted: Iterable[str], *, version_1: bool = False) -> tuple[Mechanism, ...]:
    """The rows that extras bring, where they are asked for. ValueError (ExtraMissing) tells what to install."""
    return (ntlm.mechanism(allow_version_1=version_1),) if ntlm.NAME in {name.upper() for name in wanted} else ()


def usable_mechanisms(
    wanted: Iterable[str],
    store: AccountStore | None,
    hook: Hook | None,
    *,
    tls_is_possible: bool,
    clear_text: bool,
    certificates: bool = False,
    added: Iterable[Mechanism] = (),
    must_all_work: bool = True,
) -> tuple[str, ...]:
    """The mechanisms to offer, best first. `wanted` empty: all that the store can serve.

    `certificates`: clients are asked for theirs. ValueError, with the reason, for a mechanism that was asked for and
    could never work (without `must_all_work` it is left out), or where none is left.
    """
    kinds = set(store.kinds) if store is not None else set()
    if hook is not None:
        kinds |= HOOK_KINDS
    asked = [name.upper() for name in wanted]
    if "certificate" in kinds:
        kinds.add("anonymous")
    known = MECHANISMS | {row.name: row for row in added}
    for name in asked:
        if name not in known:
            raise ValueError(f"auth_mechanisms: {name!r} is none of {', '.join(MECHANISMS)}, {ntlm.NAME}")
    chosen = []
    for name in asked or [name for name, row in MECHANISMS.items() if row.kind != "anonymous"]:
        row = known[name]
        why = _why_never(row, kinds, tls_is_possible, clear_text, certificates)
        if not why:
            chosen.append(name)
        elif asked and must_all_work:
            raise ValueError(f"auth_mechanisms: {name} could never work: {why}")
    if chosen:
        return tuple(chosen)
    if not kinds:
        raise ValueError("use_auth without accounts: set user_accounts or on_authenticate")
    raise ValueError(
        "use_auth: no mechanism could ever be used: those that the account store can serve show the password and"
        " there is no TLS; set use_tls, or clear_text_without_tls=True"
    )


def _why_never(row: Mechanism, kinds: set[str], tls_is_possible: bool, clear_text: bool, certificates: bool) -> str:
    """Why no client could ever use the mechanism here, or ""."""
    if row.kind not in kinds:
        return f"the account store can't answer {row.kind!r}; it has {', '.join(sorted(kinds)) or 'nothing'}"
    if row.clear_text and not tls_is_possible and not clear_text:
        return "it shows the password and there is no TLS; set use_tls, or clear_text_without_tls=True"
    if (row.needs_binding or row.needs_certificate) and not tls_is_possible:
        return "it needs TLS and there is none"
    if row.needs_certificate and not certificates:
        return "clients are not asked for a certificate; set require_client_certificate"
    return ""
