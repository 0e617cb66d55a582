"""What somebody may want of the cloud at a moment: parameters for every command, of what is there.

Any command is made from its declaration: an id names something that lives and that the caller may own, the rest is
plausible. `WISHES` says what a command needs beyond that. `EXCLUDED` names what is never made, and why.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Table, bindparam, select

from pileus.server.api.command import CommandSpec
from pileus.server.api.parse import Field, table
from pileus.server.auth.kinds import KINDS, Kind
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain import ids
from pileus.server.domain.account import ADMIN_ACCOUNT, Role
from pileus.testing import plausible
from pileus.testing.client import Client
from pileus.testing.simulation.lines import LinedWorld
from pileus.testing.simulation.stage import Stage

Parameters = dict[str, Any]

EXCLUDED: Mapping[str, str] = {
    "login": "sessions are kept by the HTTP layer, which a run does not have",
    "logout": "sessions are kept by the HTTP layer, which a run does not have",
    "createRemoteAccessVpn": "the routers of a run live in namespaces, which cannot let VPN clients in",
    "deleteRemoteAccessVpn": "the routers of a run live in namespaces, which cannot let VPN clients in",
}
"""Commands that change something and that no run makes, with the reason."""

CORE: Mapping[str, int] = {
    "deployVirtualMachine": 8,
    "startVirtualMachine": 6,
    "stopVirtualMachine": 4,
    "rebootVirtualMachine": 2,
    "destroyVirtualMachine": 3,
    "recoverVirtualMachine": 3,
    "resetPasswordForVirtualMachine": 2,
    "changeServiceForVirtualMachine": 2,
    "updateVirtualMachine": 1,
    "createNetwork": 2,
    "deleteNetwork": 2,
    "restartNetwork": 2,
    "associateIpAddress": 2,
    "disassociateIpAddress": 3,
    "createPortForwardingRule": 5,
    "deletePortForwardingRule": 3,
    "createFirewallRule": 1,
    "deleteFirewallRule": 1,
    "enableStaticNat": 3,
    "disableStaticNat": 1,
    "createIpForwardingRule": 2,
    "createLoadBalancerRule": 2,
    "assignToLoadBalancerRule": 3,
    "removeFromLoadBalancerRule": 1,
    "deleteLoadBalancerRule": 1,
    "registerTemplate": 1,
    "deleteTemplate": 2,
    "updateResourceLimit": 1,
    "updateConfiguration": 1,
    "disableAccount": 1,
    "enableAccount": 1,
    "lockAccount": 1,
    "deleteAccount": 1,
    "createAccount": 1,
    "addHost": 1,
    "deleteHost": 1,
    "updateHost": 1,
    "reconnectHost": 1,
    "startRouter": 3,
    "stopRouter": 4,
    "rebootRouter": 1,
    "destroyRouter": 1,
}
"""Weights of the commands around which a run turns; every other command has a small share of the rest."""

OPTIONAL = 0.15
"""Probability that a parameter is given that need not be."""

LIKELY = 0.7
"""Probability that a thing is chosen with which the call will not be refused at once."""

_NEVER_GENERIC = frozenset({"account", "domainid", "page", "pagesize", "usersecretkey", "userapikey", "networkdomain"})
"""Optional parameters that only make sense together with others; `WISHES` gives them where they matter."""


@dataclass(frozen=True)
class Person:
    """Somebody who calls: the integration port's administrator, or a user with keys."""

    name: str
    client: Client
    account_id: int | None = None
    """None for the administrator, who works with everybody's things."""
    role: Role = Role.ADMIN
    busy: int = 2
    """How often somebody calls, in relation to others: who comes later has little to work with."""


