"""Agents renew their certificates before they end: over real TLS, under a clock of the test's, whatever fails."""

import asyncio
import errno
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from fleet_setup import add_simulated, all_up, enrolled_fleet, fleet_of
from hosts_setup import Site, agent_of, hello, raw_line, site_in, until
from sqlalchemy import select, update
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidMessage

from pileus.agent import identity as identity_module
from pileus.agent import renewal as renewal_module
from pileus.agent.connection import Connection
from pileus.agent.enrolment import Endpoint, EnrolmentRefused, ServerUnreachable, ask
from pileus.agent.identity import Identity
from pileus.agent.renewal import Renewal, renew
from pileus.server.db.tables.host import host, host_certificate, host_watch
from pileus.server.domain.host import HostState
from pileus.server.hosts import enrolment
from pileus.server.hosts.authority import Authority
from pileus.wire.messages import HostKind, Renew, Renewed, Welcome

pytestmark = pytest.mark.anyio

HALF_OVER = 1800
"""Certificates begin an hour before they are made: of one that counts for half an hour, two thirds have gone."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        await lasting(site, HALF_OVER)
        yield site


async def lasting(site: Site, seconds: float) -> None:
    """From now on, certificates count for so long."""
    port = site.endpoint.port
    await site.stop()
    site.authority = Authority.load(site.database, leaf_seconds=seconds)
    site.settings = type(site.settings)("server-1", address="127.0.0.1", port=port, heartbeat_seconds=0.2)
    await site.start()


def pair(identity: Identity) -> bytes:
    return Path(identity.credentials.key).read_bytes()


def names(identity: Identity) -> list[str]:
    extension = identity.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(extension.value.get_values_for_type(x509.UniformResourceIdentifier))


async def can_connect(site: Site, identity: Identity) -> bool:
    async with raw_line(site, identity) as line:
        return isinstance(await hello(line, identity.hosts()[0].uuid), Welcome)


async def test_a_new_key_and_certificate_take_the_place_of_the_old_ones(site: Site) -> None:
    _, identity = await site.enrolled()
    before, old_names = pair(identity), names(identity)
    old = identity.certificate()
    await renew(identity, site.endpoint)
    new = identity.certificate()
    assert pair(identity) != before
    assert new.public_key() != old.public_key()
    assert (new.serial_number != old.serial_number, names(identity)) == (True, old_names)
    assert stat.S_IMODE(Path(identity.credentials.key).stat().st_mode) == 0o600  # noqa: ASYNC240
    assert await can_connect(site, identity)
    # Nobody else's answer got lost: the old pair counts until its own end.
    identity_module.write_private(Path(identity.credentials.key), before)
    assert await can_connect(site, identity)


async def test_a_running_agent_changes_over_without_being_missed(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(host_id) is HostState.UP)
        renewing = asyncio.create_task(
            Renewal(identity, (site.endpoint,), spread=lambda: 0.0, sleep=forever).run(agent.connection.renewed)
        )
        before = len(site.heard.states)
        await until(lambda: len(site.heard.inventories) >= 2)
        renewing.cancel()
        await until(lambda: held(site, host_id))
        assert site.heard.states[before:] == []  # Neither Disconnected nor Up: nothing has changed.
    with site.database.read() as tx:
        assert len(tx.all(select(host_certificate))) >= 2


async def test_a_renewal_while_a_line_is_being_made_is_shown_on_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_id, identity = await site.enrolled()
    introduce = Connection._introduce
    pending = [identity.new_key()]

    async def and_renewed_meanwhile(self: Connection, line: ClientConnection) -> Welcome:
        welcome = await introduce(self, line)
        if pending:
            key = pending.pop()
            issued = site.authority.issue(identity.request(key=key), [identity.hosts()[0].uuid], serving=False)
            with site.database.write() as tx:
                values = {"serial": issued.serial, "host_id": host_id, "issued_at": issued.issued_at}
                tx.execute(host_certificate.insert().values(**values, expires_at=issued.expires_at))
            identity.renewed(key, issued.certificate_pem)
            self._line = None
            await self.renewed()
        return welcome

    monkeypatch.setattr(Connection, "_introduce", and_renewed_meanwhile)
    async with agent_of(site, identity):
        await until(lambda: len(site.heard.inventories) == 2)
    assert [state for known, state in site.heard.states if known == host_id][:1] == [HostState.UP]


async def forever(_: float) -> None:
    await asyncio.Event().wait()


def held(site: Site, host_id: int) -> bool:
    with site.database.read() as tx:
        server: str | None = tx.scalar(select(host.c.server).where(host.c.id == host_id))
    return server is not None


async def test_an_agent_that_said_it_returns_and_does_not_is_missed_after_all(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(host_id) is HostState.UP)
        await agent.connection.welcomed.wait()
        agent.connection._servers = (Endpoint("127.0.0.1", 1),)
        await agent.connection.renewed()
        await until(lambda: not held(site, host_id))
        assert site.state(host_id) is HostState.UP
        assert site.listener is not None
        await site.listener.sweep()
        with site.database.write() as tx:
            tx.execute(update(host).values(disconnected_at=tx.now - 61_000))
        await site.listener.sweep()
        # Somebody has looked for a moment only.
        assert site.state(host_id) is HostState.UP
        with site.database.write() as tx:
            tx.execute(update(host_watch).values(since_at=tx.now - 120_000))
        await site.listener.sweep()
        assert site.state(host_id) is HostState.DISCONNECTED


async def test_fleets_renew_too_and_storage_names_its_address_again(site: Site) -> None:
    add_simulated(site, 2)
    _, identity = await enrolled_fleet(site)
    await renew(identity, site.endpoint)
    assert [name.startswith("urn:pileus:fleet:") for name in names(identity)] == [True]
    async with fleet_of(site, identity):
        await all_up(site, 2)
    _, storage = await site.enrolled("s", kind=HostKind.SECONDARY_STORAGE)
    await renew(storage, site.endpoint)
    extension = storage.certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in extension.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


async def test_a_full_disk_or_an_end_between_leaves_the_old_pair_and_it_is_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, identity = await site.enrolled()
    before = pair(identity)

    class Ended(BaseException):
        """The machine lost its power."""

    for trouble, expected in ((OSError(errno.ENOSPC, "no space left"), OSError), (Ended(), Ended)):

        def fails(*_: object, trouble: BaseException = trouble) -> None:
            raise trouble

        for place in ("fsync", "fdopen"):
            with monkeypatch.context() as patched:
                patched.setattr(identity_module.os, place, fails)
                with pytest.raises(expected):
                    identity.renewed(identity.new_key(), "certificate")
            assert pair(identity) == before
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", fails)
            with pytest.raises(expected):
                identity.renewed(identity.new_key(), "certificate")
        assert pair(identity) == before
    assert await can_connect(site, identity)
    await renew(identity, site.endpoint)
    assert pair(identity) != before
    assert await can_connect(site, identity)


async def test_a_removed_host_cannot_renew_nor_can_one_without_a_certificate(site: Site) -> None:
    host_id, identity = await site.enrolled()
    with site.database.write() as tx:
        enrolment.revoke(tx, host_id)
    before = pair(identity)
    with pytest.raises(EnrolmentRefused, match="403"):
        await renew(identity, site.endpoint)
    assert pair(identity) == before
    body = msgspec.json.encode(Renew(identity.request()))
    context = identity_module.pinned_context(site.authority.ca_pem)
    assert (await ask(site.endpoint, context, "POST", "/renew", body))[0] == 403
    assert (await ask(site.endpoint, identity.client_context(), "POST", "/renew", b"{}"))[0] == 400


async def test_a_certificate_never_renews_into_another_host_s(site: Site) -> None:
    _, mine = await site.enrolled("a")
    _, other = await site.enrolled("b")
    own = names(mine)
    # Whatever the request says of itself, the certificate that was shown decides.
    key = mine.new_key()
    body = msgspec.json.encode(Renew(other.request(key=key)))
    status, answer = await ask(site.endpoint, mine.client_context(), "POST", "/renew", body)
    assert status == 200
    mine.renewed(key, msgspec.json.decode(answer, type=Renewed).certificate_pem)
    assert names(mine) == own


async def test_a_young_certificate_is_not_renewed(site: Site) -> None:
    await lasting(site, 365 * 86400)
    _, identity = await site.enrolled()
    with pytest.raises(EnrolmentRefused, match="409"):
        await renew(identity, site.endpoint)


async def test_an_ended_certificate_is_refused_and_its_line_ends(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(host_id) is HostState.UP)
        await agent.connection.welcomed.wait()
        assert site.listener is not None
        (line,) = site.listener.delivery.lines
        assert abs(line.ends_at - site.database.clock.now() - HALF_OVER * 1000) < 60_000
        first = len(site.heard.inventories)
        line.ends_at = site.database.clock.now()
        await until(lambda: len(site.heard.inventories) > first)
        assert agent.stop.is_set() is False
    ended = Authority.load(site.database, leaf_seconds=-1)
    key = identity.new_key()
    issued = ended.issue(identity.request(key=key), [identity.hosts()[0].uuid], serving=False)
    with site.database.write() as tx:
        values = {"serial": issued.serial, "host_id": host_id, "issued_at": issued.issued_at}
        tx.execute(host_certificate.insert().values(**values, expires_at=issued.expires_at))
    identity.renewed(key, issued.certificate_pem)
    with pytest.raises((EnrolmentRefused, ServerUnreachable)):
        await renew(identity, site.endpoint)
    with pytest.raises((ssl.SSLError, ConnectionError, InvalidMessage)):
        await can_connect(site, identity)


async def test_only_certificates_that_ended_are_forgotten(site: Site) -> None:
    _, identity = await site.enrolled()
    with site.database.write() as tx:
        row = tx.one(select(host_certificate))
        assert row is not None
        tx.execute(host_certificate.insert().values({**row, "serial": "ended", "expires_at": tx.now - 1}))
    await renew(identity, site.endpoint)
    with site.database.read() as tx:
        left = [row["serial"] for row in tx.all(select(host_certificate))]
    assert (len(left), "ended" in left) == (2, False)


async def test_files_of_the_first_version_are_joined(site: Site) -> None:
    _, identity = await site.enrolled()
    whole = pair(identity).decode()
    end = whole.index("-----BEGIN CERTIFICATE")
    (identity.state_dir / "agent.pem").unlink()
    (identity.state_dir / "agent.key").write_text(whole[:end])
    (identity.state_dir / "agent.crt").write_text(whole[end:])
    with identity.locked():
        assert pair(identity).decode() == whole
    assert sorted(path.name for path in identity.state_dir.iterdir()) == ["agent.pem", "ca.crt", "hosts.json", "lock"]
    assert await can_connect(site, identity)


# ---- when, and when again


class Script:
    """A clock that moves only when somebody sleeps, and servers that answer as they are told."""

    def __init__(self, identity: Identity, monkeypatch: pytest.MonkeyPatch, outcomes: list[Exception | None]) -> None:
        begins = identity.certificate().not_valid_before_utc.timestamp()
        self.life = identity.certificate().not_valid_after_utc.timestamp() - begins
        self.begins, self.now = begins, begins + 3600
        self.slept: list[float] = []
        self.asked: list[tuple[str, float]] = []
        self.renewed = asyncio.Event()
        self._outcomes = outcomes
        monkeypatch.setattr(renewal_module, "renew", self._renew)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.renewed.is_set():
            await asyncio.Event().wait()

    async def _renew(self, identity: Identity, server: Endpoint) -> None:
        self.asked.append((server.host, (self.now - self.begins) / self.life))
        outcome = self._outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def play(self, identity: Identity, servers: int, *, spread: float = 0.0) -> None:
        async def renewed() -> None:
            self.renewed.set()

        where = tuple(Endpoint(f"s{number}", 1) for number in range(servers))
        options: dict[str, Any] = {"wall_clock": lambda: self.now, "sleep": self.sleep, "spread": lambda: spread}
        task = asyncio.create_task(Renewal(identity, where, **options).run(renewed))
        async with asyncio.timeout(20):
            await self.renewed.wait()
        task.cancel()


@pytest.fixture
async def year(site: Site) -> Identity:
    """An agent with a certificate for a year."""
    await lasting(site, 365 * 86400)
    return (await site.enrolled())[1]


@pytest.mark.parametrize(("spread", "share"), [(0.0, 2 / 3), (0.5, 2 / 3 + 1 / 24), (0.999, 0.75)])
async def test_it_asks_when_two_thirds_of_the_life_are_over_each_agent_at_another_time(
    year: Identity, monkeypatch: pytest.MonkeyPatch, spread: float, share: float
) -> None:
    script = Script(year, monkeypatch, [None])
    await script.play(year, 1, spread=spread)
    ((_, asked_at),) = script.asked
    assert asked_at == pytest.approx(share, abs=0.001)
    assert max(script.slept) <= 3600.0


async def test_without_an_answer_each_server_is_asked_and_then_all_of_them_again(
    year: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [ServerUnreachable("away") for _ in range(6)]
    script = Script(year, monkeypatch, [*away, None])
    await script.play(year, 3)
    assert [name for name, _ in script.asked] == ["s0", "s1", "s2", "s0", "s1", "s2", "s0"]
    assert script.asked[-1][1] < 0.7


async def test_a_refusal_or_a_full_disk_is_tried_again_ever_more_often_towards_the_end(
    year: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble: list[Exception | None] = [EnrolmentRefused("403"), OSError(errno.ENOSPC, "full")]
    script = Script(year, monkeypatch, [*trouble, None])
    script.now = script.begins + script.life - 600
    await script.play(year, 2, spread=0.999)
    assert len(script.asked) == 3
    assert all(5 <= pause <= 30.1 for pause in script.slept[:2])


async def test_a_server_that_answers_with_what_is_not_ours_changes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, identity = await site.enrolled()
    before = pair(identity)
    of_old_key = site.authority.issue(identity.request(), ["x"], serving=False).certificate_pem
    answers: list[tuple[int, bytes, type[Exception]]] = [
        (200, b"{}", EnrolmentRefused),
        (200, msgspec.json.encode(Renewed("no certificate", site.authority.ca_pem)), EnrolmentRefused),
        (200, msgspec.json.encode(Renewed(of_old_key, site.authority.ca_pem)), EnrolmentRefused),
        (200, msgspec.json.encode(Renewed(of_old_key, "another")), EnrolmentRefused),
        (403, b"{}", EnrolmentRefused),
        (429, b"{}", ServerUnreachable),
        (503, b"{}", ServerUnreachable),
    ]
    for status, body, expected in answers:

        async def answered(*_: object, status: int = status, body: bytes = body) -> tuple[int, bytes]:
            return status, body

        monkeypatch.setattr(renewal_module, "ask", answered)
        with pytest.raises(expected):
            await renew(identity, site.endpoint)
        assert pair(identity) == before
