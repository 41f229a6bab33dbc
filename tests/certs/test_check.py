"""What is wrong with a certificate, in one line each: the samples, and chains that are not what they should be."""

from __future__ import annotations

import datetime

import pytest

from certs.check import Problem, problems_of, problems_of_bundle
from certs.files import Pair
from certs.keys import new_key
from certs.samples import Samples, make_samples

NOW = datetime.datetime.now(datetime.UTC)
HOST = "mx.example.test"


@pytest.fixture(scope="module")
def samples() -> Samples:
    return make_samples(HOST)


def words(problems: list[Problem]) -> list[str]:
    return [one.what for one in problems if one.is_error]


@pytest.mark.parametrize(
    "name, what",
    [
        ("good", []),
        ("good-rsa", []),
        ("expired", ["expired"]),
        ("not-yet-valid", ["not-yet-valid"]),
        ("expiring", []),
        ("wrong-host", ["name"]),
        ("weak", ["weak"]),
        ("self-signed", ["untrusted"]),
        ("revoked", ["revoked"]),
        ("client", ["name", "purpose"]),
    ],
)
def test_each_sample_has_its_own_fault_and_no_other(samples: Samples, name: str, what: list[str]) -> None:
    pair = samples.leaves[name]
    found = problems_of(
        pair.certificate,
        now=NOW,
        key=pair.key,
        chain=pair.chain,
        hosts=[HOST],
        roots=[samples.root.certificate],
        revocations=[samples.crl],
    )
    assert words(found) == what


def test_a_key_of_another_certificate_is_named(samples: Samples) -> None:
    good = samples.leaves["good"]
    assert words(problems_of(good.certificate, now=NOW, key=new_key(), chain=good.chain)) == ["mismatch"]


@pytest.mark.parametrize("days, text", [(31, ""), (29, "in 29 days"), (1.5, "in 1 day"), (0.5, "within a day")])
def test_what_expires_soon_is_a_warning(samples: Samples, days: float, text: str) -> None:
    good = samples.leaves["good"]
    now = good.certificate.not_valid_after_utc - datetime.timedelta(days=days)
    found = problems_of(good.certificate, now=now, chain=good.chain)
    assert [one.what for one in found] == (["expiring"] if text else [])
    assert all(text in one.text and not one.is_error for one in found)


def test_a_missing_link_is_an_error_where_the_roots_are_known(samples: Samples) -> None:
    good = samples.leaves["good"].certificate
    found = problems_of(good, now=NOW, roots=[samples.root.certificate])
    assert words(found) == ["chain"] and "Samples Authority" in found[0].text
    found = problems_of(good, now=NOW)
    assert [(one.what, one.is_error) for one in found] == [("chain", False)]


def test_a_chain_out_of_order_is_told_with_the_right_one(samples: Samples) -> None:
    good = samples.leaves["good"].certificate
    found = problems_of(good, now=NOW, chain=[samples.root.certificate, samples.between.certificate])
    assert "out of order" in found[0].text and found[0].is_error


def test_a_file_that_begins_with_the_authority_is_out_of_order(samples: Samples) -> None:
    good = samples.leaves["good"]
    found = problems_of_bundle([samples.between.certificate, good.certificate], now=NOW, key=good.key)
    assert words(found) == ["chain"] and "must come first" in found[0].text


def test_strays_and_roots_in_the_chain_are_warnings(samples: Samples) -> None:
    good = samples.leaves["good"]
    stray = samples.leaves["self-signed"].certificate
    found = problems_of(good.certificate, now=NOW, chain=[*good.chain, samples.root.certificate, stray])
    assert [(one.what, one.is_error) for one in found] == [("chain", False), ("chain", False)]


def test_an_expired_authority_is_named(samples: Samples) -> None:
    good = samples.leaves["good"]
    later = samples.between.certificate.not_valid_after_utc + datetime.timedelta(days=1)
    assert words(problems_of(good.certificate, now=later, chain=good.chain)) == ["expired", "expired"]


def test_a_root_that_is_not_trusted_is_named(samples: Samples, root: Pair) -> None:
    good = samples.leaves["good"]
    chain = [*good.chain, samples.root.certificate]
    assert words(problems_of(good.certificate, now=NOW, chain=chain, roots=[root.certificate])) == ["untrusted"]
