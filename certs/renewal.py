"""New certificates without a restart: files are watched, checked, then served; and warnings before they expire.

Rules: a new set is used whole or not at all, and only when nothing is wrong with it that is not wrong with the one in
use; else the old one stays and the log says why. Two files can't be replaced in one step, so a change is taken up when
it has been still from one look to the next. Clocks are arguments.

Thread: one at a time (the owner's timer); handshakes go on in others meanwhile.
Not here: when to look (app), SIGHUP (app calls reload).
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes

from certs.check import WARN_DAYS, Problem, problems_of
from certs.contexts import ServerContexts, arranged
from certs.files import Pair, PairFiles
from certs.policy import ClientCertificates, ServerPolicy
from certs.stream import Choose
from certs.trouble import CertificateError

log = logging.getLogger(__name__)

Mark = tuple[tuple[int, int, int] | None, ...]


class Renewal:
    """Keeps `contexts` in step with the files that its pairs come from.

    The first of `files` is the default; the files of `clients` are watched too. CertificateError or OSError where they
    are of no use at the start: with nothing to fall back to, a start must fail.
    """

    def __init__(
        self,
        files: Sequence[PairFiles],
        *,
        policy: ServerPolicy | None = None,
        clients: ClientCertificates | None = None,
        choose: Choose | None = None,
    ) -> None:
        self._files = tuple(files)
        self._others = tuple(path for path in ((clients.ca_file, clients.crl_file) if clients else ()) if path)
        self._seen = self._settled = self._mark()
        self._pairs = [one.read() for one in self._files]
        self._told: dict[tuple[str, bytes], int] = {}
        default, hosts = arranged(self._files, self._pairs)
        self.contexts = ServerContexts(default, hosts, policy=policy, clients=clients, choose=choose)

    def look(self, now: datetime.datetime) -> list[str]:
        """To be called every few seconds, costs one stat a file. Takes up what changed, warns of what expires; the
        lines that it logged."""
        mark = self._mark()
        told: list[str] = []
        if mark != self._seen:
            self._seen = mark  # still on the way; the next look decides
        elif mark != self._settled:
            told += self.reload(now)
        return told + self.warn(now)

    def reload(self, now: datetime.datetime) -> list[str]:
        """Read all files now, check them, serve new handshakes with them. What is wrong is returned and logged, and
        then nothing has changed."""
        self._seen = self._settled = self._mark()
        try:
            fresh = [one.read() for one in self._files]
            told = [
                line
                for one, old, new in zip(self._files, self._pairs, fresh, strict=True)
                for line in _objections(one, old, new, now)
            ]
            if not told:
                self.contexts.replace(*arranged(self._files, fresh))
        except Exception as error:  # a file that nobody foresaw must not end the server that looks at it
            told = [str(error) or type(error).__name__]
        if told:
            for line in told:
                log.error("new certificates are not used, the old ones stay: %s", line)
            return told
        for files, old, new in zip(self._files, self._pairs, fresh, strict=True):
            if old.certificate != new.certificate:
                ends = new.certificate.not_valid_after_utc
                log.info("%s: new certificate in use, valid until %s", files.certificate, f"{ends:%Y-%m-%d %H:%M} UTC")
        self._pairs = fresh
        return []

    def successor(
        self,
        files: Sequence[PairFiles],
        now: datetime.datetime,
        *,
        policy: ServerPolicy | None = None,
        clients: ClientCertificates | None = None,
        choose: Choose | None = None,
    ) -> Renewal:
        """For settings that were read anew: another renewal to go on with, checked as reload() checks. Raises
        CertificateError or OSError, with a line for each fault; then this one is to be kept."""
        fresh = Renewal(files, policy=policy, clients=clients, choose=choose)
        old = dict(zip(self._files, self._pairs, strict=True))
        told = []
        for one, new in zip(fresh._files, fresh._pairs, strict=True):
            before = old.get(one)
            told += _objections(one, before, new, now) if before is not None else _faults(one, new, now)
        if told:
            raise CertificateError("\n".join(told))
        return fresh

    def warn(self, now: datetime.datetime) -> list[str]:
        """Warnings due at 30, 14, 7, 3 and 1 days before the end, and at the end; each is told once."""
        told = []
        for files, pair in zip(self._files, self._pairs, strict=True):
            left = pair.certificate.not_valid_after_utc - now
            due = [days for days in (*WARN_DAYS, 0) if left <= datetime.timedelta(days=days)]
            key = files.certificate, pair.certificate.fingerprint(hashes.SHA256())
            if not due or self._told.get(key, WARN_DAYS[0] + 1) <= due[-1]:
                continue
            self._told[key] = due[-1]
            ends = f"{pair.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            if due[-1] == 0:
                told.append(f"{files.certificate}: the certificate expired on {ends}")
                log.error("%s", told[-1])
            else:
                told.append(f"{files.certificate}: the certificate expires in less than {_days(due[-1])}, on {ends}")
                log.warning("%s", told[-1])
        return told

    @property
    def by_file(self) -> dict[str, Pair]:
        """The pairs in use by the path of their certificate."""
        return {files.certificate: pair for files, pair in zip(self._files, self._pairs, strict=True)}

    def problems(self, now: datetime.datetime) -> list[tuple[str, Problem]]:
        """What is wrong with the pairs in use, by file; for `check` and the start's log."""
        return [
            (files.certificate, one)
            for files, pair in zip(self._files, self._pairs, strict=True)
            for one in _problems(files, pair, now)
        ]

    def _mark(self) -> Mark:
        paths = [path for files in self._files for path in files.paths]
        return tuple(_mark_of(path) for path in (*paths, *self._others))


def _objections(files: PairFiles, old: Pair, new: Pair, now: datetime.datetime) -> list[str]:
    """Errors of the new pair that the old one does not have: an old fault is no reason to refuse a renewal."""
    if (new.certificate, new.chain) == (old.certificate, old.chain):
        return []
    known = {one.what for one in _problems(files, old, now) if one.is_error}
    found = _problems(files, new, now, served=old)
    return [f"{files.certificate}: {one.text}" for one in found if one.is_error and one.what not in known]


def _faults(files: PairFiles, pair: Pair, now: datetime.datetime) -> list[str]:
    return [f"{files.certificate}: {one.text}" for one in _problems(files, pair, now) if one.is_error]


def _problems(files: PairFiles, pair: Pair, now: datetime.datetime, served: Pair | None = None) -> list[Problem]:
    """`served`: the pair that it replaces. Where the settings name no hosts, a new certificate may drop a name or add
    one, but one that shares no name with the old is another server's."""
    plain = [host for host in files.names if not host.startswith("*.")]
    found = problems_of(
        pair.certificate, now=now, key=pair.key, chain=pair.chain, hosts=plain, purpose="server", warn_days=0
    )
    missing = [host for host in files.names if host.startswith("*.") and host not in pair.hosts]
    if served is not None and not files.names and served.hosts and not set(served.hosts) & set(pair.hosts):
        missing = served.hosts
    if missing:
        has = ", ".join(pair.hosts) or "no host"
        found.append(Problem("name", f"{', '.join(missing)} is not covered: the certificate is for {has}"))
    return found


def _mark_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _days(days: int) -> str:
    return f"{days} days" if days != 1 else "a day"
