"""Connections made anew on the real wire, and agents that enrol again with a new secret."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleet_setup import add_simulated, all_up, enrolled_fleet, fleet_of
from hosts_setup import Site, agent_of, site_in, until
from places import TOKEN, group, refused
from places import host as host_added
from sqlalchemy import select, update

from pileus.agent.enrolment import EnrolmentRefused, Token, enrol
from pileus.agent.identity import Identity
from pileus.server.db.tables.host import enrolment_token, host, host_certificate
from pileus.server.db.transaction import Database
from pileus.server.domain.host import HostState
from pileus.server.hosts import liveness
from pileus.server.services.host_line import secret_of
from pileus.testing.client import Client

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


def asked(site: Site, host_id: int) -> int | None:
    with site.database.read() as tx:
        at: int | None = tx.scalar(select(host.c.reconnect_asked_at).where(host.c.id == host_id))
    return at


def introductions(site: Site, host_id: int) -> int:
    return [known for known, _ in site.heard.inventories].count(host_id)


async def test_a_host_that_is_asked_to_connects_anew(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP)
        with site.database.write() as tx:
            liveness.ask_to_reconnect(tx, host_id)
        await until(lambda: introductions(site, host_id) == 2 and asked(site, host_id) is None)
        await until(lambda: site.state(host_id) is HostState.UP)
    assert HostState.DOWN not in [state for _, state in site.heard.states]


async def test_a_server_that_was_not_told_finds_it_at_its_next_sweep(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP)
        with site.database.write() as tx:
            tx.execute(update(host).values(reconnect_asked_at=tx.now))
        assert site.listener is not None
        await site.listener.sweep()
        await until(lambda: introductions(site, host_id) == 2 and asked(site, host_id) is None)


async def test_of_a_fleet_only_the_host_that_is_asked_is_introduced_anew(site: Site) -> None:
    first, second, third = add_simulated(site, 3)
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity):
        await all_up(site, 3)
        assert site.listener is not None
        line = next(iter(site.listener.delivery.lines))
        with site.database.write() as tx:
            liveness.ask_to_reconnect(tx, second)
        await until(lambda: introductions(site, second) == 2 and asked(site, second) is None)
        assert (introductions(site, first), introductions(site, third)) == (1, 1)
        assert site.listener.delivery.lines == {line}


async def test_an_agent_that_lost_everything_enrols_again_and_the_lost_certificate_is_worth_nothing(
    site: Site, tmp_path: Path
) -> None:
    host_id, stolen = await site.enrolled()
    async with agent_of(site, stolen):
        await until(lambda: site.state(host_id) is HostState.UP)
        identity = Identity(tmp_path / "again")
        identity.state_dir.mkdir()
        secret = Token(site.token(host_id))
        # Until somebody uses the secret, nothing has changed.
        assert site.state(host_id) is HostState.UP
        await enrol(identity, site.endpoint, secret, address="127.0.0.1")
        async with agent_of(site, identity) as fresh:
            await until(lambda: introductions(site, host_id) >= 2)
            await fresh.connection.welcomed.wait()
            async with agent_of(site, stolen) as thief:
                assert "known here" in str(await thief.ended())
            assert site.state(host_id) is HostState.UP


async def test_an_answer_that_was_lost_does_not_cost_the_second_certificate_its_worth(
    site: Site, tmp_path: Path
) -> None:
    host_id, _ = await site.enrolled()
    identity = Identity(tmp_path / "again")
    identity.state_dir.mkdir()
    secret = Token(site.token(host_id))
    await enrol(identity, site.endpoint, secret, address="127.0.0.1")
    await enrol(identity, site.endpoint, secret, address="127.0.0.1")
    with site.database.read() as tx:
        counting = tx.all(select(host_certificate).where(host_certificate.c.revoked_at.is_(None)))
    assert len(counting) == 2  # Both of the same key; the one from before the secret counts no more.


async def test_another_host_of_the_same_agent_keeps_its_certificate(site: Site) -> None:
    host_id, identity = await site.enrolled("a")
    other, _ = site.add_host("b")
    await enrol(identity, site.endpoint, Token(site.token(other)), address="127.0.0.1")
    await enrol(identity, site.endpoint, Token(site.token(host_id)), address="127.0.0.1")
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP and site.state(other) is HostState.UP)


# ---- updateHostPassword


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def tokens(db: Database) -> dict[str, bool]:
    """Digest to whether an agent could still enrol with it."""
    with db.read() as tx:
        rows = tx.all(select(enrolment_token))
        return {row["token_hash"]: row["used_at"] is None and row["expires_at"] > tx.now for row in rows}


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_host_gets_a_new_secret_and_the_unused_one_counts_no_more(client: Client, db: Database) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    made = host_added(client, here, inside, "h1", hypervisor="KVM")
    answer = client.call("updateHostPassword", hostid=made["id"], username="root", password="another secret 0001")
    assert answer["success"] in (True, "true")
    assert tokens(db) == {digest(f"{TOKEN}-h1"): False, digest("another secret 0001"): True}
    with refused(431, "was used"):
        client.call("updateHostPassword", hostid=made["id"], username="root", password=f"{TOKEN}-h1")
    assert tokens(db)[digest("another secret 0001")]


def test_each_host_of_a_cluster_gets_a_secret_of_its_own_made_from_the_password(client: Client, db: Database) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    made = [host_added(client, here, inside, name, hypervisor="KVM") for name in ("h1", "h2")]
    password = "one password for all"
    client.call("updateHostPassword", clusterid=inside, username="root", password=password)
    # What `printf %s ID | openssl dgst -sha256 -hmac PASSWORD` prints.
    wanted = {hmac.new(password.encode(), each["id"].encode(), "sha256").hexdigest() for each in made}
    assert {each for each, counts in tokens(db).items() if counts} == {digest(secret) for secret in wanted}
    with db.read() as tx:
        rows = tx.all(select(host))
    assert {secret_of(password, row) for row in rows} == wanted


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"password": "fifteen letters"}, "password"),
        ({"hostid": None}, "hostid"),
        ({"clusterid": "both"}, "hostid"),
        ({"hostid": None, "clusterid": "both", "password": "too short"}, "password"),
    ],
)
def test_what_makes_no_secret_is_refused_and_leaves_the_old_one(
    client: Client, db: Database, wrong: dict[str, str | None], parameter: str
) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    made = host_added(client, here, inside, "h1", hypervisor="KVM")
    before = tokens(db)
    given = {"hostid": made["id"], "username": "root", "password": "another secret 0001", **wrong}
    if given.get("clusterid"):
        given["clusterid"] = inside
    with refused(431, parameter):
        client.call("updateHostPassword", **given)
    assert tokens(db) == before


def test_hosts_of_a_fleet_need_no_secret(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    made = host_added(client, here, inside, "h1")
    with db.write() as tx:
        tx.execute(update(host).values(fleet_id=1, wanted=None))
    with refused(431, "fleet"):
        client.call("updateHostPassword", hostid=made["id"], username="root", password="another secret 0001")
    with refused(431, "no host"):
        client.call("updateHostPassword", clusterid=inside, username="root", password="another secret 0001")


async def test_a_secret_for_a_removed_host_lets_nobody_in(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host()
    secret = Token(site.token(host_id))
    with site.database.write() as tx:
        tx.execute(update(host).values(live=None))
    identity = Identity(tmp_path / "late")
    identity.state_dir.mkdir()
    with pytest.raises(EnrolmentRefused):
        await enrol(identity, site.endpoint, secret, address="127.0.0.1")
