"""HOST:PORT and host names, as settings and options write them. Pure, but for this machine's own name."""

from __future__ import annotations

import ipaddress
import platform


def bad_bind(text: str) -> str:
    """What is wrong with what a listener is to be bound to, or ""."""
    if text.startswith(("unix:", "fd:")):
        return "" if text.partition(":")[2] else f"{text!r} names nothing after its colon"
    return bad_address(text, port_zero=True, every=True)


def bad_address(text: str, *, port_zero: bool = False, every: bool = False) -> str:
    """What is wrong with HOST:PORT, or "". `every`: the host may be "" or "*"."""
    host, colon, port = text.rpartition(":")
    lowest = 0 if port_zero else 1
    if not colon or not (port.isascii() and port.isdigit() and len(port) < 6 and lowest <= int(port) <= 65_535):
        return f"{text!r} is no HOST:PORT with a port from {lowest} to 65535"
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1].partition("%")[0])
        except ValueError:
            return f"{host!r} is no IPv6 address"
        return ""
    if ":" in host:
        return f"{text!r}: an IPv6 address stands in brackets, as in [::1]:25"
    return "" if (every and host in ("", "*")) or is_host_name(host) else f"{host!r} is no host name or address"


def is_host_name(text: str) -> bool:
    """Letters, digits, '-' and '_' in labels up to 63, up to 253 in all; letters may be of any script (RFC 5890)."""
    labels = text.rstrip(".").split(".")
    return 0 < len(text) < 254 and all(
        0 < len(label) < 64 and not label.startswith("-") and all(c.isalnum() or c in "-_" for c in label)
        for label in labels
    )


def system_name() -> str:
    """This machine's name where it is a host name, else localhost."""
    name = platform.node()
    return name if name.isascii() and is_host_name(name) else "localhost"
