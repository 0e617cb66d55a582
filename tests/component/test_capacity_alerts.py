"""Alerts on what is nearly used up, lost hosts and drift: raised once, cleared once, told to administrators."""

import pytest
from places import refused
from sqlalchemy import select, update
from vm_setup import deployed, steady_cloud

from pileus.server.alerts.standing import AlertType, raise_alert
from pileus.server.db.tables.event import alert
from pileus.server.db.tables.host import host, host_capacity, host_stats, storage_pool
from pileus.server.db.tables.network import pod_ip, public_ip
from pileus.server.db.tables.place import cluster, zone_vnet
from pileus.server.domain.account import AccountType
from pileus.server.domain.host import HostState
from pileus.server.services import host_alert
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client

PERIOD = 300.0


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def check(world: World) -> list[tuple[str, str]]:
    """Go to the next multiple of the period and check; name and text of what stands then."""
    world.clock.reach(world.clock.now() + round(PERIOD * 1000) - world.clock.now() % round(PERIOD * 1000))
    world.reconcile("capacity-alerts")
    with world.reading() as tx:
        rows = tx.all(select(alert).where(alert.c.standing == 1).order_by(alert.c.type, alert.c.id))
    return [(AlertType(row["type"]).name, row["description"]) for row in rows]


def use(world: World, table: object, share: float, used: str, total: str, key: str, of: int) -> None:
    with world.db.write() as tx:
        columns = table.c  # type: ignore[attr-defined]
        whole = tx.scalar(select(columns[total]).where(columns[key] == of))
        tx.execute(update(table).where(columns[key] == of).values({used: int(whole * share)}))  # type: ignore[arg-type]


def test_nothing_stands_while_there_is_enough(world: World, cloud: Cloud) -> None:
    deployed(world, world.account("alice"), cloud, name="web")
    assert check(world) == []


def test_cpu_and_memory_alerts_stand_once_and_go_when_it_is_over(world: World, cloud: Cloud, admin: Client) -> None:
    for host_id in cloud.hosts:
        use(world, host_capacity, 0.9, "cpu_used_mhz", "cpu_total_mhz", "host_id", host_id)
        use(world, host_capacity, 0.9, "ram_used_mib", "ram_total_mib", "host_id", host_id)
    stands = check(world)
    assert [name for name, _ in stands] == ["MEMORY", "CPU"]
    with world.reading() as tx:
        name = tx.scalar(select(cluster.c.name).where(cluster.c.id == cloud.cluster))
    assert stands[1][1] == f"cluster {name} is short of CPU: 90.0% in use, 28800 of 32000"
    assert check(world) == stands
    for host_id in cloud.hosts:
        use(world, host_capacity, 0.5, "cpu_used_mhz", "cpu_total_mhz", "host_id", host_id)
    assert [name for name, _ in check(world)] == ["MEMORY"]
    shown = admin.call("listAlerts")["alert"]
    assert [(row["name"], row["standing"], "cleared" in row) for row in shown] == [
        ("CPU", False, True),
        ("MEMORY", True, False),
    ]


def test_a_pod_and_a_zone_have_alerts_of_their_own_where_they_differ_from_their_parts(
    world: World, cloud: Cloud
) -> None:
    beside = world.cluster(cloud.pod)
    empty = world.host(beside, cpus=1)
    for host_id in cloud.hosts:
        use(world, host_capacity, 0.95, "cpu_used_mhz", "cpu_total_mhz", "host_id", host_id)
    texts = [text.split(" is short")[0].split()[0] for _, text in check(world)]
    assert texts == ["cluster", "pod"]
    assert empty


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_storage_addresses_and_vlans_are_watched(world: World, cloud: Cloud, share: float) -> None:
    use(world, storage_pool, share, "allocated_bytes", "allocatable_bytes", "id", cloud.pool)
    use(world, storage_pool, 1 - share, "available_bytes", "capacity_bytes", "id", cloud.pool)
    with world.db.write() as tx:
        space = {"storage_total_bytes": 1000, "storage_used_bytes": int(1000 * share)}
        tx.execute(update(host_stats).where(host_stats.c.host_id == cloud.storage).values(**space))
        for number in range(10):
            taken = 1 if number < 10 * share else None
            tx.execute(pod_ip.insert().values(pod_id=cloud.pod, address=f"192.168.10.{number + 2}", vm_id=taken))
        addresses = list(tx.execute(select(public_ip.c.id).order_by(public_ip.c.id)).scalars())
        vnets = list(tx.execute(select(zone_vnet.c.vnet).order_by(zone_vnet.c.vnet)).scalars())
        for number in range(int(10 * share)):
            tx.execute(update(public_ip).where(public_ip.c.id == addresses[number]).values(state="Allocated"))
            tx.execute(update(zone_vnet).where(zone_vnet.c.vnet == vnets[number]).values(network_id=1000 + number))
    names = {name for name, _ in check(world)}
    all_of_them = {"STORAGE", "STORAGE_ALLOCATED", "SECONDARY_STORAGE", "PUBLIC_IP", "PRIVATE_IP", "VLAN"}
    assert names == (all_of_them if share > 0.85 else set())


def test_thresholds_and_the_period_are_settings(world: World, cloud: Cloud, admin: Client) -> None:
    use(world, host_capacity, 0.5, "cpu_used_mhz", "cpu_total_mhz", "host_id", cloud.hosts[0])
    assert check(world) == []
    admin.call("updateConfiguration", name="cpu.capacity.threshold", value="0.2")
    world.clock.advance(200.0)
    world.reconcile("capacity-alerts")
    with world.reading() as tx:
        assert tx.all(select(alert)) == []
    assert [name for name, _ in check(world)] == ["CPU"]


def test_a_lost_host_has_an_alert_until_it_is_back(world: World, cloud: Cloud, admin: Client) -> None:
    lost = cloud.hosts[0]
    for _ in range(2):
        with world.db.write() as tx:
            host_alert.changed(tx, lost, HostState.DISCONNECTED)
            host_alert.changed(tx, lost, HostState.DOWN)
    (shown,) = admin.call("listAlerts", type=int(AlertType.HOST))["alert"]
    assert (shown["name"], shown["standing"]) == ("HOST", True)
    with world.db.write() as tx:
        host_alert.changed(tx, lost, HostState.UP)
    assert admin.one("listAlerts", type="host")["standing"] is False


def test_the_alert_of_a_lost_host_goes_with_the_host(world: World, cloud: Cloud) -> None:
    lost = cloud.hosts[0]
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == lost).values(state="Down"))
        host_alert.changed(tx, lost, HostState.DOWN)
    assert [name for name, _ in check(world)] == ["HOST"]
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == lost).values(live=None, state="Removed"))
    assert check(world) == []


def test_drift_is_told_and_cleared_by_the_next_recount_that_finds_none(world: World, cloud: Cloud) -> None:
    use(world, host_capacity, 0.1, "cpu_used_mhz", "cpu_total_mhz", "host_id", cloud.hosts[0])
    world.reconcile("capacity")
    assert [name for name, _ in check(world)] == ["COUNT"]
    world.reconcile("capacity")
    assert check(world) == []


def test_alerts_are_for_administrators_of_the_cloud(world: World, admin: Client) -> None:
    with world.db.write() as tx:
        raise_alert(tx, AlertType.JOB, "job:1", "Job 1 cannot undo what it began")
    key = admin.one("listAlerts")["id"]
    assert admin.one("listAlerts", id=key, keyword="UNDO")["type"] == 100
    assert admin.call("listAlerts", keyword="nothing") == {}
    with refused(431, "type"):
        admin.call("listAlerts", type="weather")
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listAlerts")
