"""The guard's rules, with the clock as an argument."""

from __future__ import annotations

import ipaddress

import pytest

from smtpd_core.net.guard import (
    BLOCKED_554,
    FULL_421,
    SOURCE_FULL_421,
    TOO_OFTEN_421,
    Guard,
    GuardSettings,
    Networks,
    Tally,
    prefix_of,
)


def test_the_total_is_limited_and_a_closed_connection_makes_room():
    guard = Guard(GuardSettings(max_connections=2))
    assert guard.admit("192.0.2.1", 0) is None
    assert guard.admit("192.0.2.2", 0) is None
    assert guard.admit("192.0.2.3", 0) == FULL_421
    guard.release("192.0.2.1")
    assert guard.admit("192.0.2.3", 0) is None


def test_a_source_is_limited_and_loopback_is_exempt():
    guard = Guard(GuardSettings(max_per_source=2))
    assert [guard.admit("192.0.2.1", 0) for _ in range(3)] == [None, None, SOURCE_FULL_421]
    assert guard.admit("192.0.2.2", 0) is None
    assert [guard.admit("127.0.0.1", 0) for _ in range(5)] == [None] * 5


@pytest.mark.parametrize(
    "address, same, other",
    [
        ("192.0.2.1", "192.0.2.200", "192.0.3.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::", "2001:db8:0:2::1"),
        ("::ffff:192.0.2.1", "192.0.2.2", "192.0.3.1"),
        ("fe80::1%eth0", "fe80::2", "fe81::1"),
    ],
)
def test_prefixes_are_24_and_64_bits(address, same, other):
    assert prefix_of(address) == prefix_of(same) != prefix_of(other)


def test_a_prefix_is_limited():
    guard = Guard(GuardSettings(max_per_prefix=2))
    assert guard.admit("192.0.2.1", 0) is None
    assert guard.admit("192.0.2.2", 0) is None
    assert guard.admit("192.0.2.3", 0) == SOURCE_FULL_421
    assert guard.admit("192.0.3.3", 0) is None
    guard.release("192.0.2.1")
    assert guard.admit("192.0.2.3", 0) is None


def test_a_limit_on_prefixes_that_comes_and_goes_counts_what_is_open():
    """Connections that closed while it was off were counted for ever."""
    on, off = GuardSettings(max_per_prefix=2), GuardSettings()
    guard = Guard(on)
    for number in (1, 2):
        assert guard.admit(f"192.0.2.{number}", 0) is None
    guard.change(off)
    for number in (1, 2):
        guard.release(f"192.0.2.{number}")
    assert guard.admit("192.0.2.3", 0) is None
    guard.change(on)
    assert guard.admit("192.0.2.4", 0) is None
    assert guard.admit("192.0.2.5", 0) == SOURCE_FULL_421
    guard.release("192.0.2.3")
    assert guard.admit("192.0.2.5", 0) is None


def test_blocked_sources_are_told_554_and_the_allow_list_is_stronger():
    guard = Guard(GuardSettings(block=("192.0.2.0/24",), allow=("192.0.2.7",)))
    assert guard.admit("192.0.2.1", 0) == BLOCKED_554
    assert guard.admit("192.0.2.7", 0) is None
    assert guard.admit("198.51.100.1", 0) is None


def test_allow_list_only():
    guard = Guard(GuardSettings(allow=("2001:db8::/32", "10.0.0.0/8"), allow_only=True))
    assert guard.admit("2001:db8:1::1", 0) is None
    assert guard.admit("10.9.9.9", 0) is None
    assert guard.admit("192.0.2.1", 0) == BLOCKED_554


def test_connections_per_period():
    guard = Guard(GuardSettings(connections_per_period=3, period=60))
    for now in (1000, 1001, 1002):
        assert guard.admit("192.0.2.1", now) is None
        guard.release("192.0.2.1")
    assert guard.admit("192.0.2.1", 1003) == TOO_OFTEN_421
    assert guard.admit("192.0.2.2", 1003) is None
    assert guard.admit("192.0.2.1", 1200) is None


def test_messages_per_period():
    guard = Guard(GuardSettings(messages_per_period=2, period=60))
    assert [guard.may_send("192.0.2.1", 1000) for _ in range(3)] == [True, True, False]
    assert guard.may_send("127.0.0.1", 1000)
    assert guard.may_send("192.0.2.1", 1200)


