"""Rows of a small cloud, inserted directly: what a test needs before the thing it tests."""

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, insert, select

from pileus.agent.backends.simulator import SimulatedHosts, SimulatedStore
from pileus.agent.backends.simulator.world import Image
from pileus.server.db import rows
from pileus.server.db.queries import count
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_stats,
    storage_pool,
    storage_pool_host,
)
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.tables.offering import disk_offering, service_offering
from pileus.server.db.tables.place import cluster, pod, zone, zone_vnet
from pileus.server.db.tables.template import os_type, template, template_copy, template_zone
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import (
    ADMIN_ACCOUNT,
    ADMIN_USER,
    ROLE_OF,
    ROOT_DOMAIN,
    UNLIMITED,
    AccountType,
    Resource,
)
from pileus.server.domain.caller import Caller
from pileus.server.domain.host import HostState, Hypervisor
from pileus.server.domain.ids import (
    Account,
    Cluster,
    DiskOffering,
    Domain,
    Host,
    Id,
    Pod,
    ServiceOffering,
    StoragePool,
    Template,
    User,
    VlanIpRange,
    Zone,
)
from pileus.server.domain.storage import CopyState, PoolState
from pileus.wire.messages import HostKind
from pileus.wire.places import PoolKind

GIB = 1 << 30


@dataclass(frozen=True)
class Cloud:
    """A zone that can run guests."""

    zone: Id[Zone]
    pod: Id[Pod]
    cluster: Id[Cluster]
    hosts: tuple[Id[Host], ...]
    pool: Id[StoragePool]
    storage: Id[Host]
    template: Id[Template]
    offering: Id[ServiceOffering]


