"""Primary storage through the API, and what hosts make of it."""

import pytest
from places import cluster, events, group, refused, zone
from sqlalchemy import insert, select, update
from vm_setup import deployed

from pileus.server.db.tables.host import host, storage_pool, storage_pool_host
from pileus.server.db.tables.template import template_on_pool
from pileus.server.db.transaction import Database
from pileus.server.domain.account import AccountType
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import CopyState
from pileus.server.events import job_ended, job_failed
from pileus.testing import World
from pileus.testing.client import Client, counted_statements
from pileus.wire.messages import Answer
from pileus.wire.operations import AttachPool, Reason, Refusal


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def pool(client: Client, zone_id: object, cluster_id: object, name: str = "s1", **values: object) -> dict[str, object]:
    """A pool in a shared directory."""
    given = {"zoneid": zone_id, "clusterid": cluster_id, "name": name, "url": f"SharedMountPoint:///mnt/{name}"}
    return client.one("createStoragePool", **{**given, **values})


def uses(database: Database) -> dict[int, int]:
    """Whether each host that was asked to use a pool does."""
    with database.read() as tx:
        return {row["host_id"]: row["attached"] for row in tx.all(select(storage_pool_host))}


def test_a_pool_tells_what_it_was_made_with(client: Client, db: Database) -> None:
    here, place, inside = group(client)
    made = pool(client, here, inside, url="nfs://NAS/export%20one/", tags="ssd, fast", podid=place)
    expected = {
        "name": "s1",
        "zoneid": here,
        "podid": place,
        "clusterid": inside,
        "clustername": "c1",
        "ipaddress": "nas",
        "path": "/export one",
        "type": "NetworkFilesystem",
        "state": "Initial",
        "tags": "fast,ssd",
        "disksizetotal": 0,
        "disksizeallocated": 0,
    }
    assert {name: made[name] for name in expected} == expected
    assert client.one("listStoragePools") == made
    assert events(db)[-1] == ("PRIMARY.STORAGE.CREATE", "Primary storage s1 was added")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"url": "iscsi://x/y"}, "url"),
        ({"url": "nfs:///export"}, "server"),
        ({"url": "nfs://[x/export"}, "url"),
        ({"url": "file:///"}, "directory"),
        ({"url": "file:///a/../../etc"}, "url"),
        ({"url": "file:///a%2f..%2fb"}, "url"),
        ({"url": "file:///a%0ab"}, "url"),
        ({"url": "file:///%ff"}, "url"),
        ({"url": "relative"}, "url"),
        ({"name": " s"}, "name"),
        ({"tags": "t" * 129}, "tags"),
        ({"clusterid": None}, "clusterid"),
        ({"clusterid": "99"}, "clusterid"),
        ({"podid": "99"}, "podid"),
    ],
)
def test_what_makes_no_pool_is_refused_and_leaves_nothing(client: Client, wrong: dict[str, object], word: str) -> None:
    here, _, inside = group(client)
    with refused(431, word):
        pool(client, here, inside, **wrong)
    assert client.call("listStoragePools") == {}


def test_the_cluster_must_be_in_the_zone(client: Client) -> None:
    _, _, inside = group(client)
    with refused(431, "c1"):
        pool(client, zone(client, "z2")["id"], inside)


def test_a_place_is_one_pool_and_a_name_is_used_once_per_cluster(client: Client) -> None:
    here, place, inside = group(client)
    other = cluster(client, here, place, "c2")["id"]
    pool(client, here, inside)
    with refused(431, "s1"):
        pool(client, here, inside, url="SharedMountPoint:///elsewhere")
    with refused(431, "s1 already"):
        pool(client, here, inside, "s2", url="sharedmountpoint:///mnt/s1/")
    # Another cluster may see another directory under the same path, but an export is the same for all.
    pool(client, here, other, url="SharedMountPoint:///mnt/s1")
    pool(client, here, inside, "n1", url="nfs://nas/export")
    with refused(431, "n1 already"):
        pool(client, here, other, "n2", url="nfs://nas/export/")


def test_hosts_attach_a_new_pool_and_it_comes_up_with_its_size(client: Client, world: World) -> None:
    inside = world.cluster(world.pod(world.zone()))
    hosts = {world.host(inside), world.host(inside)}
    here = client.one("listZones")["id"]
    made = pool(client, here, inside, url="nfs://nas/export")
    world.hosts.world.pool(str(made["id"])).capacity_bytes = 1000
    assert made["state"] == "Initial"
    world.settle()
    shown = client.one("listStoragePools")
    assert (shown["state"], shown["disksizetotal"]) == ("Up", 1000)
    assert uses(world.db) == dict.fromkeys(hosts, 1)
    with world.db.read() as tx:
        allocatable = tx.scalar(select(storage_pool.c.allocatable_bytes))
    assert allocatable == 2000  # storage.overprovisioning.factor, for exports only


def test_each_host_that_attaches_a_new_pool_has_events_of_its_own(client: Client, world: World) -> None:
    inside = world.cluster(world.pod(world.zone()))
    world.host(inside)
    world.host(inside)
    world.hooks.on_failed.append(job_failed)
    world.hooks.on_end.append(job_ended)
    refusals = [Refusal(Reason.MISSING, "no such directory")]
    world.instead = lambda waiting: (
        Answer(waiting.operation_id, "", refusal=refusals.pop())
        if refusals and isinstance(waiting.operation, AttachPool)
        else None
    )
    pool(client, client.one("listZones")["id"], inside)
    world.settle()
    told = sorted(text for kind, text in events(world.db) if kind == "PRIMARY.STORAGE.CREATE")
    assert told == [
        "Attached primary storage s1 to host host-5",
        "Attaching primary storage s1 to host host-4",
        "Attaching primary storage s1 to host host-5",
        "Failed: Attaching primary storage s1 to host host-4: no such directory",
        "Primary storage s1 was added",
    ]


