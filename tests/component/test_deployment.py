"""explainDeployment: where a guest would go and why not elsewhere; users learn nothing of hosts and pools."""

from typing import Any

import pytest
from places import refused
from sqlalchemy import func, insert, select, update
from vm_setup import steady_cloud

from pileus.server.db.tables import metadata
from pileus.server.db.tables.host import host, host_tag, storage_pool
from pileus.server.db.tables.offering import service_offering
from pileus.server.placement.reasons import FOR_USERS, Reason
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, counted_statements

NO_MEMORY = "there is not enough free memory on one host"


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


@pytest.fixture
def user(world: World, cloud: Cloud) -> Client:
    return Client(world.db, world.account("alice"))


def explained(client: Client, cloud: Cloud, **wishes: Any) -> dict[str, Any]:
    given = {"zoneid": cloud.zone, "serviceofferingid": cloud.offering, "templateid": cloud.template, **wishes}
    return client.one("explainDeployment", **given)


def names(world: World, cloud: Cloud) -> list[str]:
    with world.db.read() as tx:
        return list(tx.execute(select(host.c.name).where(host.c.id.in_(cloud.hosts)).order_by(host.c.id)).scalars())


def lack_memory(world: World) -> None:
    with world.db.write() as tx:
        tx.execute(update(service_offering).values(ram_mib=1 << 20))


def test_root_is_told_the_host_and_the_pool_and_why_not_the_others(world: World, cloud: Cloud, admin: Client) -> None:
    first, second = names(world, cloud)
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(state="Down"))

    told = explained(admin, cloud)

    assert (told["possible"], told["hostname"], told["summary"]) == (True, second, f"it would go to host {second}")
    assert [pool["volumetype"] for pool in told["storagepool"]] == ["ROOT"]
    assert (told["hostswithroom"], told["hostsrefused"]) == (1, 1)
    assert [(each["hostname"], each["reason"]) for each in told["refusal"]] == [(first, "it is Down")]
    assert told["refusalkind"] == [{"reason": "is not up", "hosts": 1}]


def test_root_is_told_of_every_host_when_none_has_room(world: World, cloud: Cloud, admin: Client) -> None:
    lack_memory(world)

    told = explained(admin, cloud)

    assert told["possible"] is False
    assert "hostname" not in told
    assert told["summary"].startswith("no host has room for the virtual machine: ")
    assert [each["hostname"] for each in told["refusal"]] == names(world, cloud)
    assert all("not enough memory" in each["reason"] for each in told["refusal"])


def test_a_user_learns_whether_and_in_general_why_not(world: World, cloud: Cloud, user: Client) -> None:
    assert explained(user, cloud) == {"possible": True, "summary": "there is room for the virtual machine"}
    lack_memory(world)

    assert explained(user, cloud) == {"possible": False, "summary": NO_MEMORY}


def test_a_user_learns_of_no_host_and_of_no_pool(world: World, cloud: Cloud, user: Client) -> None:
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(state="Down"))
        tx.execute(update(storage_pool).values(allocatable_bytes=0, name="a-secret-pool"))
        tx.execute(insert(host_tag).values(host_id=cloud.hosts[1], tag="a-secret-tag"))

    told = str(explained(user, cloud))

    assert not any(name in told for name in (*names(world, cloud), "a-secret-pool", "a-secret-tag"))
    assert not any(character.isdigit() for character in told)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.FITS])
def test_every_reason_has_words_for_users(reason: Reason) -> None:
    assert FOR_USERS[reason]


def test_a_zone_without_hosts_is_no_different_to_users(world: World, cloud: Cloud, user: Client, admin: Client) -> None:
    with world.db.write() as tx:
        tx.execute(update(host).values(live=None))

    assert explained(user, cloud)["summary"] == FOR_USERS[Reason.STATE]
    assert "the zone has no hosts" in explained(admin, cloud)["summary"]


def test_nothing_is_claimed_and_nothing_written(world: World, cloud: Cloud, user: Client, admin: Client) -> None:
    def everything() -> dict[str, Any]:
        with world.db.read() as tx:
            return {
                table.name: tx.scalar(select(func.count()).select_from(table)) for table in metadata.sorted_tables
            } | {table.name + "'s": tx.all(select(table)) for table in (storage_pool, host)}

    before = everything()
    with counted_statements(world.db) as seen:
        explained(user, cloud)
        explained(admin, cloud)

    assert everything() == before
    assert not any(statement.startswith(("INSERT", "UPDATE", "DELETE")) for statement in seen)


def test_it_takes_as_many_queries_in_a_larger_cloud(world: World, cloud: Cloud, admin: Client) -> None:
    def statements() -> int:
        with counted_statements(world.db) as seen:
            explained(admin, cloud)
        return len(seen)

    explained(admin, cloud)
    before = statements()
    for _ in range(20):
        world.host(cloud.cluster)
    explained(admin, cloud)

    assert statements() == before


def test_the_host_asked_for_is_the_only_one_looked_at(world: World, cloud: Cloud, admin: Client) -> None:
    told = explained(admin, cloud, hostid=cloud.hosts[1])

    assert told["hostname"] == names(world, cloud)[1]
    assert [each["reason"] for each in told["refusal"]] == ["another host was asked for"]


def test_only_root_may_ask_for_a_host(world: World, cloud: Cloud, user: Client) -> None:
    with refused(531):
        explained(user, cloud, hostid=cloud.hosts[1])


def test_what_cannot_be_deployed_anywhere_is_said_with_the_parameter(world: World, cloud: Cloud, user: Client) -> None:
    with refused(431, "is for"):
        explained(user, cloud, hypervisor="KVM")


def test_a_data_disk_is_looked_for_too(world: World, cloud: Cloud, admin: Client) -> None:
    disk = admin.one("createDiskOffering", name="vast", displaytext="vast", disksize=2000)
    with world.db.write() as tx:
        tx.execute(update(storage_pool).values(allocatable_bytes=1000 << 30))

    told = explained(admin, cloud, diskofferingid=disk["id"])

    assert told["possible"] is False
    assert "no storage" in told["refusal"][0]["reason"]