class Builders:
    """Makes rows, and for hosts, pools and images their simulated counterparts. Every call is one transaction."""

    db: Database
    hosts: SimulatedHosts

    def __init__(self) -> None:
        self._made = 0
        self.stores: dict[int, SimulatedStore] = {}
        """Simulated secondary storage by host id."""

    def cloud(self, *, hosts: int = 2, cpus: int = 8, memory: int = 16 * GIB) -> Cloud:
        """An advanced zone with hosts, primary and secondary storage, public addresses, a template, an offering."""
        zone_id = self.zone()
        pod_id = self.pod(zone_id)
        cluster_id = self.cluster(pod_id)
        storage_id = self.secondary_storage(zone_id)
        host_ids = tuple(self.host(cluster_id, cpus=cpus, memory=memory) for _ in range(hosts))
        pool_id = self.pool(cluster_id)
        self.public_range(zone_id)
        template_id = self.template(zone_id)
        offering_id = self.offering()
        return Cloud(zone_id, pod_id, cluster_id, host_ids, pool_id, storage_id, template_id, offering_id)

    # ---- places

    def zone(
        self,
        name: str = "",
        *,
        network_type: str = "Advanced",
        guest_cidr: str | None = "10.1.1.0/24",
        vnets: tuple[int, int] = (1000, 1009),
        **values: Any,
    ) -> Id[Zone]:
        """A zone with VNIs `vnets` (first, last) for its guest networks."""
        name = name or self._name("zone")
        with self.db.write() as tx:
            zone_id = self._add(
                tx,
                zone,
                **{
                    "name": name,
                    "dns1": "192.0.2.53",
                    "internal_dns1": "192.0.2.53",
                    "guest_cidr": guest_cidr,
                    "vlan_range": f"{vnets[0]}-{vnets[1]}",
                    "network_type": network_type,
                    "token": hashlib.sha256(name.encode()).hexdigest(),
                    **values,
                },
            )
            for vnet in range(vnets[0], vnets[1] + 1):
                tx.execute(insert(zone_vnet).values(zone_id=zone_id, vnet=vnet))
        return Id(zone_id)

    def pod(self, zone_id: int, name: str = "", **values: Any) -> Id[Pod]:
        """A pod with private addresses 192.168.10.2 to .250."""
        with self.db.write() as tx:
            row = {
                "zone_id": zone_id,
                "name": name or self._name("pod"),
                "gateway": "192.168.10.1",
                "netmask": "255.255.255.0",
                "start_ip": "192.168.10.2",
                "end_ip": "192.168.10.250",
            }
            return Id(self._add(tx, pod, **{**row, **values}))

    def cluster(self, pod_id: int, name: str = "", **values: Any) -> Id[Cluster]:
        """A cluster of simulated hosts."""
        with self.db.write() as tx:
            zone_id = tx.scalar(select(pod.c.zone_id).where(pod.c.id == pod_id))
            row = {
                "zone_id": zone_id,
                "pod_id": pod_id,
                "name": name or self._name("cluster"),
                "hypervisor": str(Hypervisor.SIMULATOR),
            }
            return Id(self._add(tx, cluster, **{**row, **values}))

    def host(
        self, cluster_id: int, *, cpus: int = 8, cpu_mhz: int = 2000, memory: int = 16 * GIB, **values: Any
    ) -> Id[Host]:
        """A simulated host that is Up, attached to every pool of its cluster. `memory` in bytes."""
        name = self._name("host")
        with self.db.write() as tx:
            place = tx.one(select(cluster).where(cluster.c.id == cluster_id))
            if place is None:
                raise LookupError(f"cluster {cluster_id}")
            row = {
                "name": name,
                "kind": str(HostKind.ROUTING),
                "state": str(HostState.UP),
                "zone_id": place["zone_id"],
                "pod_id": place["pod_id"],
                "cluster_id": cluster_id,
                "hypervisor": str(Hypervisor.SIMULATOR),
                "url": f"http://{name}",
                "address": "127.0.0.1",
                "version": "1",
                "capabilities": "hvm",
                "cpus": cpus,
                "cpu_mhz": cpu_mhz,
                "memory_bytes": memory,
                "heard_at": tx.now,
            }
            host_id = self._add(tx, host, **{**row, **values})
            tx.execute(
                insert(host_capacity).values(
                    host_id=host_id, cpu_total_mhz=cpus * cpu_mhz, ram_total_mib=memory // (1 << 20)
                )
            )
            tx.execute(insert(host_stats).values(host_id=host_id, taken_at=tx.now))
            pools = select(storage_pool.c.id).where(storage_pool.c.cluster_id == cluster_id, storage_pool.c.live == 1)
            for pool in tx.all(pools):
                tx.execute(insert(storage_pool_host).values(pool_id=pool["id"], host_id=host_id, attached=1))
        self.hosts.add(self.uuid(host, host_id), cpus=cpus, cpu_mhz=cpu_mhz, memory_bytes=memory)
        return Id(host_id)

    def pool(self, cluster_id: int, name: str = "", *, capacity: int = 1 << 40, **values: Any) -> Id[StoragePool]:
        """Shared primary storage of `capacity` bytes, attached to every host of the cluster."""
        name = name or self._name("pool")
        with self.db.write() as tx:
            place = tx.one(select(cluster).where(cluster.c.id == cluster_id))
            if place is None:
                raise LookupError(f"cluster {cluster_id}")
            row = {
                "name": name,
                "kind": str(PoolKind.SHARED_MOUNT_POINT),
                "zone_id": place["zone_id"],
                "pod_id": place["pod_id"],
                "cluster_id": cluster_id,
                "path": f"/primary/{name}",
                "state": str(PoolState.UP),
                "capacity_bytes": capacity,
                "available_bytes": capacity,
                "allocatable_bytes": capacity,
            }
            pool_id = self._add(tx, storage_pool, **{**row, **values})
            for each in tx.all(select(host.c.id).where(host.c.cluster_id == cluster_id, host.c.live == 1)):
                tx.execute(insert(storage_pool_host).values(pool_id=pool_id, host_id=each["id"], attached=1))
        self.hosts.world.pool(self.uuid(storage_pool, pool_id)).capacity_bytes = capacity
        return Id(pool_id)

    def secondary_storage(self, zone_id: int, **values: Any) -> Id[Host]:
        """The zone's simulated secondary storage, Up."""
        with self.db.write() as tx:
            name = self._name("storage")
            row = {
                "name": name,
                "kind": str(HostKind.SECONDARY_STORAGE),
                "state": str(HostState.UP),
                "zone_id": zone_id,
                "hypervisor": str(Hypervisor.NONE),
                "url": f"nfs://{name}/export",
                "address": "127.0.0.1",
                "heard_at": tx.now,
            }
            host_id = self._add(tx, host, **{**row, **values})
            tx.execute(insert(host_capacity).values(host_id=host_id))
            tx.execute(insert(host_stats).values(host_id=host_id, taken_at=tx.now))
        self.stores[host_id] = self.hosts.add_storage(self.uuid(host, host_id))
        return Id(host_id)

    def public_range(
        self, zone_id: int, first: str = "198.51.100.10", last: str = "198.51.100.19", *, vlan: str = "untagged"
    ) -> Id[VlanIpRange]:
        """Public addresses of a zone, all free; the gateway is the first address of their /24."""
        begin, end = ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)
        network = ipaddress.ip_network(f"{first}/24", strict=False)
        with self.db.write() as tx:
            range_id = self._add(
                tx,
                vlan_ip_range,
                zone_id=zone_id,
                vlan=vlan,
                gateway=str(network[1]),
                netmask="255.255.255.0",
                start_ip=first,
                end_ip=last,
            )
            for number in range(int(begin), int(end) + 1):
                address = str(ipaddress.IPv4Address(number))
                tx.insert(
                    insert(public_ip).values(address=address, address_number=number, zone_id=zone_id, range_id=range_id)
                )
        return Id(range_id)

    # ---- what guests are made of

    def offering(
        self, name: str = "", *, cpus: int = 1, cpu_mhz: int = 500, ram_mib: int = 512, **values: Any
    ) -> Id[ServiceOffering]:
        """A service offering."""
        name = name or self._name("offering")
        with self.db.write() as tx:
            row = {"name": name, "display_text": name, "cpus": cpus, "cpu_mhz": cpu_mhz, "ram_mib": ram_mib}
            return Id(self._add(tx, service_offering, **{**row, **values}))

    def disk_offering(self, name: str = "", *, size: int = GIB, **values: Any) -> Id[DiskOffering]:
        """A disk offering of `size` bytes."""
        name = name or self._name("disk")
        with self.db.write() as tx:
            return Id(
                self._add(tx, disk_offering, **{"name": name, "display_text": name, "size_bytes": size, **values})
            )

    def template(
        self,
        zone_id: int,
        name: str = "",
        *,
        ready: bool = True,
        size: int = 64 << 20,
        owner: Caller | None = None,
        **values: Any,
    ) -> Id[Template]:
        """A public template of `size` bytes for simulated hosts; when `ready`, its image lies in secondary storage."""
        name = name or self._name("template")
        caller = owner or root()
        with self.db.write() as tx:
            row = {
                "name": name,
                "display_text": name,
                "account_id": caller.account_id,
                "domain_id": caller.domain_id,
                "format": "QCOW2",
                "hypervisor": str(Hypervisor.SIMULATOR),
                "os_type_id": tx.scalar(select(os_type.c.id).order_by(os_type.c.id).limit(1)),
                "url": f"http://images.example/{name}.qcow2",
                "is_public": 1,
                "is_featured": 1,
            }
            template_id = self._add(tx, template, **{**row, **values})
            count.claim(tx, caller.account_id, Resource.TEMPLATE)
            tx.execute(insert(template_zone).values(template_id=template_id, zone_id=zone_id))
            if ready:
                self._image(tx, zone_id, template_id, name, size)
        return Id(template_id)

    def _image(self, tx: Tx, zone_id: int, template_id: int, name: str, size: int) -> None:
        found = select(host.c.id).where(
            host.c.zone_id == zone_id, host.c.kind == str(HostKind.SECONDARY_STORAGE), host.c.live == 1
        )
        storage_id = tx.scalar(found)
        if storage_id is None:
            raise LookupError(f"zone {zone_id} has no secondary storage")
        uuid = tx.scalar(select(template.c.uuid).where(template.c.id == template_id))
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        tx.execute(
            insert(template_copy).values(
                template_id=template_id,
                zone_id=zone_id,
                host_id=storage_id,
                state=str(CopyState.READY),
                percent=100,
                status="Download Complete",
                name=uuid,
                url=f"https://127.0.0.1/images/{uuid}",
                sha256=sha256,
                virtual_bytes=size,
                physical_bytes=size,
                created_at=tx.now,
            )
        )
        self.stores[storage_id].images[uuid] = Image(size, size, sha256=sha256)

    # ---- people

    def domain(self, name: str = "", *, parent_id: int = ROOT_DOMAIN) -> Id[Domain]:
        """A domain below another."""
        name = name or self._name("domain")
        with self.db.write() as tx:
            above = tx.one(select(domain).where(domain.c.id == parent_id))
            if above is None:
                raise LookupError(f"domain {parent_id}")
            domain_id = self._add(
                tx, domain, name=name, parent_id=parent_id, path=f"{above['path']}{name}/", level=above["level"] + 1
            )
            count.open_counts(tx, count.DOMAIN, domain_id, dict.fromkeys(Resource, UNLIMITED))
        return Id(domain_id)

    def account(
        self,
        name: str = "",
        *,
        domain_id: int = ROOT_DOMAIN,
        type: AccountType = AccountType.USER,
        maximum: int = UNLIMITED,
    ) -> Caller:
        """An account with one user, as the caller of services. `maximum` limits each of its resources."""
        name = name or self._name("account")
        with self.db.write() as tx:
            path = tx.scalar(select(domain.c.path).where(domain.c.id == domain_id))
            account_id = self._add(tx, account, name=name, type=int(type), domain_id=domain_id)
            user_id = self._add(tx, users, account_id=account_id, domain_id=domain_id, username=name)
            count.open_counts(tx, count.ACCOUNT, account_id, dict.fromkeys(Resource, maximum))
        return Caller(
            user_id=Id[User](user_id),
            account_id=Id[Account](account_id),
            account_name=name,
            domain_id=Id[Domain](domain_id),
            domain_path=str(path),
            type=type,
            role=ROLE_OF[type],
        )

    # ---- names

    def uuid(self, table: Table, row_id: int) -> str:
        """The public name of a row."""
        with self.db.read() as tx:
            row = rows.one(tx, table, id=row_id)
        assert row is not None  # noqa: S101 (whoever asks knows the row)
        return str(row["uuid"])

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-{self._made}"

    def _add(self, tx: Tx, table: Table, **values: Any) -> int:
        return tx.insert(insert(table).values(created_at=tx.now, **values))


def root() -> Caller:
    """The administrator."""
    return Caller(
        user_id=Id[User](ADMIN_USER),
        account_id=Id[Account](ADMIN_ACCOUNT),
        account_name="admin",
        domain_id=Id[Domain](ROOT_DOMAIN),
        domain_path="/",
        type=AccountType.ADMIN,
        role=ROLE_OF[AccountType.ADMIN],
    )
