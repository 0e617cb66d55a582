"""Enrolment over real TLS: one token, one host, one certificate, and nothing for anybody else."""

import asyncio
import json
import shutil
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from hosts_setup import Site, agent_of, hello, raw_line, site_in, until
from sqlalchemy import select, update
from websockets.exceptions import InvalidMessage, InvalidStatus

from pileus.agent.enrolment import Endpoint, EnrolmentRefused, ServerUnreachable, Token, enrol, parse_token
from pileus.agent.identity import Identity, pinned_context
from pileus.server.db.tables.host import authority, enrolment_token, host, host_certificate
from pileus.server.domain.host import HostState
from pileus.server.hosts import enrolment
from pileus.server.hosts.authority import Authority
from pileus.wire.messages import GoAway, HostKind, Welcome

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


def identity_in(path: Path) -> Identity:
    path.mkdir()
    return Identity(path)


def names_in(identity: Identity) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(Path(identity.credentials.certificate).read_bytes())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def replace_certificate(identity: Identity, pem: str) -> None:
    Path(identity.credentials.certificate).write_text(pem)


async def refused(site: Site, identity: Identity, token: Token) -> str:
    with pytest.raises(EnrolmentRefused) as denial:
        await enrol(identity, site.endpoint, token, address="127.0.0.1")
    assert not identity.has_certificate()
    return str(denial.value)


async def post(site: Site, payload: bytes, *, context: ssl.SSLContext | None = None) -> bytes:
    """Send raw bytes, and read until the server closes."""
    context = context or pinned_context(site.authority.ca_pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context)
    writer.write(payload)
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_a_token_gives_a_certificate_that_names_the_host_and_files_nobody_else_can_read(
    site: Site, tmp_path: Path
) -> None:
    host_id, uuid = site.add_host()
    identity = identity_in(tmp_path / "agent")
    token = Token(site.token(host_id), site.authority.ca_sha256)
    who = await enrol(identity, site.endpoint, token, address="127.0.0.1")
    assert (who.uuid, who.kind) == (uuid, HostKind.ROUTING)
    names = names_in(identity)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:uuid:{uuid}"]
    assert names.get_values_for_type(x509.IPAddress) == []
    for name in ("agent.pem", "ca.crt", "hosts.json"):
        assert stat.S_IMODE((identity.state_dir / name).stat().st_mode) == 0o600
    async with raw_line(site, identity) as line:
        assert isinstance(await hello(line, uuid), Welcome)


