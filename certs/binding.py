"""The few OpenSSL calls that pyOpenSSL does not wrap, through the binding that `cryptography` ships for it.

Rules: nothing here is needed for a working connection; where a call is missing, OpenSSL's own default stays and the
answer is the cautious one. No other file touches `_ssl` or `_context`.

Thread: whoever has the connection, or builds the context.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

_lib: Any = Binding().lib
_ffi: Any = Binding.ffi

# Where OpenSSL writes an address that nobody reads.
_NOWHERE: Any = _ffi.new("char **")


def set_groups(context: SSL.Context, *choices: str) -> str:
    """Key exchange groups in order of preference: the first of `choices` that the linked OpenSSL knows whole.

    Returns it, or "" where OpenSSL's default stays.
    """
    setter = getattr(_lib, "SSL_CTX_set1_curves_list", None)
    if setter is None:
        return ""
    for choice in choices:
        if setter(context._context, choice.encode()) == 1:
            return choice
        _lib.ERR_clear_error()
    return ""


def was_resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake continued an earlier session."""
    asked = getattr(_lib, "SSL_session_reused", None)
    return asked is not None and asked(connection._ssl) == 1


def group_of(connection: SSL.Connection) -> str:
    """The key exchange group by OpenSSL's name, or "" where this OpenSSL does not tell."""
    try:
        return connection.get_group_name() or ""
    except NotImplementedError:
        return ""


def has_extended_master_secret(connection: SSL.Connection) -> bool:
    """RFC 7627; without it TLS 1.2 has no unique exporter (RFC 9266 section 4.2)."""
    asked = getattr(_lib, "SSL_get_extms_support", None)
    return asked is not None and asked(connection._ssl) == 1


def has_unread(connection: SSL.Connection) -> bool:
    """Whether more was fed than has been read. Asking costs a tenth of a read in vain, which ends in an exception."""
    inside = _lib.SSL_pending(connection._ssl) > 0
    return inside or bool(_lib.BIO_get_mem_data(connection._into_ssl, _NOWHERE) > 0)


def has_unsent(connection: SSL.Connection) -> bool:
    """Whether ciphertext waits to be taken."""
    return bool(_lib.BIO_get_mem_data(connection._from_ssl, _NOWHERE) > 0)
