"""Private keys: made, read, written, named by kind.

Rules: a key leaves memory only in PKCS#8 form, encrypted where a password is given; no key and no password is ever in
a message of an error.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from certs.trouble import CertificateError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
_PRIVATE = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)

DEFAULT_KIND = "ec-p256"

# RSA under 2048 bits is not made (RFC 9325 4.2); the test set makes its weak key on its own.
KINDS: dict[str, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
}


def new_key(kind: str = DEFAULT_KIND) -> PrivateKey:
    """A new private key; `kind` is a key of KINDS."""
    try:
        return KINDS[kind.lower()]()
    except KeyError:
        raise CertificateError(f"unknown kind of key {kind!r}: one of {', '.join(KINDS)}") from None


def kind_of(key: object) -> str:
    """ "rsa-2048", "ec-p256", "ed25519", ... of a private or public key."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        curves = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
        return f"ec-{curves.get(key.curve.name, key.curve.name)}"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, ed448.Ed448PrivateKey | ed448.Ed448PublicKey):
        return "ed448"
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey").lower() or "unknown"


def key_length(key: object) -> int:
    """Bits: the RSA modulus, the curve's size."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return 256
    if isinstance(key, ed448.Ed448PrivateKey | ed448.Ed448PublicKey):
        return 456
    return int(getattr(key, "key_size", 0))


def public_bytes(key: object) -> bytes:
    """The SubjectPublicKeyInfo in DER, of a private or public key: equal where two keys belong together."""
    public = key.public_key() if isinstance(key, _PRIVATE) else key
    spki: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return spki


def key_to_pem(key: PrivateKey, password: str = "") -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(password))


def key_to_der(key: PrivateKey, password: str = "") -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, _encryption(password))


def _encryption(password: str) -> KeySerializationEncryption:
    return BestAvailableEncryption(password.encode()) if password else NoEncryption()


def read_key(data: bytes, password: str = "", where: str = "the key") -> PrivateKey:
    """A private key from PEM or DER (PKCS#8, PKCS#1, SEC 1), encrypted or not.

    A password for a key that has none does no harm. Of a key that is encrypted and can't be read with its password
    the password is blamed: one wrong password in some 256 decrypts to a rightly padded jumble, which the
    library calls no key at all.
    """
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        key: object = load(data, None)
    except TypeError:  # what the library says of a key that is encrypted
        key = _decrypted(data, load, password, where)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{where} is no private key in PEM or DER form") from None
    if not isinstance(key, _PRIVATE):
        raise CertificateError(f"{where} holds a {kind_of(key)} key, which TLS does not use: RSA, EC, Ed25519 would do")
    return key


def _decrypted(data: bytes, load: Callable[[bytes, bytes | None], object], password: str, where: str) -> object:
    if not password:
        raise CertificateError(f"{where} is encrypted: its password is needed")
    try:
        return load(data, password.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{where} can't be decrypted: the password is wrong, or the key is damaged") from None
