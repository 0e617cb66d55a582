"""Hosts and secondary storage through the API. How they connect is shown in test_hosts_*."""

import hashlib

import pytest
from places import TOKEN, cluster, events, group, host, pod, refused, zone
from sqlalchemy import insert, select, text
from vm_setup import deployed

from pileus.server.db.queries.host import by_id
from pileus.server.db.tables import metadata
from pileus.server.db.tables.host import enrolment_token, host_certificate
from pileus.server.db.tables.host import host as hosts
from pileus.server.db.transaction import Database
from pileus.server.domain.account import AccountType
from pileus.server.hosts import signal
from pileus.server.services import host as service
from pileus.server.services import storage_pool
from pileus.testing import FakeClock, World
from pileus.testing.client import Client, Refused, counted_statements
from pileus.wire.messages import HostFacts

FACTS = HostFacts("Simulator", "1", "192.0.2.9", cpus=4, cpu_mhz=2000, memory_bytes=8 << 30)


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def key_of(database: Database, uuid: str) -> int:
    with database.read() as tx:
        return int(tx.scalar(select(hosts.c.id).where(hosts.c.uuid == uuid)))


def everything_stored(database: Database) -> str:
    """All rows of all tables, as text."""
    with database.read() as tx:
        return "\n".join(str(dict(row)) for table in metadata.sorted_tables for row in tx.all(select(table)))


def test_a_host_is_expected_and_its_secret_is_kept_as_a_digest(
    client: Client, db: Database, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    here, place, inside = group(client)
    made = host(client, here, inside, "H1", hosttags="ssd, fast,")
    assert (made["name"], made["state"], made["type"]) == ("h1", "Connecting", "Routing")
    assert (made["zoneid"], made["podid"], made["clusterid"]) == (here, place, inside)
    assert (made["hypervisor"], made["hosttags"]) == ("Simulator", "fast,ssd")
    assert client.one("listHosts") == made
    assert events(db)[-1] == ("HOST.CREATE", "Host h1 was added")
    secret = f"{TOKEN}-H1"
    with db.read() as tx:
        row = tx.one(select(enrolment_token))
    assert row is not None
    assert row["token_hash"] == hashlib.sha256(secret.encode()).hexdigest()
    assert row["expires_at"] == clock.now() + 24 * 3600 * 1000
    told = capsys.readouterr()
    for place_to_look in (everything_stored(db), str(made), told.out, told.err):
        assert TOKEN not in place_to_look


def test_a_refused_secret_is_not_told_either(client: Client, db: Database, capsys: pytest.CaptureFixture[str]) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    for wrong in ({"password": "canary-short"}, {"password": "canary" * 50}, {"zoneid": "x"}, {"url": "ftp://h"}):
        with pytest.raises(Refused) as told:
            host(client, here, inside, **{"hypervisor": "KVM", "password": "canary-one-time-secret", **wrong})
        assert told.value.code == 431
        assert "canary" not in told.value.text
    written = capsys.readouterr()
    assert "canary" not in everything_stored(db) + written.out + written.err


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"password": "fifteen letters"}, "password"),
        ({"hypervisor": "Simulator"}, "KVM hosts, not Simulator"),
        ({"hypervisor": "None"}, "hypervisor"),
        ({"hypervisor": "x"}, "hypervisor"),
        ({"url": "ftp://h1"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"url": "http://h\x001"}, "url"),
        ({"clusterid": None}, "clusterid"),
        ({"clusterid": None, "clustername": "c2"}, "clusterid"),
        ({"allocationstate": "x"}, "allocationstate"),
        ({"hosttags": "t" * 129}, "hosttags"),
    ],
)
def test_what_makes_no_host_is_refused_and_leaves_nothing(
    client: Client, db: Database, wrong: dict[str, str | None], parameter: str
) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    before = everything_stored(db)
    with refused(431, parameter):
        host(client, here, inside, **{"hypervisor": "KVM", **wrong})
    assert everything_stored(db) == before


