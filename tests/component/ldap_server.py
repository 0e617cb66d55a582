"""A real slapd of a test's own: loopback only, its certificate from an authority of the test, gone at the end."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
READER = f"cn=reader,{BASE}"
READER_PASSWORD = "canary-reader-password"
START_SECONDS = 20.0

_CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
TLSCACertificateFile {directory}/ca.pem
TLSCertificateFile {directory}/server.pem
TLSCertificateKeyFile {directory}/server.key
security simple_bind=128
allow bind_anon_dn
database mdb
maxsize 10485760
suffix "{base}"
directory {directory}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{reader}" read by * none
"""

_ENTRIES = f"""
dn: {BASE}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: ou=abroad,{PEOPLE}
objectClass: organizationalUnit
ou: abroad

dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {READER_PASSWORD}
"""


@dataclass(frozen=True)
class Slapd:
    """A running directory. Binds without TLS are refused; an empty password binds, as RFC 4513 has it."""

    port: int
    authority: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.wait()


@contextmanager
def slapd(directory: Path, *people: tuple[str, str, str]) -> Iterator[Slapd]:
    """A directory with people: (user name, password, place below `PEOPLE`, empty for directly in it)."""
    directory.mkdir()
    (directory / "data").mkdir()
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(directory / "server.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "server.key"))
    conf = directory / "slapd.conf"
    conf.write_text(_CONF.format(directory=directory, base=BASE, reader=READER))
    program = shutil.which("slapd", path="/usr/sbin:/usr/bin:/usr/libexec")
    assert program, "slapd is missing: run make setup"
    entries = "\n".join([_ENTRIES, *(_person(*one) for one in people)])
    subprocess.run([program, "-T", "add", "-f", str(conf)], input=entries.encode(), check=True, capture_output=True)
    port = _free_port()
    process = subprocess.Popen(
        [program, "-f", str(conf), "-h", f"ldap://127.0.0.1:{port}/", "-d", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port, process)
        yield Slapd(port, directory / "ca.pem", process)
    finally:
        process.kill()
        process.wait()


def _person(name: str, password: str, place: str) -> str:
    where = f"{place},{PEOPLE}" if place else PEOPLE
    return (
        f"dn: uid={name},{where}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n"
        f"mail: {name}@example.org\nuserPassword: {password}\n"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"slapd did not start: {process.poll()}")
