"""Keys, certificates and TLS streams."""

from certs.contexts import ServerContexts
from certs.files import Pair
from certs.policy import ClientCertificates, ServerPolicy
from certs.store import CertificateStore, StoredCertificate
from certs.trouble import CertificateError

__all__ = [
    "CertificateError",
    "CertificateStore",
    "ClientCertificates",
    "Pair",
    "ServerContexts",
    "ServerPolicy",
    "StoredCertificate",
]
