"""Listening sockets: TCP on IPv4, IPv6 or both, unix paths, inherited descriptors, port 0.

Everything that can be wrong with an address is said here, in the caller's thread, before anything runs.
Thread: bind() from the one who starts; the rest from the reactor's leader.
Not here: accepting (reactor.py).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping

from smtpd_core.net.guard import Networks
from smtpd_core.net.settings import Door

# What the system says where IPv6 was switched off after the interpreter was built.
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

_FIRST_INHERITED = 3  # sd_listen_fds(3): descriptors 3 and up

# No process has more descriptors than a number of so many digits.
_DIGITS_OF_INHERITED = 6


class Listener:
    """One bound socket and the door that it belongs to. `address` is (host, port), or the path of a unix socket."""

    __slots__ = ("address", "burst", "door", "is_armed", "is_shared", "path", "socket", "trusted")

    def __init__(self, door: Door, bound: socket.socket, path: str = "") -> None:
        self.burst = 1  # how many newcomers the reactor tries to take at once
        self.is_shared = False  # other processes accept from it too
        self.socket = bound
        self.path = path
        self.is_armed = False
        self.belong_to(door)
        name = bound.getsockname()
        self.address: tuple[str, int] | str = name if isinstance(name, str) else (name[0], name[1])

    def belong_to(self, door: Door) -> None:
        """Newcomers are its own from now on."""
        self.trusted = Networks(door.settings.proxy_from)
        self.door = door

    def trusts(self, host: str) -> bool:
        """Whether a PROXY header from this address is believed; over a unix socket it always is."""
        return not host or host in self.trusted

    @property
    def text(self) -> str:
        """HOST:PORT or unix:PATH, as in the line `listening SERVICE HOST:PORT`."""
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self, *, remove_path: bool = True) -> None:
        """Close; the path of a unix socket that we made goes too, unless other processes listen on it."""
        self.socket.close()
        if self.path and remove_path and not self.is_shared:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # gone, or in a directory that is not ours since root was given up: the next start replaces it


def split_bind(bind: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT"; the host "" means every address. ValueError says what is wrong."""
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"listener {bind!r}: expected HOST:PORT with a port from 0 to 65535, unix:PATH or fd:NAME")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"listener {bind!r}: an IPv6 address stands in brackets, as in [::1]:25")
    return ("" if host == "*" else host), int(port)


def bind(door: Door, inherited: Mapping[str, int] | None = None) -> list[Listener]:
    """The bound and listening sockets of one door; a host name may give several. OSError or ValueError."""
    text = door.settings.bind
    if text.startswith("unix:"):
        return [_bind_unix(door, text[5:])]
    if text.startswith("fd:"):
        return [_take_inherited(door, text[3:], inherited or {})]
    host, port = split_bind(text)
    if not host:
        return _bind_everywhere(door, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"listener {text}: {getattr(error, 'strerror', '') or error}") from None
    listeners: list[Listener] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            if listeners and port == 0:  # one number for all addresses of the name
                address = (address[0], listeners[0].socket.getsockname()[1], *address[2:])
            listeners.append(_bind_tcp(door, family, address, not door.settings.ipv6_only))
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def inherited_descriptors(environment: Mapping[str, str], process: int) -> dict[str, int]:
    """Descriptors by number and, where given, by name, from LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID. ValueError."""
    if environment.get("LISTEN_PID", str(process)) != str(process):
        return {}
    count = environment.get("LISTEN_FDS", "") or "0"
    if not (count.isascii() and count.isdigit() and len(count) <= _DIGITS_OF_INHERITED):
        raise ValueError(f"environment: LISTEN_FDS: {count!r} is no number of inherited sockets")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, int] = {}
    for number in range(int(count)):
        descriptor = _FIRST_INHERITED + number
        found[str(descriptor)] = descriptor
        if number < len(names) and names[number]:
            found.setdefault(names[number], descriptor)
    return found


def _bind_everywhere(door: Door, port: int) -> list[Listener]:
    if socket.has_dualstack_ipv6() and not door.settings.ipv6_only:
        try:
            return [_bind_tcp(door, socket.AF_INET6, ("::", port), True)]
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return [_bind_tcp(door, socket.AF_INET, ("0.0.0.0", port), False)]


def _bind_tcp(door: Door, family: int, address: tuple[object, ...], dual: bool) -> Listener:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual and address[0] == "::" else 1)
        # Linux hands this down to accepted sockets; elsewhere it is set for each.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
        bound.listen(door.settings.backlog)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"listener {door.settings.bind}: {error.strerror or error}") from None
    bound.setblocking(False)
    return Listener(door, bound)


def _bind_unix(door: Door, path: str) -> Listener:
    if not path:
        raise ValueError(f"listener {door.settings.bind!r}: a path is missing after unix:")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        bound.bind(path)
        bound.listen(door.settings.backlog)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"listener unix:{path}: {error.strerror or error}") from None
    bound.setblocking(False)
    return Listener(door, bound, path)


def _remove_stale(path: str) -> None:
    """A socket file that nobody listens on is what a killed server left; anything else stays, and bind() says so."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _take_inherited(door: Door, name: str, inherited: Mapping[str, int]) -> Listener:
    descriptor = inherited.get(name)
    if descriptor is None:
        there = ", ".join(sorted(inherited)) or "none"
        raise ValueError(f"listener fd:{name}: no such inherited socket (LISTEN_FDS gives: {there})")
    try:
        bound = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ValueError(f"listener fd:{name}: descriptor {descriptor} is no socket: {error.strerror}") from None
    if bound.type != socket.SOCK_STREAM or not bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(
            f"listener fd:{name}: descriptor {descriptor} is no listening stream socket;"
            " a .socket unit needs ListenStream= and Accept=no"
        )
    bound.setblocking(False)
    os.set_inheritable(descriptor, False)
    if bound.family in (socket.AF_INET, socket.AF_INET6):
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Listener(door, bound)