def test_the_cluster_must_be_in_the_zone_and_pod(client: Client) -> None:
    _, _, inside = group(client)
    other = zone(client, "z2")["id"]
    with refused(431, "c1"):
        host(client, other, inside)
    elsewhere = pod(client, other, startip="192.168.10.40", endip=None)["id"]
    with refused(431, "c1"):
        host(client, client.one("listZones", keyword="z1")["id"], inside, podid=elsewhere)


def test_a_cluster_named_with_the_host_is_made_once(client: Client, db: Database) -> None:
    here = zone(client)["id"]
    place = pod(client, here)["id"]
    first, second = (
        client.one(
            "addHost", zoneid=here, podid=place, clustername="new", hypervisor="KVM", url=f"http://{name}",
            username="root", password=f"{TOKEN}-{name}",
        )
        for name in ("h1", "h2")
    )  # fmt: skip
    assert first["clusterid"] == second["clusterid"]
    assert client.one("listClusters")["hypervisortype"] == "KVM"
    assert ("CLUSTER.CREATE", "Cluster new was added") in events(db)
    with refused(431, "KVM hosts"):
        host(client, here, first["clusterid"], "h3")


def test_a_name_is_used_once_per_zone_and_a_secret_once(client: Client) -> None:
    here, _, inside = group(client, hypervisor="KVM")
    kvm = {"hypervisor": "KVM"}
    first = host(client, here, inside, **kvm)
    with refused(431, "h1"):
        host(client, here, inside, password="another secret, long enough", **kvm)
    with refused(431, "was used"):
        host(client, here, inside, "h2", password=f"{TOKEN}-h1", **kvm)
    client.call("deleteHost", id=first["id"])
    with refused(431, "was used"):
        host(client, here, inside, **kvm)
    assert host(client, here, inside, password="another secret, long enough", **kvm)["name"] == "h1"


def test_a_simulated_host_takes_any_password_and_waits_for_whoever_comes_first(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    for name, password in (("h1", "x"), ("h2", "x"), ("h3", f"{TOKEN}-same"), ("h4", f"{TOKEN}-same")):
        assert host(client, here, inside, name, password=password)["state"] == "Connecting"
    with db.read() as tx:
        wanted = [row["wanted"] for row in tx.all(select(hosts.c.wanted))]
        # A password that can be a secret lets an agent of its own enrol as well; the same twice can be that once.
        assert len(tx.all(select(enrolment_token))) == 1
    assert wanted == [1, 1, 1, 1]
    with refused(431, "h1"):
        host(client, here, inside, password="x")


def test_a_simulated_cluster_with_a_url_has_its_first_host_and_others_have_none(client: Client) -> None:
    here = zone(client)["id"]
    place = pod(client, here)["id"]
    made = cluster(client, here, place, url="http://sim", clustertype="ExternalManaged", username="a", password="b")
    first = client.one("listHosts")
    assert (first["name"], first["clusterid"], first["hypervisor"]) == ("sim", made["id"], "Simulator")
    cluster(client, here, place, "c2", hypervisor="KVM", url="http://kvm")
    assert client.call("listHosts")["count"] == 1


def test_a_cluster_whose_first_host_cannot_be_is_not_made(client: Client) -> None:
    here, place, inside = group(client)
    host(client, here, inside, "sim")
    with refused(431, "sim"):
        cluster(client, here, place, "c2", url="http://sim")
    with refused(431, "url"):
        cluster(client, here, place, "c2", url="ftp://other")
    assert client.call("listClusters")["count"] == 1


def test_a_zone_has_one_secondary_storage(client: Client, db: Database) -> None:
    here = zone(client)["id"]
    made = client.one("addSecondaryStorage", zoneid=here, url="nfs://nas:2049/export/?token=x", token=f"{TOKEN}-s")
    assert (made["name"], made["type"], made["state"]) == ("nfs://nas/export", "SecondaryStorage", "Connecting")
    assert events(db)[-1] == ("IMAGE.STORE.CREATE", "Secondary storage nfs://nas/export was added")
    assert TOKEN not in everything_stored(db)
    with refused(431, "nfs://nas/export"):
        client.call("addSecondaryStorage", zoneid=here, url="nfs://nas/other", token=f"{TOKEN}-t")
    client.call("deleteHost", id=made["id"])
    assert events(db)[-1] == ("IMAGE.STORE.DELETE", "Secondary storage nfs://nas/export was deleted")
    again = client.one("addSecondaryStorage", zoneid=here, url="nfs://nas/other", token=f"{TOKEN}-t")
    assert again["id"] != made["id"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"url": "gopher://x/y"}, "url"),
        ({"url": "nfs:"}, "url"),
        ({"url": "nfs://[x/y"}, "url"),
        ({"url": "nfs://nas/a%0ab"}, "url"),
        ({"url": "nfs://nas/a/../b"}, "url"),
        ({"url": "nfs://nas/%ff"}, "url"),
        ({"token": None}, "token is required"),
        ({"token": "short"}, "token"),
        ({"zoneid": "99"}, "zoneid"),
    ],
)
def test_what_makes_no_secondary_storage_is_refused(client: Client, wrong: dict[str, str | None], word: str) -> None:
    here = zone(client)["id"]
    with refused(431, word):
        client.call("addSecondaryStorage", **{"zoneid": here, "url": "nfs://nas/export", "token": TOKEN, **wrong})
    assert client.call("listHosts") == {}


