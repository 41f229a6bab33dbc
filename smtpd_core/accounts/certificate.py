"""The identity that a client certificate proves, for EXTERNAL. Pure.

1 Only a certificate whose chain was verified proves anything. 2 A mail address among its names comes first, then the
common name of its subject. A host name proves no user.
"""

from __future__ import annotations

import re

from certs.facts import TlsFacts

# CN of an RFC 4514 string; a value with escapes is not a user name.
_COMMON_NAME = re.compile(r"(?:\A|,)\s*CN=([^,\\+=]{1,255})(?=,|\Z)", re.I)


def certified_identity(facts: TlsFacts) -> str:
    """The identity, or "" where none is proven."""
    if not facts.peer_verified or facts.peer_error:
        return ""
    for name in facts.peer_names:
        if "@" in name:
            return name
    found = _COMMON_NAME.search(facts.peer_subject)
    return found[1].strip() if found else ""
