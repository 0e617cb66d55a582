"""SSH public keys: read, checked, named by their fingerprint, made; and secrets that only their holder can read."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pileus.server.domain.errors import ParameterError

KINDS = ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
LEAST_RSA_BITS = 1024
NEW_RSA_BITS = 2048
LONGEST = 4000
"""Characters of a public key with its comment: what the router serves."""


@dataclass(frozen=True)
class PublicKey:
    """A public key as OpenSSH writes it, without options. `fingerprint` is MD5 in hex with colons."""

    text: str
    fingerprint: str


def read(text: str, parameter: str) -> PublicKey:
    """A public key in OpenSSH's one-line form; 431 for anything else, options and weak keys included."""
    words = text.strip().split(None, 2)
    one_line = all(32 <= ord(letter) < 127 for letter in text.strip())
    if len(text) > LONGEST or not one_line or len(words) < 2 or words[0] not in KINDS:
        raise ParameterError(
            f"{parameter} must be one line of printable ASCII: one of {', '.join(KINDS)}, then the key",
            parameter=parameter,
        )
    comment = words[2] if len(words) == 3 else ""
    line = " ".join(words[:2])
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ParameterError(f"{parameter} is no public key of SSH", parameter=parameter) from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise ParameterError(f"an RSA key has at least {LEAST_RSA_BITS} bits", parameter=parameter)
    return PublicKey(f"{line} {comment}".strip(), _fingerprint(words[1]))


def generate() -> tuple[str, PublicKey]:
    """A new RSA key: the private half as PEM (PKCS #1), and the public one."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=NEW_RSA_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return pem.decode(), read(line.decode(), "publickey")


def sealed(public_key: str, secret: str) -> str | None:
    """A secret that only the private key opens: RSA with PKCS #1 v1.5, in base64. None when the key is not RSA."""
    key = serialization.load_ssh_public_key(" ".join(public_key.split()[:2]).encode())
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    return base64.b64encode(key.encrypt(secret.encode(), padding.PKCS1v15())).decode()


def _fingerprint(encoded: str) -> str:
    digest = hashlib.md5(base64.b64decode(encoded), usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
