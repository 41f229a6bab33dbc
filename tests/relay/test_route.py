"""Where mail goes, and that nothing a stranger writes becomes a path."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail import Envelope, Recipient
from relay.route import Domain, Place, Routes, filled, fold, mailbox, safe_name, split

BOX = "maildir:/mail/{domain}/{user}"

ROUTES = Routes(
    domains={
        "here.test": Domain(
            BOX,
            users={"ann", "bob+x"}.__contains__,
            aliases={
                "team": ["ann@here.test", "cid@far.test"],
                "all": ["team@here.test", "ann@here.test"],
                "loop": ["pool@here.test"],
                "pool": ["loop@here.test"],
                "ann.old": ["ann@here.test"],
            },
        ),
        "any.test": Domain(BOX),
        "catch.test": Domain(BOX, users=set[str]().__contains__, catch_all="ann@here.test"),
    },
    table={"partner.test": "smtp:mail.partner.test:25", ".deep.test": "lmtp:127.0.0.1:24"},
    hostname="here.test",
)

NOBODY = "refuse:5.1.1 No such user here"

PLACES = [
    ("ann@here.test", Place.HERE, BOX),
    ("ANN@HERE.TEST.", Place.HERE, BOX),
    ("ann+lists@here.test", Place.HERE, BOX),
    ("bob+x@here.test", Place.HERE, BOX),
    ("bob@here.test", Place.NOBODY, NOBODY),
    ("postmaster@here.test", Place.HERE, BOX),
    ("Postmaster", Place.HERE, BOX),
    ("anyone@any.test", Place.HERE, BOX),
    ("x@catch.test", Place.HERE, BOX),
    ("x@partner.test", Place.ELSEWHERE, "smtp:mail.partner.test:25"),
    ("x@a.b.deep.test", Place.ELSEWHERE, "lmtp:127.0.0.1:24"),
    ("x@deep.test", Place.ELSEWHERE, "mx:deep.test"),
    ("x@far.test", Place.ELSEWHERE, "mx:far.test"),
    ("x@MÜNCHEN.test", Place.ELSEWHERE, "mx:xn--mnchen-3ya.test"),
    ("x@[127.0.0.1]", Place.ELSEWHERE, "mx:[127.0.0.1]"),
    ("ann%far.test@here.test", Place.NOBODY, NOBODY),
    ("far.test!ann@here.test", Place.NOBODY, NOBODY),
    ('"ann@far.test"@here.test', Place.NOBODY, NOBODY),
    ("x@../../etc", Place.NOWHERE, "refuse:5.1.2 No such domain"),
    ("x@a b", Place.NOWHERE, "refuse:5.1.2 No such domain"),
    ("x@-", Place.NOWHERE, "refuse:5.1.2 No such domain"),
]


@pytest.mark.parametrize(("address", "place", "destination"), PLACES)
def test_every_address_has_its_place(address: str, place: Place, destination: str) -> None:
    assert ROUTES.place(address) is place
    assert ROUTES.destination(address) == destination


def stops(*addresses: str) -> list[tuple[str, str]]:
    envelope = Envelope("s@x.test", tuple(Recipient(one) for one in addresses))
    return [(stop.recipient.address, stop.recipient.orcpt) for stop in ROUTES.stops(envelope)]


def test_aliases_are_followed_and_each_mailbox_gets_one_copy() -> None:
    assert stops("all@here.test", "all@here.test") == [
        ("ann@here.test", "rfc822;all@here.test"),
        ("cid@far.test", "rfc822;all@here.test"),
    ]
    # Whoever the sender named is known by that name, in any order.
    assert stops("all@here.test", "ANN@here.test") == [("ANN@here.test", ""), ("cid@far.test", "rfc822;all@here.test")]
    assert stops("ann@here.test", "all@here.test") == [("ann@here.test", ""), ("cid@far.test", "rfc822;all@here.test")]
    assert stops("x@far.test", "X@far.test") == [("x@far.test", ""), ("X@far.test", "")]
    assert stops("team+x@here.test")[0] == ("ann@here.test", "rfc822;team+x@here.test")
    assert stops("who@catch.test") == [("ann@here.test", "rfc822;who@catch.test")]


def test_lists_that_name_each_other_are_followed_once_each() -> None:
    """Each way through them was followed: nine lists took seconds for every message, twelve would have taken hours."""
    lists = {f"l{n}": (*(f"l{other}@a.test" for other in range(14) if other != n), f"u{n}@a.test") for n in range(14)}
    routes = Routes({"a.test": Domain("maildir:{user}", aliases=lists)})
    stops = routes.stops_for([Recipient("l0@a.test")])
    assert {stop.recipient.address for stop in stops} == {f"u{n}@a.test" for n in range(14)}


def test_of_an_alias_with_too_many_mailboxes_the_sender_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond the bound got nothing, and nobody was told."""
    monkeypatch.setattr("relay.route.MAX_STOPS", 3)
    big = {"big": [f"u{n}@a.test" for n in range(4)]}
    routes = Routes({"a.test": Domain("maildir:{user}", aliases=big)})
    stops = routes.stops_for([Recipient("big@a.test"), Recipient("u0@a.test")])
    assert [stop.recipient.address for stop in stops] == ["u0@a.test", "u1@a.test", "u2@a.test", "big@a.test"]
    assert stops[3].destination.startswith("refuse:5.3.4 ")


def test_aliases_in_a_circle_end() -> None:
    assert len(stops("loop@here.test")) == 1


