"""Two tenants beside each other, each with one thing of every kind: what a test of isolation needs.

Everything the second one owns carries `CANARY` in its texts, so a leak shows in any answer. A kind that nobody knows
how to make properly is made from its table alone, so a new kind is covered on the day it is added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Integer, SmallInteger, Table, insert, select, update

from pileus.server.auth.kinds import KINDS
from pileus.server.db.tables import metadata
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network, nic, port_forwarding_rule, public_ip
from pileus.server.db.tables.offering import disk_offering, service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template, template_copy, template_zone
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain import ids
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Entity
from pileus.server.domain.vm import VmKind
from pileus.server.services.vm_deploy import Order, deploy
from pileus.testing.builders import Cloud
from pileus.testing.world import World

CANARY = "canary7"
"""In every text of the second tenant: it must stand in no answer to anybody else."""

_OFFERED: tuple[type[Entity], ...] = (ids.Domain, ids.Zone, ids.ServiceOffering, ids.DiskOffering)
"""Kinds that belong to a domain, not to an account."""

Things = Mapping[type[Entity], str]
"""UUID of one thing of every kind."""


@dataclass(frozen=True)
class Tenant:
    """A domain with an account of its own, and everything that account owns. `admin` rules the domain."""

    user: Caller
    admin: Caller
    resource_admin: Caller
    things: Things


@dataclass(frozen=True)
class Tenancy:
    """`ours` asks, `theirs` is asked for; `neighbour` is another account in their very domain."""

    world: World
    cloud: Cloud
    ours: Tenant
    theirs: Tenant
    neighbour: Caller
    beside: Things
    """What the neighbour owns, and what their domain offers."""
    zone: str
    """A zone that is everybody's, and can run guests."""
    secrets: frozenset[str]
    """UUIDs of every row that belongs to their account: none may be told to anybody who may not see it."""

    @classmethod
    def settle(cls, world: World) -> "Tenancy":
        """Build both tenants in a world, through the same services as anybody."""
        cloud = world.cloud()
        ours = _tenant(world, cloud, "ours", "plain")
        theirs = _tenant(world, cloud, "theirs", CANARY)
        neighbour = world.account("neighbour", domain_id=theirs.user.domain_id)
        offered: Things = {kind: theirs.things[kind] for kind in _OFFERED}
        beside = _belongings(world, cloud, neighbour, "beside", offered)
        with world.db.read() as tx:
            public = _uuid(tx, zone, cloud.zone)
            return cls(world, cloud, ours, theirs, neighbour, beside, public, _uuids(tx, theirs))


def _tenant(world: World, cloud: Cloud, name: str, mark: str) -> Tenant:
    domain_id = world.domain(name)
    user = world.account(f"{name}-user", domain_id=domain_id)
    admin = world.account(f"{name}-admin", domain_id=domain_id, type=AccountType.DOMAIN_ADMIN)
    resource_admin = world.account(f"{name}-resources", domain_id=domain_id, type=AccountType.RESOURCE_ADMIN)
    with world.db.write() as tx:
        offered = {"domain_id": domain_id}
        given: dict[type[Entity], tuple[Table, int]] = {
            ids.Domain: (domain, domain_id),
            ids.Zone: (zone, _copy(tx, zone, cloud.zone, name=f"zone-{mark}", **offered)),
            ids.ServiceOffering: (
                service_offering,
                _copy(tx, service_offering, cloud.offering, name=f"service-{mark}", **offered),
            ),
            ids.DiskOffering: (disk_offering, _row(tx, disk_offering, user, mark, size_bytes=1 << 30, **offered)),
        }
        things = {kind: _uuid(tx, table, row_id) for kind, (table, row_id) in given.items()}
    return Tenant(user, admin, resource_admin, _belongings(world, cloud, user, mark, things))


def _belongings(world: World, cloud: Cloud, user: Caller, mark: str, given: Things) -> Things:
    """One thing of every kind: those `given` to the account's domain, all others its own."""
    made = {**given, **_deployed(world, cloud, user, mark)}
    with world.db.write() as tx:
        marked = {"firstname": mark, "lastname": mark, "email": f"{mark}@example.org"}
        tx.execute(update(users).where(users.c.id == user.user_id).values(marked))
        private = {"account_id": user.account_id, "domain_id": user.domain_id, "is_public": 0, "is_featured": 0}
        named = {"name": f"template-{mark}", "display_text": mark}
        made |= {
            ids.Account: _uuid(tx, account, user.account_id),
            ids.User: _uuid(tx, users, user.user_id),
            ids.Template: _uuid(tx, template, _template(tx, cloud.template, **private, **named)),
        }
        for kind, entry in KINDS.items():
            if kind not in made:
                made[kind] = _any(tx, kind, entry.table, user, mark)
    return made


def _template(tx: Tx, template_id: int, **changes: Any) -> int:
    """A copy of a template, with its image in the same zones."""
    copied = _copy(tx, template, template_id, **changes)
    for table in (template_zone, template_copy):
        for row in tx.all(select(table).where(table.c.template_id == template_id)):
            kept = {name: value for name, value in row.items() if name != "id"}
            tx.execute(insert(table).values({**kept, "template_id": copied}))
    return copied


