"""Whole consistent clouds of any size, by bulk insert: what benches of full clouds stand on. Rows follow from the seed.

Every sum holds: counts of accounts and domains, capacity of hosts and pools, one life per running guest, one address
per card. Running guests have statistics. Nothing is on any host: no agent answers for what is made here.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, select, update

from pileus.server.db.seed import VIRTUAL_NETWORK_OFFERING
from pileus.server.db.tables.account import account, domain, resource_count, users
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host, host_capacity, host_stats, storage_pool, storage_pool_host
from pileus.server.db.tables.network import network, network_config, nic
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.place import cluster, pod, zone_vnet
from pileus.server.db.tables.template import template
from pileus.server.db.tables.vm import vm, vm_incarnation, vm_stats
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.account import ROOT_DOMAIN, UNLIMITED, AccountType, Resource
from pileus.server.domain.host import HostState, Hypervisor
from pileus.server.domain.mac import mac_of
from pileus.server.domain.network import GuestIpType, NetworkState
from pileus.server.domain.storage import PoolState, VolumeKind, VolumeState
from pileus.server.domain.vm import LifeState, VmKind, VmState
from pileus.testing.builders import GIB, Cloud
from pileus.testing.bulk import analyze, load, next_id, without_indexes, written_at_once
from pileus.wire.messages import HostKind
from pileus.wire.places import Isolation, PoolKind, Traffic

HOSTS_IN_CLUSTER = 50
CLUSTERS_IN_POD = 20
HOST_CPUS, HOST_MHZ, HOST_MIB = 64, 2500, 256 * 1024
MANY = 10_000
"""From so many guests on it pays to make the indexes afterwards."""
FIRST_VNET = 1_000_000
_DAY_MS = 86_400_000
_POOL_BYTES = 1 << 55


@dataclass(frozen=True)
class Shape:
    """How much of everything. `volumes` are root disks of the first guests, then data disks; `running` is a share."""

    domains: int = 0
    accounts: int = 1
    networks: int = 1
    hosts: int = 1
    vms: int = 0
    removed_vms: int = 0
    volumes: int = 0
    events: int = 0
    running: float = 0.8


def fill(database: Database, cloud: Cloud, shape: Shape, *, seed: int = 1) -> None:
    """Fill a database that holds a small cloud (`World.cloud`): guests are of its zone, offering and template."""
    many = shape.vms + shape.removed_vms >= MANY
    with written_at_once(database) if many else nullcontext(), database.write() as tx:
        filling = _Filling(tx, cloud, shape, random.Random(seed))  # noqa: S311 (rows, not secrets)
        with without_indexes(tx, (vm, nic, volume, vm_incarnation, vm_stats)) if many else nullcontext():
            filling.run()
        analyze(tx)


class _Filling:
    """One filling: rows go in in the order in which they point at each other."""

    def __init__(self, tx: Tx, cloud: Cloud, shape: Shape, chance: random.Random) -> None:
        self.tx = tx
        self.cloud = cloud
        self.shape = shape
        self.chance = chance
        self.mark = f"{chance.getrandbits(32):08x}"
        self.first = {
            table: next_id(tx, table)
            for table in (domain, account, users, network, pod, cluster, storage_pool, host, vm, nic, volume, event)
        }
        self._prefixes: dict[str, str] = {}
        self.used: Counter[tuple[str, int, Resource]] = Counter()
        """What accounts have, by owner and resource; domains follow from it."""
        self.claimed: Counter[int] = Counter()
        """Lives per host."""
        self.taken: Counter[int] = Counter()
        """Bytes per pool."""
        self.offering = _row(tx, service_offering, cloud.offering)
        self.template = _row(tx, template, cloud.template)

    def run(self) -> None:
        self._domains()
        self._accounts()
        self._places()
        self._networks()
        self._guests()
        self._volumes()
        self._hosts_claimed()
        self._counts()
        self._events()

    # ---- whose and where, by number

    def domain_of(self, n: int) -> int:
        """The domain of the n-th account."""
        return self.first[domain] + n % self.shape.domains if self.shape.domains else ROOT_DOMAIN

    def owner(self, n: int) -> tuple[int, int]:
        """Account and domain of the n-th network, and of every guest on it."""
        number = n % self.shape.accounts
        return self.first[account] + number, self.domain_of(number)

    def network_of(self, n: int) -> int:
        """The number of the n-th guest's network."""
        return n % self.shape.networks

    def pool_of(self, n: int) -> int:
        """The pool of the n-th guest's disks: the one of its host's cluster."""
        return self.first[storage_pool] + n % self.shape.hosts // HOSTS_IN_CLUSTER

    def uuid(self, table: Table, n: int) -> str:
        prefix = self._prefixes.get(table.name)
        if prefix is None:
            first, last = ord(table.name[0]), ord(table.name[-1])
            prefix = self._prefixes[table.name] = f"{self.mark}-{len(table.name):04x}-4{first:03x}-a{last:03x}-"
        return f"{prefix}{n:012x}"

    def before(self) -> int:
        """Some instant of the last thousand days."""
        return self.tx.now - self.chance.randrange(1000 * _DAY_MS)

    # ---- people

    def _domains(self) -> None:
        first = self.first[domain]
        columns = ("id", "uuid", "name", "parent_id", "path", "level", "created_at")
        load(
            self.tx,
            domain,
            columns,
            (
                (
                    *(first + n, self.uuid(domain, n), f"org-{first + n}", ROOT_DOMAIN, f"/org-{first + n}/", 1),
                    *(self.before(),),
                )
                for n in range(self.shape.domains)
            ),
        )

    def _accounts(self) -> None:
        first, people = self.first[account], self.first[users]
        many = range(self.shape.accounts)
        columns = ("id", "uuid", "name", "type", "domain_id", "created_at")
        load(
            self.tx,
            account,
            columns,
            (
                (
                    *(
                        first + n,
                        self.uuid(account, n),
                        f"tenant-{first + n}",
                        int(AccountType.USER),
                        self.domain_of(n),
                    ),
                    *(self.before(),),
                )
                for n in many
            ),
        )
        of_users = ("id", "uuid", "account_id", "domain_id", "username", "firstname", "lastname", "email", "created_at")
        load(
            self.tx,
            users,
            of_users,
            (
                (
                    *(people + n, self.uuid(users, n), first + n, self.domain_of(n), f"user-{first + n}"),
                    *("Some", "Body", f"user-{n}@example.org", self.before()),
                )
                for n in many
            ),
        )

    # ---- places

    def _places(self) -> None:
        hosts, clusters = self.shape.hosts, -(-self.shape.hosts // HOSTS_IN_CLUSTER)
        in_cluster = [self.first[cluster] + n // HOSTS_IN_CLUSTER for n in range(hosts)]
        zone, pods = self.cloud.zone, self.first[pod]
        in_pod = [pods + n // CLUSTERS_IN_POD for n in range(clusters)]
        now, kind = self.tx.now, str(Hypervisor.SIMULATOR)
        load(
            self.tx,
            pod,
            ("id", "uuid", "zone_id", "name", "gateway", "netmask", "start_ip", "end_ip", "created_at"),
            (
                (
                    *(pods + n, self.uuid(pod, n), zone, f"row-{pods + n}", "172.16.0.1", "255.255.0.0"),
                    *("172.16.0.2", "172.16.0.250", now),
                )
                for n in range(-(-clusters // CLUSTERS_IN_POD))
            ),
        )
        load(
            self.tx,
            cluster,
            ("id", "uuid", "zone_id", "pod_id", "name", "hypervisor", "created_at"),
            (
                (self.first[cluster] + n, self.uuid(cluster, n), zone, in_pod[n], f"rack-{n}", kind, now)
                for n in range(clusters)
            ),
        )
        load(
            self.tx,
            storage_pool,
            (
                *("id", "uuid", "name", "kind", "zone_id", "pod_id", "cluster_id", "path", "state"),
                *("capacity_bytes", "available_bytes", "allocatable_bytes", "created_at"),
            ),
            (
                (
                    *(self.first[storage_pool] + n, self.uuid(storage_pool, n), f"store-{n}"),
                    *(
                        str(PoolKind.SHARED_MOUNT_POINT),
                        zone,
                        in_pod[n],
                        self.first[cluster] + n,
                        f"/primary/store-{n}",
                    ),
                    *(str(PoolState.UP), _POOL_BYTES, _POOL_BYTES, _POOL_BYTES, now),
                )
                for n in range(clusters)
            ),
        )
        load(
            self.tx,
            host,
            (
                *(
                    "id",
                    "uuid",
                    "name",
                    "kind",
                    "state",
                    "zone_id",
                    "pod_id",
                    "cluster_id",
                    "hypervisor",
                    "url",
                    "address",
                ),
                *("version", "capabilities", "cpus", "cpu_mhz", "memory_bytes", "heard_at", "created_at"),
            ),
            (
                (
                    *(self.first[host] + n, self.uuid(host, n), f"node-{self.first[host] + n}", str(HostKind.ROUTING)),
                    *(str(HostState.UP), zone, in_pod[n // HOSTS_IN_CLUSTER], in_cluster[n], kind),
                    *(f"http://node-{n}", f"172.16.{n >> 8 & 255}.{n & 255}", "1", "hvm"),
                    *(HOST_CPUS, HOST_MHZ, HOST_MIB << 20, now, self.before()),
                )
                for n in range(hosts)
            ),
        )
        load(
            self.tx,
            storage_pool_host,
            ("pool_id", "host_id", "attached"),
            ((self.pool_of(n), self.first[host] + n, 1) for n in range(hosts)),
        )
        load(
            self.tx,
            host_stats,
            ("host_id", "cpu_used", "memory_used_bytes", "load_average", "received_bytes", "sent_bytes", "taken_at"),
            (
                (self.first[host] + n, self.chance.random(), GIB, 1.5, self.chance.getrandbits(40), GIB, now)
                for n in range(hosts)
            ),
        )

    def _networks(self) -> None:
        first, many = self.first[network], range(self.shape.networks)
        offering = self.tx.scalar(
            select(network_offering.c.id).where(network_offering.c.name == VIRTUAL_NETWORK_OFFERING)
        )
        load(
            self.tx,
            network,
            (
                *("id", "uuid", "name", "display_text", "zone_id", "offering_id", "account_id", "domain_id", "state"),
                *("traffic_type", "guest_ip_type", "isolation", "vnet", "cidr", "gateway", "network_domain"),
                *("is_default", "created_at"),
            ),
            (
                (
                    *(first + n, self.uuid(network, n), f"network-{n}", f"network {n}", self.cloud.zone, offering),
                    *(*self.owner(n), str(NetworkState.IMPLEMENTED), str(Traffic.GUEST), str(GuestIpType.VIRTUAL)),
                    *(str(Isolation.VXLAN), FIRST_VNET + n, "10.1.0.0/16", "10.1.0.1", f"n{n}.internal", 1),
                    *(self.before(),),
                )
                for n in many
            ),
        )
        load(
            self.tx,
            network_config,
            ("network_id", "desired", "applied"),
            ((first + n, 1, 1) for n in many),
        )
        load(
            self.tx,
            zone_vnet,
            ("zone_id", "vnet", "network_id"),
            ((self.cloud.zone, FIRST_VNET + n, first + n) for n in many),
        )

    # ---- guests

    def _guests(self) -> None:
        """Removed guests lie among live ones, as evenly as they can: the n-th row of all is live or it is not."""
        live, gone = self.shape.vms, self.shape.removed_vms
        running: list[tuple[int, int]] = []
        load(
            self.tx,
            vm,
            (
                *("id", "uuid", "kind", "instance_name", "name", "display_name", "name_key", "account_id", "domain_id"),
                *("zone_id", "state", "service_offering_id", "template_id", "os_type_id", "hypervisor", "host_id"),
                *("pod_id", "vnc_password", "epoch", "live", "created_at", "removed_at"),
            ),
            self._guest_rows(live + gone, running),
        )
        load(
            self.tx,
            nic,
            (
                *("id", "uuid", "vm_id", "network_id", "mac", "ip", "netmask", "gateway", "device_id", "generation"),
                *("live", "created_at", "removed_at"),
            ),
            self._cards(live + gone),
        )
        mhz, mib = int(self.offering["cpus"] * self.offering["cpu_mhz"]), int(self.offering["ram_mib"])
        load(
            self.tx,
            vm_incarnation,
            ("vm_id", "host_id", "epoch", "state", "cpu_mhz", "ram_mib", "created_at"),
            ((vm_id, host_id, 1, str(LifeState.LIVE), mhz, mib, self.tx.now) for vm_id, host_id in running),
        )
        load(
            self.tx,
            vm_stats,
            ("vm_id", "cpu_used", "cpu_seconds", "received_bytes", "sent_bytes", "taken_at"),
            (
                (vm_id, round(self.chance.random() * 100, 2), 1.0, self.chance.getrandbits(36), GIB, self.tx.now)
                for vm_id, _ in running
            ),
        )

    def _is_live(self, n: int) -> bool:
        total = self.shape.vms + self.shape.removed_vms
        return (n + 1) * self.shape.vms // total > n * self.shape.vms // total

    def _guest_rows(self, total: int, running: list[tuple[int, int]]) -> Iterator[tuple[Any, ...]]:
        first, zone = self.first[vm], self.cloud.zone
        made_of = (self.cloud.offering, self.cloud.template, self.template["os_type_id"], self.template["hypervisor"])
        pods = [
            (self.first[pod] + n // HOSTS_IN_CLUSTER // CLUSTERS_IN_POD, self.first[host] + n)
            for n in range(self.shape.hosts)
        ]
        for n in range(total):
            vm_id = first + n
            owner = self.owner(self.network_of(n))
            name = f"vm-{vm_id}"
            live = self._is_live(n)
            runs = live and self.chance.random() < self.shape.running
            pod_id, host_id = pods[n % self.shape.hosts]
            if runs:
                running.append((vm_id, host_id))
                self.claimed[host_id] += 1
            if live:
                self.used["account", owner[0], Resource.INSTANCE] += 1
            state = VmState.RUNNING if runs else VmState.STOPPED if live else VmState.EXPUNGING
            created = self.before()
            yield (
                (
                    *(vm_id, self.uuid(vm, n), str(VmKind.USER), f"i-{owner[0]}-{vm_id}-VM", name, name),
                    *(f"n{self.network_of(n)}.internal/{name}" if live else None, *owner),
                    *(zone, str(state), *made_of),
                    *(host_id if runs else None, pod_id if runs else None, "secret", int(runs)),
                    *((1, created, None) if live else (None, created, self.tx.now)),
                )
            )

    def _cards(self, total: int) -> Iterator[tuple[Any, ...]]:
        first, networks = self.first[nic], self.first[network]
        for n in range(total):
            live = self._is_live(n)
            number = n // self.shape.networks + 2
            ip = f"10.1.{number >> 8}.{number & 255}" if live else None
            yield (
                (
                    *(first + n, self.uuid(nic, n), self.first[vm] + n, networks + self.network_of(n)),
                    *(mac_of(first + n) if live else None, ip, "255.255.0.0", "10.1.0.1", 0, 1),
                    *((1, self.tx.now, None) if live else (None, self.tx.now, self.tx.now)),
                )
            )

    def _volumes(self) -> None:
        live = [n for n in range(self.shape.vms + self.shape.removed_vms) if self._is_live(n)]
        load(
            self.tx,
            volume,
            (
                *("id", "uuid", "name", "kind", "state", "account_id", "domain_id", "zone_id", "vm_id", "device_id"),
                *("pool_id", "path", "size_bytes", "template_id", "service_offering_id", "attached_at", "created_at"),
            ),
            self._volume_rows(live),
        )
        for pool_id, size in self.taken.items():
            self.tx.execute(update(storage_pool).where(storage_pool.c.id == pool_id).values(allocated_bytes=size))

    def _volume_rows(self, guests: list[int]) -> Iterator[tuple[Any, ...]]:
        first, size = self.first[volume], 20 * GIB
        for n in range(self.shape.volumes):
            device, place = divmod(n, len(guests))
            guest = guests[place]
            account_id, domain_id = self.owner(self.network_of(guest))
            self.used["account", account_id, Resource.VOLUME] += 1
            pool_id = self.pool_of(guest)
            self.taken[pool_id] += size
            vm_id, uuid = self.first[vm] + guest, self.uuid(volume, n)
            root = device == 0
            created = self.before()
            yield (
                (
                    *(first + n, uuid, f"{'ROOT' if root else 'DATA'}-{vm_id}"),
                    *(str(VolumeKind.ROOT if root else VolumeKind.DATADISK), str(VolumeState.READY)),
                    *(account_id, domain_id, self.cloud.zone, vm_id, device, pool_id, uuid, size),
                    *((self.cloud.template, self.cloud.offering) if root else (None, None)),
                    *(created, created),
                )
            )

    # ---- sums

    def _hosts_claimed(self) -> None:
        mhz, mib = int(self.offering["cpus"] * self.offering["cpu_mhz"]), int(self.offering["ram_mib"])
        load(
            self.tx,
            host_capacity,
            ("host_id", "cpu_total_mhz", "ram_total_mib", "cpu_used_mhz", "ram_used_mib"),
            (
                (host_id, HOST_CPUS * HOST_MHZ, HOST_MIB, self.claimed[host_id] * mhz, self.claimed[host_id] * mib)
                for host_id in range(self.first[host], self.first[host] + self.shape.hosts)
            ),
        )

    def _counts(self) -> None:
        in_domain: Counter[tuple[int, Resource]] = Counter()
        for (_, account_id, resource), n in self.used.items():
            in_domain[self.domain_of(account_id - self.first[account]), resource] += n
        accounts = range(self.first[account], self.first[account] + self.shape.accounts)
        domains = range(self.first[domain], self.first[domain] + self.shape.domains)
        columns = ("owner", "owner_id", "resource", "used", "maximum")
        self._load_counts(columns, "account", accounts, lambda owner, kind: self.used["account", owner, kind])
        self._load_counts(columns, "domain", domains, lambda owner, kind: in_domain[owner, kind])
        for kind in Resource:
            more = sum(n for (_, resource), n in in_domain.items() if resource == kind)
            root = (resource_count.c.owner == "domain", resource_count.c.owner_id == ROOT_DOMAIN)
            counted = update(resource_count).where(*root, resource_count.c.resource == int(kind))
            self.tx.execute(counted.values(used=resource_count.c.used + more))

    def _load_counts(
        self, columns: tuple[str, ...], owner: str, ids: Iterable[int], used: Callable[[int, Resource], int]
    ) -> None:
        load(
            self.tx,
            resource_count,
            columns,
            ((owner, owner_id, int(kind), used(owner_id, kind), UNLIMITED) for owner_id in ids for kind in Resource),
        )

    def _events(self) -> None:
        first = self.first[event]
        load(
            self.tx,
            event,
            ("id", "uuid", "type", "level", "state", "description", "account_id", "domain_id", "user_id", "created_at"),
            (
                (
                    *(first + n, self.uuid(event, n), "VM.CREATE", "INFO", "Completed", f"created vm-{n}"),
                    *(*self.owner(n), self.first[users] + n % self.shape.accounts, self.before()),
                )
                for n in range(self.shape.events)
            ),
        )


def _row(tx: Tx, table: Table, row_id: int) -> Any:
    return tx.one(select(table).where(table.c.id == row_id))
