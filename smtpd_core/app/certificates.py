"""The certificates of the settings: where they lie, on which terms they serve, what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.files import PairFiles
from certs.issue import ensure_self_signed
from certs.policy import ClientCertificates, ServerPolicy
from certs.renewal import Renewal
from certs.trouble import CertificateError
from smtpd_core.app.settings import Settings


def utc_now() -> datetime:
    return datetime.now(UTC)


def pair_files(settings: Settings) -> list[PairFiles]:
    """Where the certificates of the settings lie; a self-signed one is made at first start. Raises OSError."""
    tls = settings.tls
    if tls.certificate:
        files = [PairFiles(tls.certificate, tls.key, _secret(tls.password_file))]
    else:
        certificate, key = ensure_self_signed(Path(settings.state) / "tls", settings.hostname)
        files = [PairFiles(str(certificate), str(key))]
    for host in tls.host:
        files.append(PairFiles(host.certificate, host.key, _secret(host.password_file), names=(host.name,)))
    return files


def tls_terms(settings: Settings) -> dict[str, Any]:
    """Versions, and what is asked of clients."""
    tls = settings.tls
    return {
        "policy": ServerPolicy(minimum=tls.minimum),  # type: ignore[arg-type]
        "clients": ClientCertificates(tls.clients, tls.client_ca, tls.client_crl),  # type: ignore[arg-type]
    }


def renewal_for(settings: Settings, last: Renewal | None) -> Renewal | None:
    """One that goes on from the last; without a listener under TLS the last stays, for who came before. Raises OSError
    and CertificateError; a start takes what is out of date, with a warning, and what follows it does not."""
    if all(one.tls == "none" for one in settings.listener):
        return last
    if last is None:
        return Renewal(pair_files(settings), **tls_terms(settings))
    return last.successor(pair_files(settings), utc_now(), **tls_terms(settings))


def _secret(path: str) -> str:
    """The first line of a file, "" without one. Raises OSError."""
    return Path(path).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r") if path else ""


def verdict_on_certificates(settings: Settings) -> tuple[list[str], list[str]]:
    """Faults, with which the server would not start, and warnings. Makes no certificate."""
    if not settings.tls.certificate or all(one.tls == "none" for one in settings.listener):
        return [], []
    try:
        renewal = Renewal(pair_files(settings), **tls_terms(settings))
    except (CertificateError, OSError) as error:
        return [f"tls: {error}"], []
    return [], [f"{file}: {problem.text}" for file, problem in renewal.problems(utc_now())]
