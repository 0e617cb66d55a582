"""What people do: every command that changes something, as several callers, with whatever exists at the moment."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import RowMapping, Select, select

from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network, port_forwarding_rule, public_ip
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.place import cluster, zone
from pileus.server.db.tables.template import os_type, template
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import ADMIN_ACCOUNT
from pileus.server.domain.host import HostState
from pileus.server.domain.network import GuestIpType
from pileus.server.domain.vm import VmKind
from pileus.testing.builders import GIB
from pileus.testing.client import Client, Refused
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.lines import LinedWorld
from pileus.testing.simulation.stage import Stage
from pileus.wire.messages import HostKind

INTERNAL = 530


@dataclass(frozen=True)
class Person:
    """Somebody who calls: the integration port's administrator, or a user with keys."""

    name: str
    client: Client
    account_id: int | None = None
    """None for the administrator, who works with everybody's things."""


@dataclass(frozen=True)
class Ack:
    """A call that was answered: nothing of what was said may be lost."""

    command: str
    person: str
    parameters: dict[str, Any]
    job: str | None
    """UUID of the job, of an asynchronous command."""
    entity: str | None
    """UUID of what was made."""


@dataclass
class Workload:
    """Makes calls, and remembers what was answered."""

    world: LinedWorld
    set_up: Stage
    dice: random.Random
    chronicle: Chronicle
    people: list[Person] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.cloud = self.set_up.cloud
        self.people = [Person("root", Client(self.world.db))]
        for each in self.set_up.residents:
            self.people.append(Person(each.name, Client(self.world.db, keys=each.keys), each.account_id))

    def call(self) -> None:
        """One call of somebody, if there is anything to call it with."""
        person = self.dice.choices(self.people, [1, *[2] * (len(self.people) - 1)])[0]
        if person.account_id is not None and self._vm(person) is None:
            self._do(person, self._deploy)
            return
        ways = [(way, weight) for way, weight in self._ways(person) if weight]
        way = self.dice.choices([way for way, _ in ways], [weight for _, weight in ways])[0]
        self._do(person, way)

    def _do(self, person: Person, way: "Way") -> None:
        wanted = way(person)
        if wanted is not None:
            command, parameters = wanted
            self.send(person, command, **parameters)

    def send(self, person: Person, command: str, **parameters: Any) -> dict[str, Any] | None:
        """Make a call. None when it is refused."""
        told = " ".join(f"{name}={value}" for name, value in parameters.items())
        try:
            answer = person.client.call(command, **parameters)
        except Refused as refused:
            self.chronicle.note(f"{person.name} {command} {told}: {refused.code} {refused.text}")
            if refused.code == INTERNAL:
                self.chronicle.bug(f"{command} {told} as {person.name}: {refused}")
            return None
        job, entity = answer.get("jobid"), answer.get("id")
        if entity is None and job is None:
            inner = next((each for each in answer.values() if isinstance(each, dict)), {})
            entity = inner.get("id")
        self.chronicle.note(f"{person.name} {command} {told}: job {job} entity {entity}")
        self.acks.append(Ack(command, person.name, parameters, job, entity))
        return answer

    # ---- what is there

    def _rows(self, statement: Select[Any]) -> list[RowMapping]:
        with self.world.db.read() as tx:
            return tx.all(statement)

    def _any(self, statement: Select[Any]) -> RowMapping | None:
        rows = self._rows(statement)
        return self.dice.choice(rows) if rows else None

    def _mine(self, table: Any, person: Person, *where: Any) -> RowMapping | None:
        statement = select(table).where(table.c.live == 1, *where).order_by(table.c.id)
        if person.account_id is not None:
            statement = statement.where(table.c.account_id == person.account_id)
        return self._any(statement)

    def _vm(self, person: Person) -> RowMapping | None:
        return self._mine(vm, person, vm.c.kind == str(VmKind.USER))

    def _network(self, person: Person) -> RowMapping | None:
        return self._mine(network, person, network.c.is_system == 0, network.c.traffic_type == "Guest")

    def _zone(self) -> str:
        return self.world.uuid(zone, self.cloud.zone)

    def _offering(self) -> str:
        rows = self._rows(
            select(service_offering.c.uuid)
            .where(service_offering.c.live == 1, service_offering.c.is_system == 0)
            .where(service_offering.c.name.like("offering-%"))
            .order_by(service_offering.c.id)
        )
        return str(self.dice.choice(rows)["uuid"])

    # ---- ways

    def _ways(self, person: Person) -> "list[tuple[Way, int]]":
        root = int(person.account_id is None)
        user = 1 - root
        of_a_vm: list[tuple[str, int, dict[str, Any]]] = [
            ("startVirtualMachine", 4, {}),
            ("stopVirtualMachine", 3, {}),
            ("stopVirtualMachine", 1, {"forced": True}),
            ("rebootVirtualMachine", 2, {}),
            ("destroyVirtualMachine", 2, {}),
            ("destroyVirtualMachine", root, {"expunge": True}),
            ("recoverVirtualMachine", 3 * root, {}),
            ("resetPasswordForVirtualMachine", 1, {}),
        ]
        return [
            (self._deploy, 8 * user),
            *((self._of_vm(command, more), weight) for command, weight, more in of_a_vm),
            (self._change_offering, 1),
            (self._user_data, 1),
            (self._create_network, user),
            (self._of_network("deleteNetwork"), 1),
            (self._of_network("restartNetwork"), 1),
            (self._of_network("restartNetwork", cleanup=True), 1),
            (self._associate, 2 * user),
            (self._disassociate, 1),
            (self._forward, 3 * user),
            (self._unforward, 2),
            (self._register_template, user),
            (self._delete_template, 1),
            (self._limit, root),
            (self._setting, root),
            (self._account, 2 * root),
            (self._new_account, root),
            (self._add_host, root),
            (self._delete_host, root),
            (self._allocation, root),
            (self._router, 2 * root),
        ]

    def _deploy(self, person: Person) -> "Wanted":
        image = self._any(select(template).where(template.c.live == 1).order_by(template.c.id))
        if image is None:
            return None
        self.made += 1
        wanted: dict[str, Any] = {
            "zoneid": self._zone(),
            "serviceofferingid": self._offering(),
            "templateid": image["uuid"],
            "name": f"vm{self.made}",
        }
        chosen = self._network(person) if self.dice.random() < 0.3 else None
        if chosen is not None:
            wanted["networkids"] = chosen["uuid"]
        if self.dice.random() < 0.15:
            wanted["startvm"] = False
        return "deployVirtualMachine", wanted

    def _of_vm(self, command: str, more: dict[str, Any]) -> "Way":
        def way(person: Person) -> "Wanted":
            row = self._vm(person)
            return None if row is None else (command, {"id": row["uuid"], **more})

        return way

    def _of_network(self, command: str, **more: Any) -> "Way":
        def way(person: Person) -> "Wanted":
            row = self._network(person)
            return None if row is None else (command, {"id": row["uuid"], **more})

        return way

    def _change_offering(self, person: Person) -> "Wanted":
        row = self._vm(person)
        if row is None:
            return None
        return "changeServiceForVirtualMachine", {"id": row["uuid"], "serviceofferingid": self._offering()}

    def _user_data(self, person: Person) -> "Wanted":
        row = self._vm(person)
        return None if row is None else ("updateVirtualMachine", {"id": row["uuid"], "userdata": "aGVsbG8="})

    def _create_network(self, person: Person) -> "Wanted":
        rows = self._rows(
            select(network_offering.c.uuid)
            .where(network_offering.c.guest_ip_type == str(GuestIpType.VIRTUAL), network_offering.c.live == 1)
            .order_by(network_offering.c.id)
        )
        self.made += 1
        return "createNetwork", {
            "name": f"net{self.made}",
            "displaytext": f"net{self.made}",
            "networkofferingid": self.dice.choice(rows)["uuid"],
            "zoneid": self._zone(),
        }

    def _associate(self, person: Person) -> "Wanted":
        chosen = self._network(person) if self.dice.random() < 0.5 else None
        more = {} if chosen is None else {"networkid": chosen["uuid"]}
        return "associateIpAddress", {"zoneid": self._zone(), **more}

    def _disassociate(self, person: Person) -> "Wanted":
        row = self._mine(public_ip, person, public_ip.c.account_id.is_not(None))
        return None if row is None else ("disassociateIpAddress", {"id": row["uuid"]})

    def _forward(self, person: Person) -> "Wanted":
        address = self._mine(public_ip, person, public_ip.c.network_id.is_not(None))
        guest = self._vm(person)
        if address is None or guest is None:
            return None
        port = self.dice.randrange(20, 30)
        return "createPortForwardingRule", {
            "ipaddressid": address["uuid"],
            "virtualmachineid": guest["uuid"],
            "protocol": "tcp",
            "publicport": port,
            "privateport": port,
        }

    def _unforward(self, person: Person) -> "Wanted":
        row = self._mine(port_forwarding_rule, person)
        return None if row is None else ("deletePortForwardingRule", {"id": row["uuid"]})

    def _register_template(self, _person: Person) -> "Wanted":
        self.made += 1
        system = self._rows(select(os_type.c.uuid).order_by(os_type.c.id).limit(1))
        return "registerTemplate", {
            "name": f"image{self.made}",
            "displaytext": f"image{self.made}",
            "url": f"http://images.example/image{self.made}.qcow2",
            "format": "QCOW2",
            "hypervisor": "Simulator",
            "zoneid": self._zone(),
            "ostypeid": system[0]["uuid"],
            "passwordenabled": self.dice.random() < 0.5,
        }

    def _delete_template(self, person: Person) -> "Wanted":
        mine = template.c.account_id != ADMIN_ACCOUNT
        row = self._mine(template, person, *([mine] if self.dice.random() < 0.8 else []))
        return None if row is None else ("deleteTemplate", {"id": row["uuid"]})

    def _limit(self, _person: Person) -> "Wanted":
        row = self._user_account()
        if row is None:
            return None
        home = self._rows(select(domain.c.uuid).where(domain.c.id == row["domain_id"]))
        return "updateResourceLimit", {
            "account": row["name"],
            "domainid": home[0]["uuid"],
            "resourcetype": self.dice.choice((0, 1, 2, 4)),
            "max": self.dice.choice((-1, 1, 2, 5)),
        }

    def _setting(self, _person: Person) -> "Wanted":
        name, values = self.dice.choice(SETTINGS)
        return "updateConfiguration", {"name": name, "value": self.dice.choice(values)}

    def _user_account(self) -> RowMapping | None:
        return self._any(
            select(account).where(account.c.live == 1, account.c.id > ADMIN_ACCOUNT).order_by(account.c.id)
        )

    def _account(self, _person: Person) -> "Wanted":
        row = self._user_account()
        if row is None:
            return None
        command = self.dice.choice(("disableAccount", "enableAccount", "enableAccount", "lockAccount", "deleteAccount"))
        if command == "deleteAccount":
            return command, {"id": row["uuid"]}
        home = self._rows(select(domain.c.uuid).where(domain.c.id == row["domain_id"]))
        named = {"account": row["name"], "domainid": home[0]["uuid"]}
        return command, {**named, "lock": False} if command == "disableAccount" else named

    def _new_account(self, person: Person) -> "Wanted":
        self.made += 1
        name = f"user{self.made}"
        about = {"firstname": name, "lastname": name, "email": f"{name}@example.org", "password": "correct horse"}
        answer = self.send(person, "createAccount", accounttype=0, username=name, **about)
        if answer is None:
            return None
        (user,) = answer["account"]["user"]
        keys = self.send(person, "registerUserKeys", id=user["id"])
        if keys is not None:
            both = keys["userkeys"]["apikey"], keys["userkeys"]["secretkey"]
            (row,) = self._rows(select(account.c.id).where(account.c.uuid == answer["account"]["id"]))
            self.people.append(Person(name, Client(self.world.db, keys=both), row["id"]))
        return None

    def _add_host(self, person: Person) -> "Wanted":
        if len(self.world.lines) > 5:
            return None
        self.made += 1
        group = self._rows(select(cluster.c.uuid).where(cluster.c.live == 1).order_by(cluster.c.id))
        answer = self.send(
            person,
            "addHost",
            zoneid=self._zone(),
            clusterid=group[0]["uuid"],
            hypervisor="Simulator",
            url=f"http://added{self.made}",
            username="root",
            password=f"one-time-secret-{self.made:04}",
        )
        if answer is not None:
            made = answer["host"]
            self.world.hosts.add(made["id"], cpus=4, memory_bytes=4 * GIB)
        return None

    def _delete_host(self, _person: Person) -> "Wanted":
        row = self._any(
            select(host)
            .where(host.c.live == 1, host.c.kind == str(HostKind.ROUTING), host.c.state != str(HostState.CONNECTING))
            .order_by(host.c.id)
        )
        return None if row is None or self.dice.random() < 0.5 else ("deleteHost", {"id": row["uuid"]})

    def _allocation(self, _person: Person) -> "Wanted":
        row = self._any(select(host).where(host.c.live == 1, host.c.kind == str(HostKind.ROUTING)).order_by(host.c.id))
        if row is None:
            return None
        return "updateHost", {"id": row["uuid"], "allocationstate": self.dice.choice(("Enabled", "Disabled"))}

    def _router(self, _person: Person) -> "Wanted":
        row = self._any(select(vm).where(vm.c.live == 1, vm.c.kind == str(VmKind.ROUTER)).order_by(vm.c.id))
        if row is None:
            return None
        command = self.dice.choice(("startRouter", "stopRouter", "rebootRouter", "destroyRouter"))
        return command, {"id": row["uuid"]}


Wanted = tuple[str, dict[str, Any]] | None
"""A command and its parameters."""

Way = Callable[[Person], Wanted]

SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("expunge.delay", ("60", "600", "86400")),
    ("expunge.interval", ("60", "600")),
    ("expunge.workers", ("1", "3")),
    ("network.gc.wait", ("60", "600")),
    ("network.gc.interval", ("60", "600")),
    ("vm.allocation.algorithm", ("random", "firstfit", "userdispersing")),
    ("storage.cleanup.interval", ("60", "86400")),
    ("max.account.user.vms", ("2", "20")),
    ("cpu.overprovisioning.factor", ("1", "2")),
)