def test_a_pool_that_no_host_can_attach_says_so_in_an_event_and_is_tried_again(client: Client, world: World) -> None:
    inside = world.cluster(world.pod(world.zone()))
    only = world.host(inside)
    world.hooks.on_failed.append(job_failed)
    world.instead = lambda waiting: (
        Answer(waiting.operation_id, "", refusal=Refusal(Reason.MISSING, "no such directory"))
        if isinstance(waiting.operation, AttachPool)
        else None
    )
    pool(client, client.one("listZones")["id"], inside)
    world.settle()
    assert client.one("listStoragePools")["state"] == "Initial"
    assert uses(world.db) == {}
    assert events(world.db)[-1] == (
        "PRIMARY.STORAGE.CREATE",
        "Failed: Attaching primary storage s1 to host host-4: no such directory",
    )
    world.instead = lambda waiting: None
    world.reconcile("storage-attach")
    world.settle()
    assert client.one("listStoragePools")["state"] == "Up"
    assert uses(world.db) == {only: 1}
    world.reconcile("storage-attach")
    assert world.open_jobs() == []


def test_storage_is_not_taken_from_under_guests_when_a_second_attach_fails(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1)
    deployed(world, world.account("alice"), cloud)
    asked: list[str] = []

    def refuse(waiting: object) -> Answer | None:
        asked.append(type(waiting.operation).__name__)  # type: ignore[attr-defined]
        if asked[-1] == "AttachPool":
            return Answer(waiting.operation_id, "", refusal=Refusal(Reason.FAILED, "broken"))  # type: ignore[attr-defined]
        return None

    world.instead = refuse
    with world.db.write() as tx:
        tx.execute(update(storage_pool_host).values(attached=0))
    world.reconcile("storage-attach")
    world.settle()
    assert "AttachPool" in asked
    assert "DetachPool" not in asked
    assert uses(world.db) == {cloud.hosts[0]: 0}


def test_a_pool_with_volumes_stays(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1)
    deployed(world, world.account("alice"), cloud)
    with refused(536, "volumes lie"):
        client.call("deleteStoragePool", id=cloud.pool)
    assert client.one("listStoragePools")["state"] == "Up"


def test_a_pool_to_which_a_template_is_being_copied_stays(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1)
    with world.db.write() as tx:
        tx.execute(
            insert(template_on_pool).values(
                template_id=cloud.template, pool_id=cloud.pool, state=str(CopyState.DOWNLOADING), name="t",
                used_at=tx.now,
            )
        )  # fmt: skip
    with refused(536, "template"):
        client.call("deleteStoragePool", id=cloud.pool)


def test_a_removed_pool_is_let_go_by_hosts_that_were_asked_and_have_not_answered(client: Client, world: World) -> None:
    inside = world.cluster(world.pod(world.zone()))
    slow = world.host(inside)
    world.refuses_delivery = lambda waiting: True
    made = pool(client, client.one("listZones")["id"], inside)
    while world.turn():
        pass
    assert len(world.pending_operations()) == 1
    client.call("deleteStoragePool", id=made["id"])
    assert client.call("listStoragePools") == {}
    world.refuses_delivery = lambda waiting: False
    world.settle()
    assert uses(world.db) == {}
    assert str(made["id"]) not in world.hosts.backend(world.uuid(host, slow)).host.attached
    world.assert_nothing_left()


def test_a_pool_removed_while_its_host_is_down_is_let_go_when_the_host_is_back(client: Client, world: World) -> None:
    inside = world.cluster(world.pod(world.zone()))
    only = world.host(inside)
    made = world.pool(inside)
    with world.db.write() as tx:
        tx.execute(update(host).values(state=str(HostState.DOWN)))
    world.refuses_delivery = lambda waiting: True
    client.call("deleteStoragePool", id=made)
    world.settle()
    assert [kind for _, kind in world.pending_operations()] == ["DetachPool"]
    world.refuses_delivery = lambda waiting: False
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == only).values(state=str(HostState.UP)))
    world.settle()
    world.assert_nothing_left()


def test_a_name_is_free_again_when_the_pool_is_gone(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    first = pool(client, here, inside)
    client.call("deleteStoragePool", id=first["id"])
    assert ("PRIMARY.STORAGE.DELETE", "Primary storage s1 was deleted") in events(db)
    assert pool(client, here, inside)["id"] != first["id"]
    with refused(431, "id"):
        client.call("deleteStoragePool", id=first["id"])


def test_lists_filter_by_everything_they_say(client: Client) -> None:
    here, place, inside = group(client)
    pool(client, here, inside)
    pool(client, here, inside, "n1", url="nfs://nas/export")
    for given, names in (
        ({"name": "n1"}, ["n1"]),
        ({"ipaddress": "nas"}, ["n1"]),
        ({"path": "/mnt/s1"}, ["s1"]),
        ({"zoneid": here, "podid": place, "clusterid": inside}, ["s1", "n1"]),
        ({"keyword": "S"}, ["s1"]),
        ({"name": "x"}, []),
    ):
        assert client.names("listStoragePools", **given) == names


def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(client: Client, db: Database) -> None:
    here, _, inside = group(client)
    pool(client, here, inside, tags="x")
    client.call("listStoragePools")
    with counted_statements(db) as few:
        client.call("listStoragePools")
    for number in range(20):
        pool(client, here, inside, f"more{number}", tags="x,y")
    with counted_statements(db) as many:
        assert client.call("listStoragePools")["count"] == 21
    assert len(many) == len(few)


def test_storage_pools_are_for_administrators(world: World) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listStoragePools")
