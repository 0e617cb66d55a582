"""The cloud on which every run begins: made once per process and number of hosts, and copied for each run."""

import sqlite3
from dataclasses import dataclass
from functools import cache

from sqlalchemy import update

from pileus.server.config import keys
from pileus.server.config.values import change
from pileus.server.db import rows
from pileus.server.db.tables.account import users
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template
from pileus.server.domain.account import ADMIN_USER, AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Domain, Id
from pileus.server.events import job_ended, job_failed
from pileus.testing.builders import GIB, Cloud
from pileus.testing.client import Client
from pileus.testing.clock import FakeClock
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.memory import memory_database
from pileus.testing.simulation.sealed import overheard, sealed
from pileus.testing.world import World


@dataclass(frozen=True)
class Resident:
    """Somebody who is there from the beginning, with API key and secret key."""

    name: str
    keys: tuple[str, str]
    account_id: int
    type: AccountType
    busy: int
    """How often they call, in relation to others: most where most is there."""


@dataclass(frozen=True)
class Stage:
    """A cloud at rest: what its database holds, and its simulated hosts."""

    image: sqlite3.Connection
    world: World
    cloud: Cloud
    residents: tuple[Resident, ...]
    now: int
    """When it was made, in ms since the epoch: runs begin then."""


@cache
def stage(hosts: int, *, inhabited: bool = False) -> Stage:
    """A zone with so many hosts, two users with limits in domains of their own, and a domain administrator.

    Inhabited, both users have guests on networks that run: much can only be asked where much is there already.
    """
    clock = FakeClock()
    chronicle = Chronicle(clock)
    with memory_database(clock) as db, sealed("stage"), overheard(chronicle):
        world = World(db, clock)
        cloud = world.cloud(hosts=hosts, cpus=4, memory=4 * GIB)
        world.offering(ram_mib=1024)
        world.template(cloud.zone, password_enabled=1)
        world.disk_offering(size=GIB)
        with world.db.write() as tx:
            # A clean-up that failed is tried again within the peace at the end, not a day later.
            change(tx, keys.account_cleanup_interval, "600", user_id=ADMIN_USER)
        residents = []
        for name, maximum in (("anna", 6), ("bert", 3)):
            home = world.domain(f"home-of-{name}")
            residents.append(_resident(world, name, home, AccountType.USER, maximum=maximum))
            if name == "anna":
                residents.append(_resident(world, "dora", home, AccountType.DOMAIN_ADMIN, maximum=3))
        if inhabited:
            _inhabit(world, cloud, residents)
        assert not chronicle.bugs, chronicle.bugs  # noqa: S101 (nothing went wrong on purpose yet)
        return Stage(db.image(), world, cloud, tuple(residents), clock.now())


def _inhabit(world: World, cloud: Cloud, residents: list[Resident]) -> None:
    """Guests, running, stopped and destroyed; addresses for rules, for a balancer and for a single guest."""
    world.hooks.on_end.append(job_ended)
    world.hooks.on_failed.append(job_failed)
    anna, bert = (Client(world.db, keys=each.keys) for each in residents if each.name in ("anna", "bert"))
    zone_id = world.uuid(zone, cloud.zone)

    def made(client: Client, command: str, **parameters: object) -> str:
        answer = client.call(command, **parameters)
        world.settle()
        return str(answer["id"] if "id" in answer else next(iter(answer.values()))["id"])

    def guest(client: Client, name: str, **more: object) -> str:
        with world.db.read() as tx:
            image, offering = rows.every(tx, template, live=1)[-1], rows.every(tx, service_offering, is_system=0)[-1]
        what = {"serviceofferingid": offering["uuid"], "templateid": image["uuid"]}
        return made(client, "deployVirtualMachine", zoneid=zone_id, name=name, **what, **more)

    first, second, third = (guest(anna, name) for name in ("first", "second", "third"))
    guest(bert, "home", startvm=False)
    anna.call("destroyVirtualMachine", id=third)
    world.settle()
    for_rules, for_balancer, for_one = (made(anna, "associateIpAddress", zoneid=zone_id) for _ in range(3))
    ports = {"protocol": "tcp", "publicport": 22, "privateport": 22}
    made(anna, "createPortForwardingRule", ipaddressid=for_rules, virtualmachineid=first, **ports)
    balanced = {"algorithm": "roundrobin", "publicport": 80, "privateport": 80}
    balancer = made(anna, "createLoadBalancerRule", publicipid=for_balancer, name="balancer", **balanced)
    anna.call("assignToLoadBalancerRule", id=balancer, virtualmachineids=[first, second])
    world.settle()
    anna.call("enableStaticNat", ipaddressid=for_one, virtualmachineid=second)
    world.settle()
    made(anna, "createIpForwardingRule", ipaddressid=for_one, protocol="tcp", startport=443)


def _resident(world: World, name: str, home: Id[Domain], type: AccountType, *, maximum: int) -> Resident:
    caller: Caller = world.account(name, domain_id=home, type=type, maximum=maximum)
    keys = f"key of {name}", f"secret of {name}"
    with world.db.write() as tx:
        given = update(users).where(users.c.id == caller.user_id)
        tx.execute(given.values(api_key=keys[0], secret_key=keys[1]))
    return Resident(name, keys, caller.account_id, type, busy=maximum)