class Wishes:
    """Makes parameters from what is there. `made` counts, so that new things have new names."""

    def __init__(self, world: LinedWorld, set_up: Stage, dice: random.Random) -> None:
        self.world = world
        self.cloud = set_up.cloud
        self.dice = dice
        self.made = 0
        self.missing: type[ids.Entity] | None = None
        """What there would have to be for the command last asked for: the one that makes it is called instead."""

    def of(self, spec: CommandSpec, person: Person) -> Parameters | None:
        """Parameters for a call of the command, or None when there is nothing that it could be about."""
        special = WISHES.get(spec.name)
        self.missing = None
        known: Parameters | None = {} if special is None else special(self, person)
        if known is None:
            return None
        given: Parameters = {}
        for field in table(spec.params):
            if field.wire in known:
                found = known[field.wire]
            elif field.info.required or (special is None and self._gives(field)):
                found = self._value(spec, field, person)
            else:
                continue
            if found is None and field.info.required:
                return None
            if found is not None:
                given[field.wire] = found
        return given

    def _gives(self, field: Field) -> bool:
        return not field.is_map and field.wire not in _NEVER_GENERIC and self.dice.random() < OPTIONAL

    def _value(self, spec: CommandSpec, field: Field, person: Person) -> Any:
        if field.entity is not None:
            found = self.thing(field.entity, person)
            return None if found is None else found["uuid"]
        if field.wire in ("name", "displaytext", "displayname", "username", "clustername", "account", "newname"):
            return self.name(spec.name)
        if field.wire == "token":
            return f"one-time-secret-{self.name('token')}"
        return plausible.value(spec.name, field, {})

    # ---- what is there

    def rows(self, statement: Select[Any]) -> list[RowMapping]:
        with self.world.db.read() as tx:
            return tx.all(statement)

    def any(self, statement: Select[Any]) -> RowMapping | None:
        return self._one_of(self.rows(statement))

    def any_where(self, table: Table, **where: Any) -> RowMapping | None:
        """A row whose columns equal the values."""
        with self.world.db.read() as tx:
            return self._one_of(rows.every(tx, table, **where))

    def thing(self, entity: type[ids.Entity], person: Person, *where: ColumnElement[bool]) -> RowMapping | None:
        """Something of a kind that lives; of the person's own if it is a kind that has owners."""
        owned = "account_id" in KINDS[entity].table.c and entity is not ids.Template
        owner = person.account_id if owned else None
        with self.world.db.read() as tx:
            found = self._one_of(_search(KINDS[entity], where, of_one=owner is not None).run(tx, owner))
        if found is None:
            self.missing = entity
        return found

    def _one_of(self, found: list[RowMapping]) -> RowMapping | None:
        return self.dice.choice(found) if found else None

    def uuid_of(
        self,
        entity: type[ids.Entity],
        person: Person,
        *where: ColumnElement[bool],
        likely: ColumnElement[bool] | None = None,
    ) -> str | None:
        """UUID of a thing; mostly of one that is as `likely` says, of which the command can be true."""
        found = None
        if likely is not None and self.dice.random() < LIKELY:
            found = self.thing(entity, person, *where, likely)
        found = found or self.thing(entity, person, *where)
        return None if found is None else str(found["uuid"])

    def name(self, what: str) -> str:
        """A new name."""
        self.made += 1
        return f"{what.lower()[-12:]}{self.made}"

    def zone(self) -> str:
        """Mostly the zone in which guests can run."""
        if self.dice.random() < 0.9:
            return self.world.uuid(zone, self.cloud.zone)
        row = self.any_where(zone, live=1)
        return str(row["uuid"]) if row is not None else ""

    def customer(self) -> RowMapping | None:
        """An account that is nobody's who runs the cloud."""
        with self.world.db.read() as tx:
            return self._one_of(_CUSTOMERS.all(tx))

    def named(self, row: RowMapping) -> Parameters:
        """An account by its name."""
        return {"account": row["name"], "domainid": self.world.uuid(domain, row["domain_id"])}

    def once(self, probability: float, value: Any) -> Any:
        """The value with a probability, else None."""
        return value if self.dice.random() < probability else None


_CUSTOMERS = Prepared(select(account).where(account.c.live == 1, account.c.id > ADMIN_ACCOUNT).order_by(account.c.id))


class _Search:
    """A search for things of a kind. One that comes again, by conditions that are constants, is prepared."""

    def __init__(self, kind: Kind, where: tuple[ColumnElement[bool], ...], *, of_one: bool) -> None:
        table = kind.table
        mine = (table.c.account_id == bindparam("owner"),) if of_one else ()
        self._statement = select(table).where(*kind.conditions, *where, *mine).order_by(table.c.id)
        self._values = ("owner",) if of_one else ()
        self._prepared: Prepared | None = None
        self._known = False

    def run(self, tx: Tx, owner: int | None) -> list[RowMapping]:
        """What is found."""
        values = dict.fromkeys(self._values, owner)
        if not self._known:
            self._known = True
            return list(tx.execute(self._statement, values).mappings().all())
        self._prepared = self._prepared or Prepared(self._statement)
        return self._prepared.all(tx, **values)


@lru_cache(maxsize=500)
def _search(kind: Kind, where: tuple[ColumnElement[bool], ...], *, of_one: bool) -> _Search:
    return _Search(kind, where, of_one=of_one)


GUEST_NETWORK = (network.c.is_system == 0, network.c.traffic_type == "Guest")
"""What a network must be to be one of guests."""

Wish = Callable[[Wishes, Person], Parameters | None]
"""Parameters of a command that matter; None when the call would be about nothing. A None value is not sent."""

WISHES: dict[str, Wish] = {}


def wish(*commands: str) -> Callable[[Wish], Wish]:
    """Say what these commands need beyond their declaration."""

    def register(make: Wish) -> Wish:
        WISHES.update(dict.fromkeys(commands, make))
        return make

    return register
