"""uploadCustomCertificate: what is taken, what is refused, and that no key is ever told."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from places import refused
from sqlalchemy import select

from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job
from pileus.server.db.tables.ssh_key import custom_certificate
from pileus.testing import World
from pileus.testing.client import Client, Refused

SUFFIX = "cloud.example.org"


class Authority:
    """Signs certificates around the world's present time."""

    def __init__(self, world: World, name: str) -> None:
        self.now = datetime.datetime.fromtimestamp(world.clock.now() / 1000, datetime.UTC)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.name, self.key, ca=True)

    def leaf(self, *names: str, days: int = 30, age: int = 1) -> tuple[str, str]:
        """Certificate and key in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        signed = self._signed(subject, key, names=names, days=days, age=age)
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return pem(signed), key.private_bytes(*form).decode()

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: tuple[str, ...] = (),
        ca: bool = False,
        days: int = 30,
        age: int = 1,
    ) -> x509.Certificate:
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - age * day)
            .not_valid_after(self.now + days * day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            told = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(told, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


@pytest.fixture
def authority(world: World) -> Authority:
    return Authority(world, "authority")


def stored(world: World) -> list[tuple[str, int, bool]]:
    with world.reading() as tx:
        rows = tx.all(select(custom_certificate).order_by(custom_certificate.c.id))
    return [(row["name"], row["position"], row["key_pem"] is not None) for row in rows]


def test_a_certificate_with_its_key_is_stored_and_replaced(world: World, admin: Client, authority: Authority) -> None:
    for _ in range(2):
        own, key = authority.leaf(f"*.{SUFFIX}")
        started = admin.call("uploadCustomCertificate", certificate=own, privatekey=key, domainsuffix=SUFFIX)
        world.settle()
        told = admin.call("queryAsyncJobResult", jobid=started["jobid"])
        assert SUFFIX in told["jobresult"]["customcertificate"]["message"]
        assert stored(world) == [(SUFFIX, 0, True)]
    with world.reading() as tx:
        told_of = [row["state"] for row in tx.all(select(event).where(event.c.type == "UPLOAD.CUSTOM.CERTIFICATE"))]
        plans = [row["plan"] for row in tx.all(select(job))]
    assert told_of == ["Scheduled", "Completed"] * 2
    assert not any("PRIVATE KEY" in plan for plan in plans)


def test_those_that_vouch_for_it_are_stored_by_position(world: World, admin: Client, authority: Authority) -> None:
    above = pem(authority.certificate)
    admin.call("uploadCustomCertificate", certificate=above, domainsuffix=SUFFIX, name="root", id=1)
    own, key = authority.leaf(f"*.{SUFFIX}")
    admin.call("uploadCustomCertificate", certificate=own + above, privatekey=key, domainsuffix=SUFFIX)
    assert stored(world) == [("root", 1, False), (SUFFIX, 0, True)]


def test_what_does_not_fit_is_refused_by_name_and_stores_nothing(
    world: World, admin: Client, authority: Authority
) -> None:
    own, key = authority.leaf(f"*.{SUFFIX}")
    other = Authority(world, "other")
    over, over_key = authority.leaf(f"*.{SUFFIX}", days=-1, age=9)
    elsewhere, elsewhere_key = authority.leaf("*.elsewhere.org")
    wrong = [
        ("certificate is not PEM", {"certificate": "nonsense", "privatekey": key}),
        ("followed by the one that signed it", {"certificate": own + pem(other.certificate), "privatekey": key}),
        ("not valid now", {"certificate": over, "privatekey": over_key}),
        ("privatekey", {"certificate": own, "privatekey": "nonsense"}),
        ("privatekey", {"certificate": own, "privatekey": authority.leaf("x")[1]}),
        ("authority", {"certificate": own, "name": "root", "id": 1}),
        ("name", {"certificate": pem(authority.certificate)}),
        ("not for *.", {"certificate": elsewhere, "privatekey": elsewhere_key}),
    ]
    for words, given in wrong:
        with refused(431, words):
            admin.call("uploadCustomCertificate", domainsuffix=SUFFIX, **given)
    with refused(431, "domainsuffix"):
        admin.call("uploadCustomCertificate", domainsuffix="a b", certificate=own, privatekey=key)
    assert stored(world) == []


def test_a_key_stands_in_no_error(admin: Client, authority: Authority) -> None:
    own, _ = authority.leaf(f"*.{SUFFIX}")
    with pytest.raises(Refused) as caught:
        admin.call("uploadCustomCertificate", domainsuffix=SUFFIX, certificate=own, privatekey="canary-key")
    assert "privatekey" in caught.value.text
    assert "canary" not in caught.value.text


def test_the_stored_issuer_must_have_signed_it(world: World, admin: Client, authority: Authority) -> None:
    impostor = Authority(world, "authority")
    admin.call("uploadCustomCertificate", certificate=pem(impostor.certificate), domainsuffix=SUFFIX, name="root", id=1)
    own, key = authority.leaf(f"*.{SUFFIX}")
    with refused(431, "issuer"):
        admin.call("uploadCustomCertificate", certificate=own, privatekey=key, domainsuffix=SUFFIX)


def test_only_root_administrators_upload(world: World, authority: Authority) -> None:
    own, key = authority.leaf(f"*.{SUFFIX}")
    with refused(401):
        Client(world.db, world.account("alice")).call(
            "uploadCustomCertificate", certificate=own, privatekey=key, domainsuffix=SUFFIX
        )