def test_aliases_that_lead_to_no_mailbox_are_answered_for() -> None:
    """Their mail was delivered into a mailbox of the alias's own name, which nobody has."""
    chain = {f"n{number}": [f"n{number + 1}@here.test"] for number in range(100)}
    known = {"ann", "bob", "cid"}
    aliases = chain | {
        "loop": ["pool@here.test"],
        "pool": ["loop@here.test"],
        "ann": ["bob@here.test"],
        "bob": ["ann@here.test"],
        "desk": ["desk@here.test", "ann@here.test"],
        "list": ["cid@here.test", "loop@here.test"],
        "both": ["one@here.test", "two@here.test"],
        "one": ["cid@here.test"],
        "two": ["cid@here.test"],
    }
    routes = Routes(domains={"here.test": Domain(BOX, users=known.__contains__, aliases=aliases)})

    def reached(name: str) -> list[str]:
        return [stop.destination[:12] for stop in routes.stops_for([Recipient(f"{name}@here.test")])]

    assert reached("loop") == reached("pool+x") == reached("n0") == ["refuse:5.4.6"]
    assert reached("ann") == [BOX[:12]], "whoever has a mailbox has one, whatever circle leads back to it"
    assert reached("list") == [BOX[:12], "refuse:5.4.6"], "a circle beside a mailbox is no secret"
    assert reached("both") == [BOX[:12]], "two ways to one mailbox are no circle"
    assert reached("desk") == [BOX[:12]] * 2, "an alias that names itself means the mailbox of its name"


def test_stops_are_numbered_and_orcpt_of_the_sender_is_kept() -> None:
    envelope = Envelope("s@x.test", (Recipient("team@here.test", ("FAILURE",), "rfc822;T@o.test"),))
    found = ROUTES.stops(envelope)
    assert [stop.number for stop in found] == [0, 1]
    assert all(stop.recipient.orcpt == "rfc822;T@o.test" for stop in found)
    assert all(stop.recipient.notify == ("FAILURE",) for stop in found)


@pytest.mark.parametrize(
    ("notify", "of_the_alias", "of_its_mailboxes"),
    [
        ((), [], ()),
        (("FAILURE", "DELAY"), [], ("FAILURE", "DELAY")),
        (("NEVER",), [], ("NEVER",)),
        (("SUCCESS", "FAILURE"), [("all@here.test", "expand:2")], ("FAILURE",)),
        (("SUCCESS",), [("all@here.test", "expand:2")], ("NEVER",)),
    ],
)
def test_success_is_asked_of_the_alias_and_the_rest_of_its_mailboxes(
    notify: tuple[str, ...], of_the_alias: list[tuple[str, str]], of_its_mailboxes: tuple[str, ...]
) -> None:
    """RFC 3461 5.2.7: one notification says that the alias was expanded; its mailboxes report no success beside it."""
    found = ROUTES.stops_for([Recipient("all@here.test", notify), Recipient("ann@here.test", ("SUCCESS",))])
    assert [stop.number for stop in found] == list(range(len(found)))
    ann, cid, *alias = found
    assert (ann.recipient.address, ann.recipient.notify) == ("ann@here.test", ("SUCCESS",))
    assert (cid.recipient.address, cid.recipient.notify) == ("cid@far.test", of_its_mailboxes)
    assert [(stop.recipient.address, stop.destination) for stop in alias] == of_the_alias
    # One mailbox behind an alias is the recipient by another name: its own success is told.
    (one,) = ROUTES.stops_for([Recipient("who@catch.test", ("SUCCESS",))])
    assert (one.recipient.notify, one.recipient.orcpt) == (("SUCCESS",), "rfc822;who@catch.test")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ann", "ann"),
        ("ann.b-c_d+e", "ann.b-c_d+e"),
        ("../../etc/passwd", "%2e.%2f..%2fetc%2fpasswd"),
        (".hidden", "%2ehidden"),
        ("", "%"),
        ("a/b", "a%2fb"),
        ("a\0b", "a%00b"),
        ("{user}", "%7buser%7d"),
        ("ä", "%c3%a4"),
        ("a\u0308", "%c3%a4"),
        ("Ä", "%c3%a4"),
    ],
)
def test_a_name_is_never_a_path(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(max_size=200), st.text(max_size=200))
def test_different_users_have_different_mailboxes(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (fold(one) == fold(other))


def test_the_short_name_of_a_long_one_is_nobody_s_name() -> None:
    """The cut part's digest could once be had as a name of its own, where it began as an escape does."""
    long = next(f"{'a' * 200}{n}" for n in range(10_000) if safe_name(f"{'a' * 200}{n}")[82:84] == "21")
    short = "a" * 80 + "!" + safe_name(long)[84:]
    assert safe_name(short) != safe_name(long)


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_the_local_part_the_mailbox_lies_under_its_root(user: str, domain: str) -> None:
    path = filled("/root/{domain}/{user}", user, domain)
    assert os.path.normpath(path) == path
    assert path.startswith("/root/") and path.count("/") == 3
    assert all(0 < len(part) <= 128 for part in path.split("/")[2:])


def test_mailbox_names_leave_the_detail_out_and_undo_quotes() -> None:
    assert mailbox("Ann+Lists@Here.Test") == ("ann", "here.test")
    assert mailbox("+x@here.test") == ("+x", "here.test")
    assert split('"a\\"b c"@x.test') == ('a"b c', "x.test")