def test_login_delay_doubles_and_a_success_clears_the_user():
    guard = Guard(GuardSettings(login_delay=1, max_login_delay=5))
    delays = []
    for _ in range(5):
        assert guard.begin_login("", "ann", 1000)
        delays.append(guard.login_delay("", "ann", 1000))
    assert delays == [1, 2, 4, 5, 5]
    guard.login_succeeded("", "ann")
    assert guard.login_delay("", "ann", 1000) == 0


def test_a_user_is_locked_out_from_anywhere_and_a_source_for_any_user():
    guard = Guard(GuardSettings(lock_out_after=3, lock_out_period=900))
    for number in range(3):
        assert guard.begin_login(f"192.0.2.{number}", "ann", 1000)
        assert guard.begin_login("198.51.100.1", f"user{number}", 1000)
    assert guard.locked_out("203.0.113.1", "ann", 1000)
    assert guard.locked_out("198.51.100.1", "bob", 1000)
    assert not guard.locked_out("203.0.113.1", "bob", 1000)
    assert not guard.locked_out("203.0.113.1", "ann", 4000)


def test_only_so_many_attempts_are_judged_however_many_begin_at_once():
    guard = Guard(GuardSettings(lock_out_after=10))
    judged = sum(guard.begin_login("192.0.2.1", f"user{number}", 1000) for number in range(100_000))
    assert judged == 10
    assert not guard.begin_login("192.0.2.1", "ann", 1000) and guard.begin_login("192.0.2.2", "ann", 1000)


def test_spellings_of_a_name_and_addresses_of_a_network_share_a_counter():
    guard = Guard(GuardSettings(lock_out_after=3))
    for name in ("ann", "ANN", "\uff41nn"):
        assert guard.begin_login("", name, 1000)
    assert guard.locked_out("192.0.2.9", "Ann", 1000)
    for number in range(3):
        assert guard.begin_login(f"2001:db8::{number}", f"u{number}", 1000)
    assert guard.locked_out("2001:db8::ffff", "bob", 1000) and not guard.locked_out("2001:db8:0:1::1", "bob", 1000)
    for _ in range(5):
        assert guard.begin_login("", "", 1000), "who names nobody locks nobody out"


def test_what_could_not_be_judged_and_what_was_right_is_taken_back():
    guard = Guard(GuardSettings(lock_out_after=3))
    for _ in range(20):
        assert guard.begin_login("192.0.2.1", "ann", 1000)
        guard.login_not_judged("192.0.2.1", "ann")
    for _ in range(20):
        assert guard.begin_login("192.0.2.1", "ann", 1000)
        guard.login_succeeded("192.0.2.1", "ann")
    assert guard.login_delay("192.0.2.1", "ann", 1000) == 0


def test_a_million_addresses_do_not_grow_the_counters():
    tally = Tally(60, 1000)
    for number in range(20_000):
        tally.add(f"k{number}", 1000)
        assert len(tally) <= 1000


def test_a_flood_of_other_names_does_not_wash_away_a_lock_out():
    guard = Guard(GuardSettings(lock_out_after=10, tracked=1000))
    judged = 0
    for number in range(20_000):
        guard.begin_login(f"2001:db8:0:{number:x}::1", f"user{number}", 1000)
        if number % 20 == 0:
            judged += guard.begin_login(f"2001:db9:0:{number:x}::1", "ann", 1000)
        assert len(guard._failures) <= 1000
    assert judged == 10
    assert guard.begin_login("2001:db9::1", "ann", 1000 + 2 * guard.settings.lock_out_period), "and it ends"


def test_a_tally_slides():
    tally = Tally(60, 1000)
    for _ in range(60):
        tally.add("k", 1000)
    assert tally.count("k", 1059) == 60
    assert 25 <= tally.count("k", 1090) <= 35
    assert tally.count("k", 1121) == 0


def test_networks_answer_as_ipaddress_does():
    texts = ["192.0.2.0/24", "10.1.2.3", "2001:db8::/32", "::1"]
    networks = Networks(texts)
    reference = [ipaddress.ip_network(text) for text in texts]
    for text in ["192.0.2.255", "192.0.3.0", "10.1.2.3", "10.1.2.4", "2001:db8:ffff::", "2001:db9::", "::1", "::2"]:
        address = ipaddress.ip_address(text)
        assert (text in networks) == any(address in network for network in reference), text
    assert "" not in networks  # a client on a unix socket
    with pytest.raises(ValueError, match="nonsense"):
        Networks(["nonsense"])


def test_a_refused_newcomer_is_not_counted():
    guard = Guard(GuardSettings(block=("192.0.2.0/24",)))
    for _ in range(3):
        guard.admit("192.0.2.1", 0)
    assert guard.connections == 0 and guard.refused == 3