def test_secondary_storage_that_holds_templates_stays(client: Client, world: World) -> None:
    here = world.zone()
    storage = world.secondary_storage(here)
    world.template(here)
    with refused(536, "1 templates"):
        client.call("deleteHost", id=storage)


def test_a_host_on_which_guests_live_stays(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1)
    deployed(world, world.account("alice"), cloud)
    with refused(536, "virtual machines live"):
        client.call("deleteHost", id=cloud.hosts[0])
    assert client.one("listHosts", id=cloud.hosts[0])["state"] == "Up"


def test_a_removed_host_can_never_come_back(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    made = host(client, here, inside)
    host_id = key_of(db, made["id"])
    with db.write() as tx:
        tx.execute(insert(host_certificate).values(serial="1", host_id=host_id, issued_at=1, expires_at=2))
    removed: list[int] = []
    ignore = signal.listen({signal.About.REMOVED: removed.append})
    try:
        client.call("deleteHost", id=made["id"])
    finally:
        ignore()
    assert removed == [host_id]
    with db.read() as tx:
        row, certificate = by_id(tx, host_id), tx.one(select(host_certificate))
        token = tx.one(select(enrolment_token))
    assert (row["live"], row["state"]) == (None, "Removed")
    assert certificate is not None and certificate["revoked_at"] is not None
    assert token is not None and token["used_at"] is not None
    assert events(db)[-1] == ("HOST.DELETE", "Host h1 was deleted")
    assert client.call("listHosts") == {}
    with refused(431, "id"):
        client.call("deleteHost", id=made["id"])


def test_jobs_that_wait_for_a_removed_host_are_told_at_once(client: Client, world: World) -> None:
    cluster_id = world.cluster(world.pod(world.zone()))
    host_id = world.host(cluster_id)
    pool = world.pool(cluster_id)
    world.refuses_delivery = lambda waiting: True
    with world.db.write() as tx:
        ref = storage_pool.attach(tx, pool, host_id)
    began = world.clock.now()
    while world.turn():
        pass
    assert len(world.pending_operations()) == 1
    client.call("deleteHost", id=host_id)
    assert world.pending_operations() == []
    world.result(ref)
    assert world.clock.now() == began
    world.assert_nothing_left()


def test_an_update_changes_tags_preference_and_allocation(client: Client) -> None:
    here, _, inside = group(client)
    made = host(client, here, inside, hosttags="a,b")
    category = client.call("listOsCategories")["oscategory"][0]
    changed = client.one(
        "updateHost", id=made["id"], hosttags="c", oscategoryid=category["id"], allocationstate="Disabled"
    )
    assert (changed["hosttags"], changed["oscategoryname"]) == ("c", category["name"])
    assert (changed["allocationstate"], changed["resourcestate"]) == ("Disabled", "Disabled")
    for wrong in ({"allocationstate": "x"}, {"oscategoryid": "99"}, {"hosttags": "t" * 129}):
        with refused(431, next(iter(wrong))):
            client.call("updateHost", id=made["id"], **wrong)
    assert client.one("listHosts") == changed


def test_a_host_that_connects_offers_its_capacity_and_gets_the_pools(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    made = host(client, here, inside)
    pool = client.one("createStoragePool", zoneid=here, clusterid=inside, name="s1", url="SharedMountPoint:///s1")
    client.call("updateConfiguration", name="cpu.overprovisioning.factor", value="1.5")
    host_id = key_of(db, made["id"])
    for _ in range(3):
        with db.write() as tx:
            service.introduced(tx, host_id, FACTS)
    with db.read() as tx:
        jobs = tx.all(text("SELECT phase FROM job WHERE workflow = 'storage.attach'"))  # type: ignore[arg-type]
        room = tx.one(text(f"SELECT * FROM host_capacity WHERE host_id = {host_id}"))  # type: ignore[arg-type]
    # One runs, one waits behind it; a host that comes and goes does not pile up more.
    assert [row["phase"] for row in jobs] == ["forward", "queued"]
    assert room is not None
    assert (room["cpu_total_mhz"], room["ram_total_mib"]) == (12000, 8192)
    assert client.one("listStoragePools", id=pool["id"])["state"] == "Initial"


def test_lists_filter_by_everything_they_say(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=2)
    guest = deployed(world, world.account("alice"), cloud)
    storage = client.one("listHosts", type="secondarystorage")
    assert len(client.names("listHosts", type="Routing")) == 2
    assert len(client.names("listHosts", clusterid=cloud.cluster, podid=cloud.pod, zoneid=cloud.zone)) == 2
    assert len(client.names("listHosts", state="up")) == 3
    assert client.call("listHosts", state="Down") == {}
    assert client.names("listHosts", name=storage["name"]) == [storage["name"]]
    (lives,) = client.names("listHosts", virtualmachineid=guest)
    assert lives in client.names("listHosts", type="Routing")
    for wrong in ({"state": "x"}, {"type": "x"}, {"allocationstate": "x"}, {"virtualmachineid": "99"}):
        with refused(431, next(iter(wrong))):
            client.call("listHosts", **wrong)


def test_a_host_tells_what_its_guests_claimed(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1, cpus=8)
    deployed(world, world.account("alice"), cloud)
    shown = client.one("listHosts", id=cloud.hosts[0])
    with world.db.read() as tx:
        room = tx.one(text(f"SELECT * FROM host_capacity WHERE host_id = {cloud.hosts[0]}"))  # type: ignore[arg-type]
    assert room is not None
    assert room["cpu_used_mhz"] > 0
    assert shown["cpuallocated"] == f"{100 * room['cpu_used_mhz'] / room['cpu_total_mhz']:.2f}%"
    assert shown["memoryallocated"] == room["ram_used_mib"] << 20
    assert shown["hasEnoughCapacity"] is True


def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    host(client, here, inside, "h0", hosttags="x")
    client.call("listHosts")
    with counted_statements(db) as few:
        client.call("listHosts")
    for number in range(1, 20):
        host(client, here, inside, f"h{number}", hosttags="x,y")
    with counted_statements(db) as many:
        assert client.call("listHosts")["count"] == 20
    assert len(many) == len(few)


def test_hosts_are_for_administrators(client: Client, world: World) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listHosts")
    with refused(401):
        Client(world.db, world.account(type=AccountType.RESOURCE_ADMIN)).call("addSecondaryStorage", url="x")


def test_no_answer_has_a_field_for_secrets(client: Client) -> None:
    here, place, inside = group(client)
    shown = [host(client, here, inside), cluster(client, here, place, "c2", password="canary", url="http://u:canary@x")]
    names = {name for view in shown for name in view}
    assert not {name for name in names if "password" in name or "token" in name or "secret" in name}
    assert "canary" not in str(shown)
