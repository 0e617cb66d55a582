"""SSH public keys: what is one, and what only its holder reads."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from pileus.server.domain import ssh_key
from pileus.server.domain.errors import ParameterError


def line(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*form).decode()


ED25519 = line(ed25519.Ed25519PrivateKey.generate())


def test_a_key_of_every_kind_is_read_with_its_comment() -> None:
    for text in (ED25519, line(ec.generate_private_key(ec.SECP256R1()))):
        assert ssh_key.read(f"  {text} me@home\n", "publickey").text == f"{text} me@home"


def test_the_fingerprint_is_that_of_the_key_whatever_its_comment() -> None:
    one, two = ssh_key.read(ED25519, "publickey"), ssh_key.read(f"{ED25519} other", "publickey")
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint.split(":")) == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-rsa",
        "ssh-rsa AAAA",
        "ssh-rsa !!!!",
        "ssh-dss " + ED25519.split()[1],
        'command="rm -rf /" ' + ED25519,
        f"{ED25519}\n{ED25519}",
        f"{ED25519} caf\u00e9",
        f"{ED25519} " + "c" * 5000,
        "ssh-rsa " + ED25519.split()[1][:-8],
    ],
    ids=["empty", "no-key", "cut-short", "no-base64", "other-kind", "command", "two", "not-ascii", "long", "half"],
)
def test_what_is_no_public_key_is_refused_by_name(text: str) -> None:
    with pytest.raises(ParameterError, match="publickey") as caught:
        ssh_key.read(text, "publickey")
    assert caught.value.parameter == "publickey"


def test_a_new_key_opens_what_was_sealed_for_it() -> None:
    pem, public = ssh_key.generate()
    private = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    sealed = ssh_key.sealed(f"{public.text} me", "s3cret")
    assert sealed is not None
    assert private.decrypt(base64.b64decode(sealed), padding.PKCS1v15()) == b"s3cret"
    assert ssh_key.sealed(ED25519, "s3cret") is None
