"""Keys and certificates that calls give. A certificate is made for real, once per process; it stands in no trace."""

import datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pileus.server.domain.ssh_key import PublicKey, read
from pileus.testing.clock import START_MS

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f simulated"
"""An SSH public key whose private half nobody has."""


@cache
def authority() -> str:
    """Certificate of an authority, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated authority")])
    begins = datetime.datetime.fromtimestamp(START_MS / 1000, datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def key_pair() -> tuple[str, PublicKey]:
    """What the server makes for createSSHKeyPair: the same pair for all, because making one takes long."""
    return "a private key that opens nothing", read(PUBLIC_KEY, "publickey")
