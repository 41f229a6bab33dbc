"""A daemon in the process of the test, its settings, and what a client sees of it."""

from __future__ import annotations

import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.issue import revocation_list
from certs.store import CertificateStore
from smtpd_core.app.build import Daemon
from smtpd_core.app.settings import Domain, Listener, Settings
from smtpd_core.wire.envelope import Recipient
from tests.app.daemon import ROOT


@dataclass
class Running:
    """A daemon in this process, and what a client sees of it."""

    daemon: Daemon
    place: Path

    @property
    def address(self) -> tuple[str, int]:
        return self.daemon.listeners[0].address  # type: ignore[return-value]

    @contextmanager
    def client(self, *, tls: bool = False) -> Iterator[smtplib.SMTP]:
        with smtplib.SMTP(*self.address, timeout=20) as client:
            if tls:
                client.starttls(context=lenient())
            client.ehlo("probe.test")
            yield client

    def features(self, *, tls: bool = False) -> dict[str, str]:
        with self.client(tls=tls) as client:
            return client.esmtp_features

    def rcpt(self, address: str) -> int:
        with self.client() as client:
            client.mail("eve@far.test")
            return client.rcpt(address)[0]

    def greeting(self, first: bytes = b"") -> bytes:
        with socket.create_connection(self.address, timeout=20) as raw:
            raw.sendall(first)
            return raw.recv(200)[:3]

    def greeted_together(self, count: int) -> list[bytes]:
        opened = [socket.create_connection(self.address, timeout=20) for _ in range(count)]
        codes = [one.recv(200)[:3] for one in opened]
        for one in opened:
            one.close()
        while self.daemon.server.connection_count:  # type: ignore[union-attr]
            time.sleep(0.01)
        return codes

    def ask(self, *lines: str) -> list[int]:
        with self.client() as client:
            return [client.docmd(line)[0] for line in lines]

    def data(self, content: bytes, verb: str = "DATA") -> int:
        with self.client() as client:
            client.mail("eve@far.test")
            client.rcpt("ann@our.test")
            if verb == "BDAT":
                client.send(b"BDAT %d LAST\r\n" % len(content) + content)
                return client.getreply()[0]
            client.docmd("DATA")
            client.send(content + b"\r\n.\r\n")
            return client.getreply()[0]

    def certificate(self, name: str = "mx.our.test") -> tuple[str, ...]:
        """Names of the certificate shown to who asks for `name`."""
        with self.client() as client:
            client._host = name  # what smtplib sends as SNI
            client.starttls(context=lenient())
            der = client.sock.getpeercert(binary_form=True)  # type: ignore[union-attr]
        found = x509.load_der_x509_certificate(der)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(names.get_values_for_type(x509.DNSName))

    def tls_version(self, newest: ssl.TLSVersion) -> str:
        context = lenient()
        context.maximum_version = newest
        with smtplib.SMTP(*self.address, timeout=20) as client:
            try:
                client.starttls(context=context)
            except (ssl.SSLError, OSError):
                return "refused"
            return client.sock.version() or ""  # type: ignore[union-attr]

    def login(self, user: str, password: str = "secret") -> int:
        with self.client(tls=True) as client:
            try:
                return client.login(user, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code
            except smtplib.SMTPNotSupportedError:
                return 0

    def sends_as(self, sender: str) -> int:
        with self.client(tls=True) as client:
            client.login("ann@our.test", "secret")
            return client.mail(sender)[0]

    @property
    def timeouts(self) -> Any:
        return self.daemon.server.engine._house.timeouts  # type: ignore[union-attr]

    @property
    def guard(self) -> Any:
        return self.daemon.server.engine.guard.settings  # type: ignore[union-attr]

    @property
    def relaying(self) -> Any:
        assert self.daemon.outbox is not None
        return self.daemon.outbox.relaying

    def destination(self, address: str) -> str:
        assert self.daemon._delivery is not None
        return self.daemon._delivery.routing.routes.destination(address)

    def stops(self, address: str) -> list[str]:
        assert self.daemon._delivery is not None
        return [stop.recipient.address for stop in self.daemon._delivery.routing.routes.stops_for([Recipient(address)])]


def lenient() -> ssl.SSLContext:
    return ssl._create_unverified_context()


# -- the settings of a case


def keys(kind: Any = Settings, path: str = "") -> Iterator[str]:
    """Every setting, also of tables by name or number, but for those that a case sets whole."""
    types = get_type_hints(kind)
    for one in fields(kind):
        key = f"{path}.{one.name}" if path else one.name
        inner = [what for what in (types[one.name], *get_args(types[one.name])) if is_dataclass(what)]
        if inner and key not in ("tls.host", "relay.route"):
            yield from keys(inner[0], key)
        else:
            yield key


def changed(settings: Settings, key: str, value: Any) -> Settings:
    """The settings with another value; of the one listener, of the one domain."""
    path = key.split(".")
    if path[0] == "listener":
        return replace(settings, listener=(replace(settings.listener[0], **{path[1]: value}),))
    if path[0] == "domains":
        return replace(settings, domains={"our.test": replace(settings.domains["our.test"], **{path[1]: value})})
    return _changed(settings, path, value)


def _changed(part: Any, path: list[str], value: Any) -> Any:
    inner = value if len(path) == 1 else _changed(getattr(part, path[0]), path[1:], value)
    return replace(part, **{path[0]: inner})


def put_in(value: Any, place: Path) -> Any:
    """{place} is a directory."""
    if isinstance(value, str):
        return value.replace("{place}", str(place))
    if is_dataclass(value):
        return replace(value, **{one.name: put_in(getattr(value, one.name), place) for one in fields(value)})  # type: ignore[type-var, arg-type]
    if isinstance(value, tuple):
        return tuple(put_in(one, place) for one in value)
    return value


def furnish(place: Path) -> Path:
    """Certificates, accounts and the like."""
    store = CertificateStore.open(place)
    store.create_self_signed(["mx.our.test"], name="first")
    store.create_self_signed(["mx.our.test", "both.our.test"], name="second")
    store.create_self_signed(["web.our.test"], name="web")
    (place / "alone.pem").write_bytes((place / "first.pem").read_bytes() + (place / "first.key").read_bytes())
    (place / "both.pem").write_bytes((place / "second.pem").read_bytes() + (place / "second.key").read_bytes())
    write_authority(store, place)
    (place / "phrase").write_text("phrase\n")
    (place / "other").write_text("other\n")
    (place / "aliases").write_text("desk: ann\n")
    add_user(f"file:{place}/users.toml", "ann@our.test")
    add_user(f"sqlite:{place}/users.db", "joe")
    with closing(sqlite3.connect(place / "users.db")) as base, base:
        base.execute("CREATE TABLE staff (name TEXT, secret TEXT)")
        base.execute("INSERT INTO staff VALUES ('kim', '{PLAIN}clear')")
    return place


def add_user(store: str, name: str) -> None:
    command = [sys.executable, "-m", "smtpd_core", "user", "add", name, "--store", store]
    subprocess.run(command, input=b"secret\n", cwd=ROOT, check=True, capture_output=True)


def write_authority(store: CertificateStore, place: Path) -> None:
    """An authority and its list of revocations, which is empty."""
    issuer = store.pair(store.create_authority("Test", name="ca"))
    (place / "crl.pem").write_bytes(revocation_list(issuer, ()).public_bytes(Encoding.PEM))


def begun(tmp_path: Path, place: Path, given: tuple[tuple[str, Any], ...] = ()) -> Settings:
    settings = Settings(
        hostname="mx.our.test",
        state=str(tmp_path / "state"),
        listener=(Listener(bind="127.0.0.1:0"),),
        domains={"our.test": Domain(users=("ann",))},
    )
    for key, value in given:
        settings = changed(settings, key, put_in(value, place))
    return settings


@contextmanager
def running(settings: Settings, place: Path) -> Iterator[Running]:
    daemon = Daemon(settings)
    daemon.bind()
    daemon.start()
    try:
        yield Running(daemon, place)
    finally:
        daemon.stop(5.0)