def _deployed(world: World, cloud: Cloud, user: Caller, mark: str) -> dict[type[Entity], str]:
    """A guest that runs, with all that it needs, and a rule that leads to it."""
    with world.db.write() as tx:
        job_uuid, vm_uuid = deploy(
            tx,
            user,
            Order(
                zone_id=cloud.zone,
                service_offering_id=cloud.offering,
                template_id=cloud.template,
                name=f"vm-{mark}",
                display_name=f"guest {mark}",
            ),
        )
    world.result(job_uuid)
    own = {"account_id": user.account_id, "domain_id": user.domain_id}
    with world.db.write() as tx:
        vm_id = tx.scalar(select(vm.c.id).where(vm.c.uuid == vm_uuid))
        card = tx.one(select(nic).where(nic.c.vm_id == vm_id, nic.c.live == 1))
        assert card is not None  # noqa: S101 (a guest that runs has one)
        network_id = card["network_id"]
        tx.execute(update(network).where(network.c.id == network_id).values(name=f"net-{mark}", display_text=mark))
        address_id = tx.scalar(select(public_ip.c.id).where(public_ip.c.network_id == network_id))
        rule = _row(
            tx,
            port_forwarding_rule,
            user,
            mark,
            public_ip_id=address_id,
            network_id=network_id,
            vm_id=vm_id,
            protocol="tcp",
            public_start=22,
            public_end=22,
            private_start=22,
            private_end=22,
            state="Active",
        )
        router = select(vm.c.uuid).where(vm.c.kind == str(VmKind.ROUTER), vm.c.account_id == user.account_id)
        disk = select(volume.c.uuid).where(volume.c.account_id == user.account_id)
        told = _row(tx, event, user, mark, type="VM.CREATE", level="INFO", state="Completed", **own)
        tx.execute(update(event).where(event.c.id == told).values(description=f"creating {mark}"))
        return {
            ids.Vm: vm_uuid,
            ids.Nic: card["uuid"],
            ids.Network: _uuid(tx, network, network_id),
            ids.PublicIp: _uuid(tx, public_ip, int(address_id)),
            ids.PortForwardingRule: _uuid(tx, port_forwarding_rule, rule),
            ids.Router: str(tx.scalar(router)),
            ids.Volume: str(tx.scalar(disk)),
            ids.Job: job_uuid,
            ids.Event: _uuid(tx, event, told),
        }


def _any(tx: Tx, kind: type[Entity], table: Table, user: Caller, mark: str) -> str:
    """One of the things that are nobody's in particular; a new one, from its table alone, if there is none."""
    if not {"account_id", "domain_id"} & set(table.c.keys()):
        found = tx.scalar(select(table.c.uuid).where(*KINDS[kind].conditions).order_by(table.c.id).limit(1))
        if found is not None:
            return str(found)
    return _uuid(tx, table, _row(tx, table, user, mark))


_ADDRESSES = {
    "gateway": "192.0.2.1",
    "netmask": "255.255.255.0",
    "start_ip": "192.0.2.10",
    "end_ip": "192.0.2.19",
    "cidrs": "192.0.2.0/24",
    "local_ip": "10.1.2.1",
    "first_ip": "10.1.2.2",
    "last_ip": "10.1.2.8",
}
"""What columns of addresses hold: who compares them reads them as such."""


def _row(tx: Tx, table: Table, user: Caller, mark: str, **known: Any) -> int:
    """A row with what is known of it; every other column that must hold something gets something of its type."""
    values = dict(known)
    for column in table.c:
        if column.name in values or column.primary_key:
            continue
        if column.name == "account_id":
            values["account_id"] = user.account_id
        elif column.name == "domain_id":
            values["domain_id"] = user.domain_id
        elif column.nullable or column.default is not None:
            continue
        elif column.foreign_keys:
            target = next(iter(column.foreign_keys)).column.table
            found = tx.scalar(select(target.c.id).order_by(target.c.id.desc()).limit(1))
            values[column.name] = found if found is not None else _row(tx, target, user, mark)
        elif isinstance(column.type, Integer | BigInteger | SmallInteger):
            values[column.name] = tx.now if column.name.endswith("_at") else 1
        else:
            values[column.name] = _ADDRESSES.get(column.name, mark)
    return tx.insert(insert(table).values(values))


def _copy(tx: Tx, table: Table, row_id: int, **changes: Any) -> int:
    row = tx.one(select(table).where(table.c.id == row_id))
    if row is None:
        raise LookupError(f"{table.name} {row_id}")
    kept = {name: value for name, value in row.items() if name not in ("id", "uuid", "token")}
    if "token" in table.c:
        kept["token"] = str(changes.get("name", ""))
    return tx.insert(insert(table).values({**kept, **changes}))


def _uuid(tx: Tx, table: Table, row_id: int) -> str:
    return str(tx.scalar(select(table.c.uuid).where(table.c.id == row_id)))


def _uuids(tx: Tx, tenant: Tenant) -> frozenset[str]:
    """Public names of all that is the tenant's, in whatever table."""
    found: set[str] = {tenant.things[ids.Account]}
    for table in metadata.tables.values():
        if {"uuid", "account_id"} <= set(table.c.keys()) and table is not host:
            found |= {
                str(row["uuid"])
                for row in tx.all(select(table.c.uuid).where(table.c.account_id == tenant.user.account_id))
            }
    return frozenset(found)
