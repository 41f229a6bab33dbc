"""Renewal: what is good is served, what is bad is reported and the old stays; warnings come once each."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.contexts import ClientContext
from certs.files import Pair, PairFiles, write_pair
from certs.issue import Wish, authority, issue, self_signed
from certs.keys import new_key
from certs.policy import ClientPolicy
from certs.renewal import Renewal
from certs.stream import TlsStream
from certs.trouble import CertificateError
from tests.certs.talk import carry, shake_hands

NOW = datetime.datetime.now(datetime.UTC)


class Served:
    """A pair in files, and the renewal that watches them."""

    def __init__(self, folder: Path, pair: Pair, names: tuple[str, ...] = ()) -> None:
        self.certificate, self.key = folder / "mx.pem", folder / "mx.key"
        self.put(pair)
        self.renewal = Renewal([PairFiles(str(self.certificate), str(self.key), names=names)])

    def put(self, pair: Pair) -> None:
        write_pair(pair, self.certificate, self.key)

    def shown(self) -> bytes:
        _, client = self.talk()
        return client.facts.peer_certificate

    def talk(self) -> tuple[TlsStream, TlsStream]:
        server, client = self.renewal.contexts.stream(), ClientContext(ClientPolicy()).stream("mx.test")
        shake_hands(server, client)
        return server, client

    def look_twice(self, now: datetime.datetime = NOW) -> list[str]:
        return self.renewal.look(now) + self.renewal.look(now)


def der(pair: Pair) -> bytes:
    return pair.certificate.public_bytes(Encoding.DER)


@pytest.fixture
def served(tmp_path: Path, between: Pair) -> Served:
    return Served(tmp_path, issue(Wish(("mx.test",)), between))


def test_a_new_pair_is_served_once_it_lies_still(served: Served, between: Pair) -> None:
    fresh = issue(Wish(("mx.test",)), between)
    before = served.shown()
    served.put(fresh)
    assert served.renewal.look(NOW) == []
    assert served.shown() == before
    assert served.renewal.look(NOW) == []
    assert served.shown() == der(fresh)


def test_a_session_in_progress_goes_on_through_a_renewal(served: Served, between: Pair) -> None:
    server, client = served.talk()
    half, half_client = served.renewal.contexts.stream(), ClientContext().stream("mx.test")
    half_client.handshake()
    carry(half_client, half)
    served.put(issue(Wish(("mx.test",)), between))
    assert served.renewal.reload(NOW) == []
    half.handshake()
    shake_hands(half, half_client)
    client.write(b"NOOP\r\n")
    carry(client, server)
    assert server.read() == b"NOOP\r\n"


@pytest.mark.parametrize(
    "what, wish",
    [
        ("expired", Wish(("mx.test",), valid_from=NOW - datetime.timedelta(9), valid_to=NOW - datetime.timedelta(1))),
        ("not valid before", Wish(("mx.test",), valid_from=NOW + datetime.timedelta(9), days=99)),
        ("is not covered", Wish(("other.test",))),
        ("not for use as server", Wish(("mx.test",), usages=("client",))),
    ],
)
def test_a_bad_certificate_is_reported_and_the_old_one_stays(
    served: Served, between: Pair, caplog: pytest.LogCaptureFixture, what: str, wish: Wish
) -> None:
    before = served.shown()
    served.put(issue(wish, between))
    with caplog.at_level(logging.ERROR, "certs.renewal"):
        told = served.look_twice()
    assert len(told) == 1 and what in told[0]
    assert "the old ones stay" in caplog.text
    assert served.shown() == before
    assert served.look_twice() == [], "said once, until the files change again"


def test_a_key_that_does_not_fit_is_reported(served: Served, between: Pair) -> None:
    before = served.shown()
    served.put(Pair(issue(Wish(("mx.test",)), between).certificate, new_key()))
    assert "is not the key of" in served.look_twice()[0]
    assert served.shown() == before
    fresh = issue(Wish(("mx.test",)), between)
    served.put(fresh)
    assert served.look_twice() == []
    assert served.shown() == der(fresh)


def test_a_file_that_is_gone_or_garbled_changes_nothing(served: Served) -> None:
    before = served.shown()
    served.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")
    assert "can't be read" in served.look_twice()[0]
    served.certificate.unlink()
    assert served.look_twice()
    assert served.shown() == before


def test_a_file_that_is_half_written_changes_nothing(served: Served, between: Pair) -> None:
    """The first certificate is whole already: it would be served without its chain."""
    before = served.shown()
    served.put(issue(Wish(("mx.test",)), between))
    served.certificate.write_bytes(served.certificate.read_bytes()[:-40])
    assert "breaks off within a certificate" in served.look_twice()[0]
    assert served.shown() == before


def test_a_new_chain_under_the_old_certificate_is_checked_too(served: Served) -> None:
    stray = Pair(*self_signed(["stray.test"]))
    pair = served.renewal.by_file[str(served.certificate)]
    before = served.renewal.contexts.pairs
    served.put(Pair(pair.certificate, pair.key, (authority("Another Root").certificate, *pair.chain)))
    assert "order" in served.look_twice()[0]
    assert served.renewal.contexts.pairs == before
    served.put(Pair(pair.certificate, pair.key, (*pair.chain, stray.certificate)))
    assert served.look_twice() == [], "a stray is worth a warning of check, no more"


def test_an_old_fault_is_no_reason_to_refuse_a_renewal(tmp_path: Path, between: Pair) -> None:
    served = Served(tmp_path, issue(Wish(("mx.test",), usages=("client",)), between))
    fresh = issue(Wish(("mx.test",), usages=("client",)), between)
    served.put(fresh)
    assert served.look_twice() == []
    assert served.shown() == der(fresh)


def test_names_in_the_settings_must_stay_covered(tmp_path: Path, between: Pair) -> None:
    served = Served(tmp_path, issue(Wish(("mx.test", "*.mail.test")), between), names=("*.mail.test",))
    served.put(issue(Wish(("mx.test",)), between))
    assert "*.mail.test is not covered" in served.look_twice()[0]


def test_a_start_without_a_usable_pair_fails(tmp_path: Path, between: Pair) -> None:
    with pytest.raises(OSError):
        Renewal([PairFiles(str(tmp_path / "none.pem"))])
    certificate, key = tmp_path / "mx.pem", tmp_path / "mx.key"
    write_pair(Pair(issue(Wish(("mx.test",)), between).certificate, new_key()), certificate, key)
    with pytest.raises(CertificateError, match=r"mx\.key"):
        Renewal([PairFiles(str(certificate), str(key))])


def test_expiry_is_warned_of_once_at_each_mark(served: Served) -> None:
    ends = served.renewal.contexts.pairs[0].certificate.not_valid_after_utc
    told: list[tuple[float, str]] = []
    for hours in range(40 * 24, -48, -6):
        for line in served.renewal.warn(ends - datetime.timedelta(hours=hours)):
            told.append((hours / 24, line.partition("certificate ")[2].split(",")[0]))
    assert [days for days, _ in told] == [30, 14, 7, 3, 1, 0]
    assert [line.removeprefix("expires in less than ") for _, line in told[:5]] == [
        "30 days",
        "14 days",
        "7 days",
        "3 days",
        "a day",
    ]


def test_a_late_start_warns_of_the_nearest_mark_alone(served: Served) -> None:
    ends = served.renewal.contexts.pairs[0].certificate.not_valid_after_utc
    assert len(served.renewal.warn(ends - datetime.timedelta(days=5))) == 1
    assert served.renewal.by_file[str(served.certificate)].certificate.not_valid_after_utc == ends
