"""The way to a domain: RFC 5321 5, RFC 7505 and what DNS can do instead of answering; pure, then with a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rcode
import dns.resolver
import pytest

from relay.__main__ import main
from relay.mx import Dns, Known, Lookup, Planner, planned, split_host
from relay.plan import NoRoute
from relay.relaying import Relaying
from tests.support.clock import FakeClock
from tests.support.name_server import NameServer


def asker(answers: dict[str, Lookup | list[str] | list[tuple[int, str]] | Known]):  # type: ignore[no-untyped-def]
    """Answers by "TYPE name"; what is not there has no record."""

    def ask(name: str, kind: str) -> Lookup:
        found = answers.get(f"{kind} {name}", Known.NO_RECORD)
        if isinstance(found, Known):
            return Lookup(found)
        if isinstance(found, list):
            return Lookup(Known.FOUND, tuple(one if isinstance(one, tuple) else (0, one) for one in found), 60.0)
        return found

    return ask


def way(domain: str, answers: dict[str, object], **more: object) -> list[str]:
    plan = planned(domain, asker(answers), shuffle=lambda several: several.sort(), **more)  # type: ignore[arg-type]
    return [f"{hop.host} {hop.address} {hop.port}" for hop in plan.hops]


def test_preference_rules_and_both_families_of_a_host_follow_each_other() -> None:
    answers = {
        "MX a.test": [(20, "c.test"), (10, "b.test")],
        "A b.test": ["192.0.2.1", "192.0.2.2"],
        "AAAA b.test": ["2001:db8::1"],
        "A c.test": ["192.0.2.3"],
    }
    expected = ["b.test 2001:db8::1 25", "b.test 192.0.2.1 25", "b.test 192.0.2.2 25", "c.test 192.0.2.3 25"]
    assert way("a.test", answers) == expected
    assert way("a.test", answers, ipv6_first=False)[0] == "b.test 192.0.2.1 25"


def test_equal_preferences_are_shuffled_among_themselves_only() -> None:
    answers = {"MX a.test": [(10, f"m{n}") for n in range(6)] + [(5, "first"), (20, "last")]}
    answers |= {f"A {host}": ["192.0.2.1"] for host in ["first", "last", *(f"m{n}" for n in range(6))]}
    orders = {tuple(hop.host for hop in planned("a.test", asker(answers)).hops) for _ in range(50)}
    assert len(orders) > 1
    assert all(order[0] == "first" and order[-1] == "last" for order in orders)


@pytest.mark.parametrize(
    ("answers", "enhanced", "permanent"),
    [
        ({"MX a.test": [(0, "")]}, "5.1.10", True),
        ({"MX a.test": Known.NO_DOMAIN}, "5.1.2", True),
        ({"MX a.test": Known.FAILED}, "4.4.3", False),
        ({"MX a.test": Known.TIMED_OUT}, "4.4.3", False),
        ({}, "5.4.4", True),
        ({"AAAA a.test": Known.TIMED_OUT}, "4.4.3", False),
        ({"MX a.test": [(1, "b.test")]}, "5.4.4", True),
        ({"MX a.test": [(1, "b.test")], "A b.test": Known.NO_DOMAIN}, "5.4.4", True),
        ({"MX a.test": [(1, "b.test"), (2, "c.test")], "A c.test": Known.FAILED}, "4.4.3", False),
        ({"MX a.test": [(1, "me.test")]}, "5.4.6", True),
        ({"MX a.test": [(1, "me.test"), (2, "b.test")], "A b.test": ["192.0.2.1"]}, "5.4.6", True),
    ],
)
def test_where_there_is_no_way_it_is_said_whether_for_ever(
    answers: dict[str, object], enhanced: str, permanent: bool
) -> None:
    with pytest.raises(NoRoute) as caught:
        way("a.test", answers, own_names=("me.test",))
    assert (caught.value.enhanced, caught.value.permanent) == (enhanced, permanent)
    if enhanced == "5.1.10":
        assert caught.value.code == 556  # RFC 7505 4.2


def test_no_mx_means_the_domains_own_address_and_an_mx_without_address_does_not() -> None:
    assert way("a.test", {"A a.test": ["192.0.2.1"]}) == ["a.test 192.0.2.1 25"]
    with pytest.raises(NoRoute):
        way("a.test", {"MX a.test": [(1, "b.test")], "A a.test": ["192.0.2.1"]})


def test_only_servers_better_than_ourselves_are_left() -> None:
    answers = {
        "MX a.test": [(1, "b.test"), (5, "me.test"), (5, "c.test"), (9, "d.test")],
        **{f"A {host}.test": ["192.0.2.1"] for host in "bcd"},
    }
    assert way("a.test", answers, own_names=("me.test",)) == ["b.test 192.0.2.1 25"]


def test_one_server_that_can_not_be_looked_up_does_not_hide_the_others() -> None:
    answers = {"MX a.test": [(1, "b.test"), (2, "c.test")], "A b.test": Known.FAILED, "A c.test": ["192.0.2.1"]}
    assert way("a.test", answers) == ["c.test 192.0.2.1 25"]


def test_null_mx_beside_others_is_a_mistake_and_names_no_host() -> None:
    answers = {"MX a.test": [(0, ""), (5, "b.test")], "A b.test": ["192.0.2.1"]}
    assert way("a.test", answers) == ["b.test 192.0.2.1 25"]


@pytest.mark.parametrize(
    ("literal", "address"),
    [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1"), ("[ipv6:::1]", "::1")],
)
def test_address_literals_need_no_dns(literal: str, address: str) -> None:
    assert way(literal, {}) == [f"{literal} {address} 25"]


@pytest.mark.parametrize("literal", ["[999.1.1.1]", "[x]", "[IPv6:zz]", "["])
def test_a_literal_that_is_none_is_permanent(literal: str) -> None:
    with pytest.raises(NoRoute) as caught:
        way(literal, {})
    assert caught.value.permanent


def test_smart_hosts_are_tried_in_their_order() -> None:
    planner = Planner(Relaying())
    plan = planner.plan("smtp:127.0.0.1:2525,[::1]:26,127.0.0.2")
    assert [(hop.address, hop.port) for hop in plan.hops] == [("127.0.0.1", 2525), ("::1", 26), ("127.0.0.2", 25)]
    assert planner.plan("lmtp:unix:/run/lmtp").hops[0].port == 0
    with pytest.raises(NoRoute) as caught:
        planner.plan("smtp:no-such-host.invalid:25")
    assert not caught.value.permanent


@pytest.mark.parametrize("wrong", ["host:0", "host:x", ":25", "[::1]:99999"])
def test_a_host_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(ValueError):
        split_host(wrong, 25)


ZONES = {
    "plain.test": "@ MX 20 mx2\n@ MX 10 mx1\nmx1 A 127.0.0.11\nmx1 AAAA ::11\nmx2 A 127.0.0.12\n",
    "null.test": "@ MX 0 .\n",
    "bare.test": "@ A 127.0.0.13\n",
    "empty.test": "@ TXT nothing\nalias CNAME www.bare.test.\nwww A 127.0.0.14\n",
    "alias.test": "www CNAME real\nreal MX 5 mx\nmx A 127.0.0.15\n",
    "dangling.test": "@ MX 5 nowhere\n",
    "xn--bcher-kva.test": "@ MX 1 mx\nmx A 127.0.0.16\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    with NameServer(tmp_path_factory.mktemp("nsd"), ZONES) as running:
        yield running


@pytest.mark.debian("nsd")
@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("plain.test", ["::11", "127.0.0.11", "127.0.0.12"]),
        ("PLAIN.test.", ["::11", "127.0.0.11", "127.0.0.12"]),
        ("bare.test", ["127.0.0.13"]),
        ("www.alias.test", ["127.0.0.15"]),
        ("bücher.test", ["127.0.0.16"]),
    ],
)
def test_a_real_server_names_the_way(server: NameServer, domain: str, hosts: list[str]) -> None:
    plan = Planner(Relaying(dns_server=server.address)).plan(f"mx:{domain}")
    assert [hop.address for hop in plan.hops] == hosts


@pytest.mark.debian("nsd")
@pytest.mark.parametrize(
    ("domain", "enhanced", "permanent"),
    [
        ("null.test", "5.1.10", True),
        ("empty.test", "5.4.4", True),
        ("none.plain.test", "5.1.2", True),
        ("dangling.test", "5.4.4", True),
        # No zone of this server: it refuses, which says nothing about the domain.
        ("foreign.example", "4.4.3", False),
        ("a" * 64 + ".test", "5.1.2", True),
    ],
)
def test_a_real_server_says_that_there_is_none(server: NameServer, domain: str, enhanced: str, permanent: bool) -> None:
    with pytest.raises(NoRoute) as caught:
        Planner(Relaying(dns_server=server.address)).plan(f"mx:{domain}")
    assert (caught.value.enhanced, caught.value.permanent) == (enhanced, permanent)


def test_a_silent_server_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.mx.LIFETIME", 0.3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        dns = Dns(f"127.0.0.1:{silent.getsockname()[1]}")
        assert dns.ask("a.test", "MX").known is Known.TIMED_OUT


@pytest.mark.debian("nsd")
def test_of_thousands_of_servers_the_best_are_kept(tmp_path: Path) -> None:
    """Each plan for such a domain took seconds, and its answer a megabyte of the cache for up to an hour."""
    zone = "\n".join(f"@ MX {3000 - n} h{n}" for n in range(3000))
    with NameServer(tmp_path / "nsd", {"a.test": zone}) as server:
        found = Dns(server.address).ask("a.test", "MX")
    assert [preference for preference, _ in found.records] == list(range(1, 101))


@pytest.mark.debian("nsd")
def test_answers_are_kept_for_their_ttl_and_no_longer(tmp_path: Path) -> None:
    clock = FakeClock()
    with NameServer(tmp_path / "nsd", {"a.test": "@ MX 1 mx\nmx A 127.0.0.1"}, ttl=40) as server:
        dns = Dns(server.address, clock)
        assert dns.ask("a.test", "MX").known is Known.FOUND
        assert dns.ask("none.a.test", "MX").known is Known.NO_DOMAIN
    dns._resolver.lifetime = 0.3
    clock.advance(25)
    assert dns.ask("none.a.test", "MX").known is Known.NO_DOMAIN
    clock.advance(10)  # the SOA's minimum is 30
    assert not dns.ask("none.a.test", "MX").known.is_certain
    assert dns.ask("a.test", "MX").known is Known.FOUND
    clock.advance(10)
    assert not dns.ask("a.test", "MX").known.is_certain


@pytest.mark.debian("nsd")
@pytest.mark.parametrize(("ttl", "kept"), [(0, 5.0), (1, 5.0), (40, 40.0), (86_400, 3600.0)])
def test_a_ttl_is_believed_within_bounds(tmp_path: Path, ttl: int, kept: float) -> None:
    """No storm of questions for a TTL of 0, no day of a wrong answer."""
    clock = FakeClock()
    with NameServer(tmp_path / "nsd", {"a.test": "@ MX 1 mx\nmx A 127.0.0.1"}, ttl=ttl) as server:
        dns = Dns(server.address, clock)
        assert dns.ask("a.test", "MX").known is Known.FOUND
    dns._resolver.lifetime = 0.3
    clock.advance(kept - 0.1)
    assert dns.ask("a.test", "MX").known is Known.FOUND
    clock.advance(0.2)
    assert not dns.ask("a.test", "MX").known.is_certain


@pytest.mark.parametrize(
    ("rcode", "known"),
    [
        (dns.rcode.SERVFAIL, Known.FAILED),
        (dns.rcode.REFUSED, Known.FAILED),
        (dns.rcode.NOTIMP, Known.FAILED),
        (dns.rcode.NXDOMAIN, Known.NO_DOMAIN),
        (dns.rcode.NOERROR, Known.NO_RECORD),
    ],
)
def test_what_a_server_answers_tells_never_from_not_now(rcode: int, known: Known) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    data, client = server.recvfrom(4096)
                except OSError:
                    return
                question = dns.message.from_wire(data)
                answer = dns.message.make_response(question)
                answer.set_rcode(rcode)
                server.sendto(answer.to_wire(), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        asker = Dns(f"127.0.0.1:{server.getsockname()[1]}")
        assert asker.ask("a.test", "MX").known is known


@pytest.mark.debian("nsd")
def test_the_plan_is_printed_step_by_step(server: NameServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mx", "--dns-server", server.address, "plain.test"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] in ("MX plain.test: 20 mx2.plain.test, 10 mx1.plain.test",
                       "MX plain.test: 10 mx1.plain.test, 20 mx2.plain.test")  # fmt: skip
    assert "try mx1.plain.test[::11]:25" in told
    assert main(["mx", "--dns-server", server.address, "null.test"]) == 1
    assert main(["mx", "--dns-server", server.address, "foreign.example"]) == 75
    assert main(["mx", "--smarthost", "127.0.0.1:2525", "null.test"]) == 0
    assert main(["mx", "--dns-server", "not an address", "x.test"]) == 2


def test_a_system_without_name_servers_can_use_smart_hosts_and_defers_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*arguments: object, **more: object) -> None:
        raise dns.resolver.NoResolverConfiguration("cannot open /etc/resolv.conf")

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", unreadable)
    planner = Planner(Relaying())
    assert planner.plan("smtp:127.0.0.1:25").hops[0].port == 25
    with pytest.raises(NoRoute) as caught:
        planner.plan("mx:there.test")
    assert not caught.value.permanent
