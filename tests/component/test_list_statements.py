"""Every list costs as many statements for twenty things as for one: from the registry, so a new list is covered."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, String, Table, UniqueConstraint, func, insert, select, true

from pileus.server.api.command import CommandSpec, parameters, registry
from pileus.server.api.parse import table as table_of
from pileus.server.auth.kinds import KINDS
from pileus.server.db.dialect import pass_given_keys
from pileus.server.db.tables import metadata
from pileus.server.db.tables.column import new_uuid
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import public_ip
from pileus.server.db.transaction import Tx
from pileus.server.domain.ids import Entity
from pileus.testing.client import Client, counted_statements
from pileus.testing.tenancy import Tenancy
from pileus.testing.world import World

MORE = 20
ASKED = {"templatefilter": "all", "listall": "true", "issystem": "false"}
NOT_ROWS = {
    # What they show is not the rows of a kind: sums by zone, what the program itself knows, or the seed.
    *("listCapacity", "listHypervisors", "listConfigurations", "listResourceLimits"),
    # The guests of one rule: shown by their own test.
    *("listLoadBalancerRuleInstances",),
}

SHOWN: Mapping[Table, Mapping[str, Any]] = {job: {"open": 1, "running_key": None, "parent_id": None}}
"""What a copy must be to be shown, where not all that counts is."""

PATTERNS: Mapping[Table, ColumnElement[bool]] = {public_ip: public_ip.c.state == "Allocated"}
"""Which rows are shown, where that is more than a value or two."""


def lists() -> list[CommandSpec]:
    return [spec for spec in registry.values() if spec.is_list]


def test_no_list_costs_more_statements_for_more_rows(world: World) -> None:
    things = Tenancy.settle(world).ours.things
    client = Client(world.db)
    with world.db.write() as tx:
        multiply(tx, job, copies=1)
    change_setting(client, 1)
    few = {spec.name: cost(world, client, spec, things) for spec in lists()}
    with world.db.write() as tx:
        for entry in KINDS.values():
            multiply(tx, entry.table, *entry.conditions, PATTERNS.get(entry.table, true()))
    change_setting(client, MORE)
    many = {spec.name: cost(world, client, spec, things) for spec in lists()}
    assert len(few) > 30
    same = [name for name in few if name not in NOT_ROWS and many[name][0] < few[name][0] + MORE]
    assert not same, f"these were shown no more rows than before: {same}"
    growing = {name: (few[name][1], many[name][1]) for name in few if len(few[name][1]) != len(many[name][1])}
    assert not growing, "\n".join(f"{name}: {before} {after}" for name, (before, after) in growing.items())


def change_setting(client: Client, times: int) -> None:
    """Changes of a setting: they are listed, and are no kind that an id can name."""
    for number in range(times):
        client.call("updateConfiguration", name="expunge.delay", value=str(600 + times * 100 + number))


def cost(world: World, client: Client, spec: CommandSpec, things: Mapping[type[Entity], str]) -> tuple[int, list[str]]:
    """How many entries the default page has, and the statements it took."""
    asked = {name: ASKED[name] for name in parameters(spec.params) if name in ASKED}
    asked |= {
        field.wire: things[field.entity] for field in table_of(spec.params) if field.info.required and field.entity
    }
    client.call(spec.name, **asked)
    with counted_statements(world.db) as seen:
        body = client.call(spec.name, **asked)
    return sum(len(entry) for entry in body.values() if isinstance(entry, list)), list(seen)


def multiply(tx: Tx, table: Table, *where: ColumnElement[bool], copies: int = MORE) -> None:
    """Copies of the newest row that counts, each with copies of the rows that belong to it alone."""
    pattern = dict(tx.all(select(table).where(*where).order_by(table.c.id.desc()).limit(1))[0])
    first = int(tx.scalar(select(func.max(table.c.id)))) + 1
    unique = unique_texts(table)
    holders = unique_holders(tx, table, copies)
    for number, key in enumerate(range(first, first + copies)):
        row = {**pattern, **SHOWN.get(table, {}), "id": key, "uuid": new_uuid()}
        row |= {name: f"{key}-{row[name]}"[: unique[name]] for name in unique if row[name] is not None}
        row |= {name: found[number] for name, found in holders.items() if number < len(found)}
        tx.execute(insert(table).values(row))
        for other in metadata.tables.values():
            for column in other.primary_key:
                if any(foreign.column is table.c.id for foreign in column.foreign_keys):
                    for belonging in tx.all(select(other).where(column == pattern["id"])):
                        tx.execute(insert(other).values({**belonging, column.name: key}))
    pass_given_keys(tx.connection, table)


def unique_holders(tx: Tx, table: Table, copies: int) -> dict[str, list[int]]:
    """Rows for each copy to belong to, by the only key in a unique constraint, which has one of them."""
    found = {}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            held = [column for column in constraint.columns if column.name != "live"]
            if len(held) == 1 and held[0].foreign_keys:
                (foreign,) = held[0].foreign_keys
                newest = select(foreign.column).order_by(foreign.column.desc()).limit(copies)
                found[held[0].name] = list(tx.execute(newest).scalars())
    return found


def unique_texts(table: Table) -> dict[str, int]:
    """Text columns that take part in a unique constraint, but for the UUID, with their longest length."""
    found = {column.name for column in table.c if column.unique}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            found |= {column.name for column in constraint.columns}
    kinds = {name: table.c[name].type for name in found - {"uuid"}}
    return {name: kind.length or 64 for name, kind in kinds.items() if isinstance(kind, String)}
