"""What people do: any command, as several callers, with whatever exists at the moment; and what was answered."""

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from pileus.server.api.command import CommandSpec, registry
from pileus.server.db.tables.account import account
from pileus.server.db.tables.host import host
from pileus.server.domain import ids
from pileus.server.domain.account import ROLE_OF, AccountType
from pileus.testing.builders import GIB
from pileus.testing.client import Client, Refused
from pileus.testing.simulation import cloud_wishes, guest_wishes, rule_wishes
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.lines import LinedWorld
from pileus.testing.simulation.stage import Stage
from pileus.testing.simulation.wishes import CORE, EXCLUDED, Parameters, Person, Wishes

INTERNAL = 530

MAKING = ("add", "associate", "create", "deploy", "register")
"""How the names of commands begin that make something."""

_SAID = (guest_wishes, rule_wishes, cloud_wishes)
"""Imported so that what they say of commands is known."""

CORE_SHARE, LIKED_SHARE, READ_SHARE = 0.6, 0.3, 0.05
"""Of all calls, those that all runs turn around, those that this one likes, and those that only read. The rest goes to
all other commands alike."""

LIKED_NOUNS = 3
"""Of how many nouns a run likes the commands."""

LONGEST_TOLD = 60
"""Characters of a value in the trace; keys and certificates are longer, and differ from process to process."""


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
    liked: Collection[str] = ()
    """Names of commands outside the core that this run calls often, so that they meet each other."""
    people: list[Person] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wishes = Wishes(self.world, self.set_up, self.dice)
        self.people = [Person("root", Client(self.world.db))]
        for each in self.set_up.residents:
            client = Client(self.world.db, keys=each.keys)
            self.people.append(Person(each.name, client, each.account_id, ROLE_OF[each.type], each.busy))

    def call(self) -> None:
        """One call of somebody, if there is anything to call it with."""
        roll = self.dice.random()
        if roll < CORE_SHARE:
            self.rather(*self._core())
            return
        if roll > 1 - READ_SHARE:
            some = reading()
        else:
            some = [each for each in changing() if each.name not in CORE]
            if self.liked and roll < CORE_SHARE + LIKED_SHARE:
                some = [each for each in some if each.name in self.liked]
        spec = self.dice.choice(some)
        self.rather(self.dice.choice([each for each in self.people if _may(each, spec)]), spec)

    def want(self, person: Person, spec: CommandSpec) -> bool:
        """Make a call of this command. False when there was nothing to call it with, or it was refused."""
        parameters = self.wishes.of(spec, person)
        return parameters is not None and self.send(person, spec, parameters)

    def rather(self, person: Person, spec: CommandSpec) -> None:
        """Make a call of this command, or of the one that makes what it would be about."""
        parameters = self.wishes.of(spec, person)
        if parameters is None:
            made_by = _maker(self.wishes.missing) if self.wishes.missing is not None else None
            if made_by is None or not _may(person, made_by):
                return
            spec, parameters = made_by, self.wishes.of(made_by, person)
        if parameters is not None:
            self.send(person, spec, parameters)

    def send(self, person: Person, spec: CommandSpec, parameters: Parameters) -> bool:
        """Make this call. False when it is refused."""
        told = " ".join(f"{name}={_told(value)}" for name, value in parameters.items())
        try:
            answer = person.client.call(spec.name, **parameters)
        except Refused as refused:
            self.chronicle.note(f"{person.name} {spec.name} {told}: {refused.code} {refused.text}")
            if refused.code == INTERNAL:
                self.chronicle.bug(f"{spec.name} {told} as {person.name}: {refused}")
            return False
        if spec.reads:
            self.chronicle.note(f"{person.name} {spec.name} {told}: read")
            return True
        job, entity = answer.get("jobid"), answer.get("id")
        if entity is None and job is None:
            inner = next((each for each in answer.values() if isinstance(each, dict)), {})
            entity = inner.get("id")
        self.chronicle.note(f"{person.name} {spec.name} {told}: job {job} entity {entity}")
        self.acks.append(Ack(spec.name, person.name, parameters, job, entity))
        self._follow(person, spec, answer)
        return True

    def _core(self) -> tuple[Person, CommandSpec]:
        # First what, then who: chosen by the few who may, commands of administrators would be rare.
        spec = registry[self.dice.choices(list(CORE), list(CORE.values()))[0]]
        may = [each for each in self.people if _may(each, spec)]
        return self.dice.choices(may, [each.busy for each in may])[0], spec

    def _follow(self, person: Person, spec: CommandSpec, answer: dict[str, Any]) -> None:
        """What people and machines do when the answer is there."""
        match spec.name:
            case "createAccount":
                self._welcome(person, answer["account"])
            case "addHost":
                self.world.hosts.add(answer["host"]["id"], cpus=4, memory_bytes=4 * GIB)
            case "addSecondaryStorage":
                uuid = answer["host"]["id"]
                (row,) = self.wishes.rows(select(host.c.id).where(host.c.uuid == uuid))
                self.world.stores[row["id"]] = self.world.hosts.add_storage(uuid)

    def _welcome(self, person: Person, made: dict[str, Any]) -> None:
        (user,) = made["user"]
        try:
            keys = person.client.call("registerUserKeys", id=user["id"])["userkeys"]
        except Refused:
            return
        (row,) = self.wishes.rows(select(account.c.id, account.c.type).where(account.c.uuid == made["id"]))
        client = Client(self.world.db, keys=(keys["apikey"], keys["secretkey"]))
        self.people.append(Person(made["name"], client, row["id"], ROLE_OF[AccountType(row["type"])]))


def changing() -> list[CommandSpec]:
    """Commands that change something and that runs make, by name."""
    return [spec for name, spec in sorted(registry.items()) if not spec.reads and name not in EXCLUDED]


def liking(seed: int) -> set[str]:
    """The commands that the run of a seed likes: all outside the core of a few nouns, of each noun in its turn.

    A noun is a module of commands. Runs that follow each other like others, and in every round of all nouns another
    lot decides which come together.
    """
    nouns: dict[str, set[str]] = {}
    for spec in changing():
        if spec.name not in CORE:
            nouns.setdefault(spec.params.__module__, set()).add(spec.name)
    liked: set[str] = set()
    for place in range(seed * LIKED_NOUNS, (seed + 1) * LIKED_NOUNS):
        number, index = divmod(place, len(nouns))
        order = sorted(nouns)
        random.Random(f"round {number}").shuffle(order)  # noqa: S311 (a simulation must be repeatable)
        liked |= nouns[order[index]]
    return liked


def _maker(entity: type[ids.Entity]) -> CommandSpec | None:
    """The command of most weight that makes such a thing."""
    if entity is ids.Router:
        entity = ids.Vm  # A router comes with the first guest of its network.
    makes = [spec for spec in changing() if spec.returns.kind is entity and spec.name.startswith(MAKING)]
    return max(makes, key=lambda spec: CORE.get(spec.name, 0), default=None)


def reading() -> list[CommandSpec]:
    """Commands that only read, by name."""
    return [spec for _, spec in sorted(registry.items()) if spec.reads]


def _may(person: Person, spec: CommandSpec) -> bool:
    return bool(spec.roles & person.role)


def _told(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_TOLD else "…"
