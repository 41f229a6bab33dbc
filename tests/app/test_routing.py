"""Whose mail is taken, what addresses stand for, where they lead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smtpd_core.app.routing import (
    Routing,
    not_for_strangers_550,
    read_aliases,
    relay_is_off_550,
    relaying_denied_550,
    unknown_user_550,
)
from smtpd_core.app.settings import EMBEDDED, Domain, Relay, Route
from smtpd_core.wire.envelope import Recipient

OURS = replace(
    EMBEDDED,
    hostname="mx.our.test",
    state="/state",
    domains={
        "our.test": Domain(
            users=("ann", "bob"),
            aliases={
                "sales": ("ann", "bob"),
                "loop": ("ring",),
                "ring": ("loop",),
                "out": ("eve@far.test",),
                "ann": ("ann", "bob"),
            },
        ),
        "Any.Test": Domain(users=("any",), deliver="lmtp:127.0.0.1:24"),
        "catch.test": Domain(users=("ann",), catch_all="ann"),
    },
)
RELAY = replace(
    OURS,
    relay=Relay(
        enabled=True,
        allow_networks=("192.0.2.0/24", "2001:db8::/32"),
        route={"special.test": Route(smarthost="hub.test:26")},
    ),
)
STRANGER = "198.51.100.7"


def test_embedded_takes_any_recipient_from_this_machine_only() -> None:
    routing = Routing(EMBEDDED)
    assert routing.judge("ann@any.test", "127.0.0.1", "") is None
    assert routing.judge("ann@any.test", "::ffff:127.0.0.1", "") is None
    assert routing.judge("ann@any.test", "", "") is None
    assert routing.judge("ann@any.test", STRANGER, "") is not_for_strangers_550
    assert routing.routes.destination("ann@any.test").endswith("smtpd-state/mail")


@pytest.mark.parametrize(
    "address", ["ann@our.test", "ANN@OUR.test", "ann+lists@our.test", "sales@our.test", "x@any.test"]
)
def test_our_users_get_mail_from_anybody(address: str) -> None:
    assert Routing(OURS).judge(address, STRANGER, "") is None


@pytest.mark.parametrize("address", ["eve@our.test", "+ann@our.test", "../ann@our.test", '"ann@far.test"@our.test'])
def test_unknown_users_are_refused(address: str) -> None:
    assert Routing(OURS).judge(address, STRANGER, "") is unknown_user_550


@pytest.mark.parametrize("address", ["Postmaster", "postmaster@our.test", "POSTMASTER@any.test"])
def test_the_postmaster_is_always_there(address: str) -> None:
    assert Routing(OURS).judge(address, STRANGER, "") is None


@pytest.mark.parametrize("settings", [OURS, RELAY])
@pytest.mark.parametrize(
    "address",
    [
        "eve@far.test",
        "eve%far.test@our.test",
        "far.test!eve@our.test",
        '"eve@far.test"@our.test',
        "eve@[203.0.113.9]",
        "eve@our.test.far.test",
        "eve@xour.test",
        "eve@our.test@far.test",
        "eve@",
        "@far.test",
        "@our.test,@far.test:eve@far.test",
        "eve",
    ],
)
def test_no_address_form_makes_an_open_relay(settings, address: str) -> None:  # type: ignore[no-untyped-def]
    assert Routing(settings).judge(address, STRANGER, "") in (unknown_user_550, relaying_denied_550)


@pytest.mark.parametrize(
    ("client", "user", "taken"),
    [
        (STRANGER, "", False),
        (STRANGER, "ann", True),
        ("192.0.2.9", "", True),
        ("2001:db8::5", "", True),
        ("", "", True),
    ],
)
def test_relaying_needs_a_login_or_an_allowed_network(client: str, user: str, taken: bool) -> None:
    assert (Routing(RELAY).judge("eve@far.test", client, user) is None) == taken


def test_a_user_hears_that_the_relay_is_off() -> None:
    assert Routing(OURS).judge("eve@far.test", STRANGER, "ann") is relay_is_off_550


@pytest.mark.parametrize(
    ("address", "to"),
    [
        ("ann@our.test", "maildir:/state/mail/{domain}/{user}"),
        ("x@any.test", "lmtp:127.0.0.1:24"),
        ("eve@far.test", "mx:far.test"),
        ("eve@Special.Test", "smtp:hub.test:26"),
    ],
)
def test_where_mail_goes_next(address: str, to: str) -> None:
    assert Routing(RELAY).routes.destination(address) == to


@pytest.mark.parametrize(
    ("address", "stands_for"),
    [
        ("bob@our.test", ["bob@our.test"]),
        ("sales@our.test", ["ann@our.test", "bob@our.test"]),
        ("SALES+x@our.test", ["ann@our.test", "bob@our.test"]),
        ("ann@our.test", ["ann@our.test", "bob@our.test"]),
        ("out@our.test", ["eve@far.test"]),
        ("who@catch.test", ["ann@catch.test"]),
        ("eve@far.test", ["eve@far.test"]),
    ],
)
def test_what_an_address_stands_for(address: str, stands_for: list[str]) -> None:
    assert [stop.recipient.address for stop in Routing(OURS).routes.stops_for([Recipient(address)])] == stands_for


def test_aliases_in_a_circle_end() -> None:
    assert Routing(OURS).routes.stops_for([Recipient("loop@our.test")])


def test_an_alias_keeps_what_the_sender_wrote() -> None:
    first = Routing(OURS).routes.stops_for([Recipient("sales@our.test", ("NEVER",))])[0].recipient
    assert (first.orcpt, first.notify) == ("rfc822;sales@our.test", ("NEVER",))


def test_accounts_are_asked() -> None:
    settings = replace(OURS, domains={"our.test": Domain(users=("accounts",))})
    routing = Routing(settings, {"ann", "bob@our.test"}.__contains__)
    assert routing.judge("ann+x@our.test", STRANGER, "") is None
    assert routing.judge("bob@our.test", STRANGER, "") is None
    assert routing.judge("eve@our.test", STRANGER, "") is unknown_user_550


def test_an_aliases_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "aliases"
    file.write_text("# ours\nInfo: ann,\n\tbob # both\nabuse: postmaster\n")
    assert read_aliases(file) == {"info": ("ann", "bob"), "abuse": ("postmaster",)}


@pytest.mark.timeout(30)
def test_a_list_of_many_is_read_in_time_that_grows_with_it(tmp_path: Path) -> None:
    """Each address copied those before it: 100 000 took a minute, within a reload."""
    file = tmp_path / "aliases"
    file.write_text("all: " + ", ".join(f"user{number}@our.test" for number in range(100_000)) + "\n")
    assert len(read_aliases(file)["all"]) == 100_000


@pytest.mark.parametrize("line", ["info ann", "info: |/bin/sh", "info: /etc/passwd", "info: :include:/x", " ann"])
def test_an_aliases_file_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "aliases"
    file.write_text(f"# first\n{line}\n")
    with pytest.raises(ValueError, match="aliases:2: "):
        read_aliases(file)


def test_an_aliases_file_in_another_alphabet_is_refused_with_its_line(tmp_path: Path) -> None:
    """The reason named neither the file nor the line."""
    file = tmp_path / "aliases"
    file.write_bytes(b"info: ann\nb\xfcro: ann\n")
    with pytest.raises(ValueError, match=r"/aliases:2: byte 0xfc is not UTF-8"):
        read_aliases(file)
