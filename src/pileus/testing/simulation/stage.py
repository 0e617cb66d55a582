"""The cloud on which every run begins: made once per process and number of hosts, and copied for each run."""

import sqlite3
from dataclasses import dataclass
from functools import cache

from sqlalchemy import update

from pileus.server.config import keys
from pileus.server.config.values import change
from pileus.server.db.tables.account import users
from pileus.server.domain.account import ADMIN_USER, AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Domain, Id
from pileus.testing.builders import GIB, Cloud
from pileus.testing.clock import FakeClock
from pileus.testing.simulation.memory import memory_database
from pileus.testing.simulation.sealed import sealed
from pileus.testing.world import World


@dataclass(frozen=True)
class Resident:
    """Somebody who is there from the beginning, with API key and secret key."""

    name: str
    keys: tuple[str, str]
    account_id: int
    type: AccountType


@dataclass(frozen=True)
class Stage:
    """A cloud at rest: what its database holds, and its simulated hosts."""

    image: sqlite3.Connection
    world: World
    cloud: Cloud
    residents: tuple[Resident, ...]


@cache
def stage(hosts: int) -> Stage:
    """A zone with so many hosts, two users with limits in domains of their own, and a domain administrator."""
    clock = FakeClock()
    with sealed("stage"), memory_database(clock) as db:
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
        return Stage(db.image(), world, cloud, tuple(residents))


def _resident(world: World, name: str, home: Id[Domain], type: AccountType, *, maximum: int) -> Resident:
    caller: Caller = world.account(name, domain_id=home, type=type, maximum=maximum)
    keys = f"key of {name}", f"secret of {name}"
    with world.db.write() as tx:
        given = update(users).where(users.c.id == caller.user_id)
        tx.execute(given.values(api_key=keys[0], secret_key=keys[1]))
    return Resident(name, keys, caller.account_id, type)