async def test_a_token_works_once(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    token = Token(site.token(host_id))
    await enrol(identity_in(tmp_path / "first"), site.endpoint, token, address="127.0.0.1")
    await refused(site, identity_in(tmp_path / "second"), token)


async def test_an_agent_that_never_got_the_answer_may_ask_again_with_its_own_key(site: Site, tmp_path: Path) -> None:
    host_id, uuid = site.add_host()
    token = Token(site.token(host_id))
    identity = identity_in(tmp_path / "agent")
    asked_with = identity_in(tmp_path / "before")
    asked_with.request()
    lost = shutil.copytree(asked_with.state_dir, identity.state_dir, dirs_exist_ok=True)
    await enrol(identity, site.endpoint, token, address="127.0.0.1")
    assert not (lost / "agent.key").exists()
    identity = asked_with
    assert (await enrol(identity, site.endpoint, token, address="127.0.0.1")).uuid == uuid
    with site.database.write() as tx:
        enrolment.revoke(tx, host_id)
    with pytest.raises(EnrolmentRefused):
        await enrol(identity, site.endpoint, token, address="127.0.0.1")


async def test_a_wrong_token_gives_nothing(site: Site, tmp_path: Path) -> None:
    site.token(site.add_host()[0])
    await refused(site, identity_in(tmp_path / "agent"), Token("wrong"))
    with site.database.read() as tx:
        assert tx.all(select(host_certificate)) == []


async def test_an_expired_token_gives_nothing(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    await refused(site, identity_in(tmp_path / "agent"), Token(site.token(host_id, valid_seconds=0)))


async def test_a_token_of_a_removed_host_gives_nothing(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    token = Token(site.token(host_id))
    with site.database.write() as tx:
        enrolment.revoke(tx, host_id)
        tx.execute(update(host).where(host.c.id == host_id).values(live=None, state=str(HostState.REMOVED)))
    await refused(site, identity_in(tmp_path / "agent"), token)


async def test_only_the_digest_of_a_token_is_stored(site: Site) -> None:
    token = site.token(site.add_host()[0])
    with site.database.read() as tx:
        assert token not in str(tx.all(select(enrolment_token)))


async def test_a_pinned_fingerprint_that_does_not_match_keeps_the_token_secret(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    secret = site.token(host_id)
    await refused(site, identity_in(tmp_path / "careful"), Token(secret, "00" * 32))
    await enrol(identity_in(tmp_path / "agent"), site.endpoint, Token(secret), address="127.0.0.1")


async def test_guessing_is_bounded_per_address(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    identity = identity_in(tmp_path / "agent")
    for number in range(10):
        assert "403" in await refused(site, identity, Token(f"guess-{number}"))
    assert "429" in await refused(site, identity, Token(site.token(host_id)))


async def test_a_second_host_of_an_agent_is_added_to_its_certificate(site: Site, tmp_path: Path) -> None:
    identity = identity_in(tmp_path / "agent")
    uuids = []
    for name, kind in (("a", HostKind.SECONDARY_STORAGE), ("b", HostKind.ROUTING)):
        host_id, uuid = site.add_host(name, kind=kind)
        uuids.append(uuid)
        await enrol(identity, site.endpoint, Token(site.token(host_id)), address=f"127.0.0.{len(uuids)}")
    names = names_in(identity)
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "127.0.0.2"]
    async with raw_line(site, identity) as line:
        welcome = await hello(line, *uuids)
        assert isinstance(welcome, Welcome)
        assert welcome.refused == ()


async def test_a_host_that_the_certificate_does_not_name_is_refused_and_the_others_stay(site: Site) -> None:
    _, identity = await site.enrolled("a")
    stranger, _ = await site.enrolled("b")
    own = identity.hosts()[0].uuid
    with site.database.read() as tx:
        other = str(tx.scalar(select(host.c.uuid).where(host.c.id == stranger)))
    async with raw_line(site, identity) as line:
        welcome = await hello(line, own, other)
        assert isinstance(welcome, Welcome)
        assert welcome.refused == (other,)
    assert site.state(stranger) is HostState.CONNECTING


async def test_a_revoked_certificate_is_turned_away_for_good_and_its_line_ends(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(host_id) is HostState.UP)
        with site.database.write() as tx:
            enrolment.revoke(tx, host_id)
        ended = await agent.ended()
    assert type(ended).__name__ == "TurnedAway"
    await until(lambda: site.state(host_id) is HostState.DISCONNECTED)


async def test_a_certificate_of_another_authority_does_not_pass_tls(site: Site, tmp_path: Path) -> None:
    host_id, identity = await site.enrolled()
    with site.database.write() as tx:
        tx.execute(authority.delete())
    forger = Authority.load(site.database)
    issued = forger.issue(identity.request(), [identity.hosts()[0].uuid], serving=False)
    replace_certificate(identity, issued.certificate_pem)
    with pytest.raises((ssl.SSLError, ConnectionError, InvalidMessage)):
        async with raw_line(site, identity) as line:
            await hello(line, identity.hosts()[0].uuid)
    assert site.state(host_id) is HostState.CONNECTING
    assert forger.ca_sha256 != site.authority.ca_sha256


async def test_without_a_certificate_there_is_no_websocket(site: Site) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with raw_line(site, None, context=pinned_context(site.authority.ca_pem)):
            pass
    assert refusal.value.response.status_code == 401


async def test_a_host_certificate_cannot_pass_for_a_server(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host("s", kind=HostKind.SECONDARY_STORAGE)
    storage = identity_in(tmp_path / "storage")
    await enrol(storage, site.endpoint, Token(site.token(host_id)), address="127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(storage.credentials.certificate, storage.credentials.key)
    said: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(impostor, "127.0.0.1", 0, ssl=context)
    async with server:
        place = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        other, _ = site.add_host("b")
        with pytest.raises(EnrolmentRefused):
            await enrol(storage, place, Token(site.token(other)), address="127.0.0.1")
    assert all(b"token" not in heard for heard in said)


async def test_nobody_listening_is_not_a_refusal(tmp_path: Path) -> None:
    closed = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    with pytest.raises(ServerUnreachable):
        await enrol(identity_in(tmp_path / "agent"), Endpoint("127.0.0.1", port), Token("t"), address="127.0.0.1")


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"POST /enrol HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /enrol HTTP/1.1\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x01", b"400"),
        (b"POST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /enrol HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /enrol HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /enrol HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /enrol HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST " + b"x" * 70000, b"413"),
        (b"POST nonsense\r\n\r\n", b"400"),
    ],
)
async def test_requests_that_make_no_sense_get_a_short_no(site: Site, payload: bytes, status: bytes) -> None:
    assert (await post(site, payload)).split(b" ")[1] == status


async def test_a_certificate_request_that_cannot_be_read_does_not_use_up_the_token(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    secret = site.token(host_id)
    body = json.dumps({"token": secret, "csr_pem": "-----BEGIN CERTIFICATE REQUEST-----"}).encode()
    head = f"POST /enrol HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert b"400" in (await post(site, head + body)).split(b"\r\n")[0]
    await enrol(identity_in(tmp_path / "agent"), site.endpoint, Token(secret), address="127.0.0.1")


async def test_the_request_may_come_in_pieces(site: Site) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.endpoint.port, ssl=pinned_context(site.authority.ca_pem)
    )
    for piece in (b"P", b"OS", b"T /enrol HTTP/1.1\r\nContent-", b"Length: 2\r\n\r", b"\n{", b"}"):
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(20):
        assert b" 400 " in await reader.readline()
    writer.close()


async def test_all_servers_of_a_farm_have_one_authority(site: Site) -> None:
    others = await asyncio.gather(*(asyncio.to_thread(Authority.load, site.database) for _ in range(4)))
    assert {other.ca_sha256 for other in others} == {site.authority.ca_sha256}


async def test_an_old_protocol_is_told_which_side_to_upgrade(site: Site) -> None:
    _, identity = await site.enrolled()
    async with raw_line(site, identity) as line:
        answer = await hello(line, identity.hosts()[0].uuid, protocol=0)
    assert isinstance(answer, GoAway)
    assert not answer.retry


@pytest.mark.parametrize("text", ["", "a b", "t --ca-sha256", "t --ca-sha256 zz", "t --ca-sha256 00", "t x y"])
async def test_token_files_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|hex"):
        parse_token(text)


async def test_a_token_file_may_pin_the_authority() -> None:
    assert parse_token("secret\n") == Token("secret")
    assert parse_token("secret --ca-sha256 " + "AB:" * 31 + "AB") == Token("secret", "ab" * 32)
