"""A set of certificates for tests: an authority, and leaves that are good or bad in one way each.

`python -m certs samples FOLDER` writes it; make_samples() gives it in memory. The authority is not for anything else:
its key lies beside it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs.files import Pair, pem_of, pfx_of, write_file, write_pair
from certs.issue import Wish, authority, issue, revocation_list, self_signed

PFX_PASSWORD = "samples"


@dataclass(frozen=True, slots=True)
class Samples:
    """`root` signs `between`, which signs the leaves; `leaves` by name, see LEAVES; `crl` lists "revoked"."""

    root: Pair
    between: Pair
    leaves: dict[str, Pair]
    crl: x509.CertificateRevocationList


def _leaf(**changes: object) -> Callable[[Pair, str, datetime.datetime], Pair]:
    def make(issuer: Pair, host: str, now: datetime.datetime) -> Pair:
        wish = {"names": (host, "localhost", "127.0.0.1", "::1")}
        found = {name: one(now) if callable(one) else one for name, one in changes.items()}
        return issue(Wish(**{**wish, **found}), issuer)  # type: ignore[arg-type]

    return make


def _days(days: float) -> Callable[[datetime.datetime], datetime.datetime]:
    return lambda now: now + datetime.timedelta(days=days)


def _rsa(issuer: Pair, host: str, now: datetime.datetime) -> Pair:
    return issue(Wish((host, "localhost", "127.0.0.1", "::1")), issuer, kind="rsa-2048")


def _weak(issuer: Pair, host: str, now: datetime.datetime) -> Pair:
    # 1 024 bits on purpose: this certificate is there to be refused.
    return issue(Wish((host, "localhost")), issuer, key=rsa.generate_private_key(65537, 1024))


def _self_signed(issuer: Pair, host: str, now: datetime.datetime) -> Pair:
    return Pair(*self_signed([host, "localhost", "127.0.0.1", "::1"]))


LEAVES: dict[str, Callable[[Pair, str, datetime.datetime], Pair]] = {
    "good": _leaf(),
    "good-rsa": _rsa,
    "wildcard": _leaf(names=("*.example.test",)),
    "client": _leaf(names=("client@example.test", "client.example.test"), subject="client", usages=("client",)),
    "expired": _leaf(valid_from=_days(-60), valid_to=_days(-1)),
    "not-yet-valid": _leaf(valid_from=_days(30), valid_to=_days(90)),
    "expiring": _leaf(valid_from=_days(-60), valid_to=_days(2)),
    "wrong-host": _leaf(names=("elsewhere.example.test",)),
    "weak": _weak,
    "self-signed": _self_signed,
    "revoked": _leaf(),
}


def make_samples(host: str = "mx.example.test", now: datetime.datetime | None = None) -> Samples:
    """The whole set, for this host name; "localhost", 127.0.0.1 and ::1 are in the good ones too."""
    now = now or datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    root = authority("Samples Root (for tests alone)")
    between = authority("Samples Authority (for tests alone)", parent=root, path_length=0)
    leaves = {name: make(between, host, now) for name, make in LEAVES.items()}
    return Samples(root, between, leaves, revocation_list(between, [leaves["revoked"].certificate]))


def write_samples(folder: str | Path, host: str = "mx.example.test") -> list[Path]:
    """Write the set: NAME.pem (with chain), NAME.key, ca.pem (the root to trust), crl.pem, good.pfx (password in
    good.pfx.password), good-without-chain.pem, good-wrong-key.key."""
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    samples = make_samples(host)
    good = samples.leaves["good"]
    for name, pair in {"root": samples.root, "between": samples.between, **samples.leaves}.items():
        write_pair(pair, folder / f"{name}.pem", folder / f"{name}.key")
    write_pair(
        Pair(good.certificate, samples.leaves["self-signed"].key), folder / "mismatch.pem", folder / "mismatch.key"
    )
    write_file(folder / "without-chain.pem", pem_of(good.certificate))
    write_file(folder / "ca.pem", pem_of(samples.root.certificate))
    write_file(folder / "crl.pem", samples.crl.public_bytes(Encoding.PEM))
    write_file(folder / "good.pfx", pfx_of(good, PFX_PASSWORD, "good"), private=True)
    write_file(folder / "good.pfx.password", PFX_PASSWORD.encode() + b"\n", private=True)
    return sorted(folder.iterdir())
