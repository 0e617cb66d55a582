"""Every command as every role, and every list with another tenant's filters: generated from the registry."""

from dataclasses import dataclass

import pytest
from api_client import Api, Person

from pileus.server.api.command import CommandSpec, registry
from pileus.server.api.parse import table
from pileus.server.db.tables.account import account
from pileus.server.db.tables.job import job as job_table
from pileus.server.db.tables.template import template as template_table
from pileus.server.domain.account import Role
from pileus.server.domain.ids import Account, Domain, Entity, Event, Job, Template, User
from pileus.server.registered import register_all
from pileus.testing.world import World

KINDS = {Role.USER: 0, Role.ADMIN: 1, Role.DOMAIN_ADMIN: 2, Role.RESOURCE_ADMIN: 3}


@dataclass(frozen=True)
class Tenants:
    """Two domains beside each other: people of every role in the one, a victim in the other."""

    people: dict[Role, Person]
    victim: Person
    domain: str


@pytest.fixture
def tenants(api: Api, admin: Person) -> Tenants:
    ours = api.ok(admin, "createDomain", name="ours")["domain"]["id"]
    theirs = api.ok(admin, "createDomain", name="theirs")["domain"]["id"]
    people = {
        role: api.person(f"p{kind}", domain=None if role is Role.ADMIN else ours, kind=kind)
        for role, kind in KINDS.items()
    }
    return Tenants(people, api.person("victim", domain=theirs), theirs)


def specs() -> list[CommandSpec]:
    register_all()
    return [spec for spec in registry.values() if not spec.public]


def test_every_command_is_refused_to_roles_it_does_not_name_and_to_strangers(api: Api, tenants: Tenants) -> None:
    wrong = []
    for spec in specs():
        for role, person in tenants.people.items():
            code = api.call(person, spec.name).status_code
            if (code == 401) is not (role not in spec.roles):
                wrong.append(f"{spec.name} as {role.name}: {code}")
        if api.send("GET", {"command": spec.name}).status_code != 401:
            wrong.append(f"{spec.name} as a stranger")
    assert wrong == []


def test_no_list_shows_another_tenant_whatever_filter_is_given(api: Api, tenants: Tenants) -> None:
    filters = [
        {"domainid": tenants.domain},
        {"domainid": tenants.domain, "isrecursive": "true"},
        {"account": "victim", "domainid": tenants.domain},
        {"listall": "true"},
        {"domainid": "1", "isrecursive": "true"},
        {"domainid": "1", "listall": "true"},
        {"account": "victim"},
        {"accountid": tenants.victim.account_id},
    ]
    lists = [spec for spec in specs() if spec.is_list]
    assert lists
    wrong = []
    for spec in lists:
        known = {field.wire for field in table(spec.params)}
        for role in (Role.USER, Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN):
            if role not in spec.roles:
                continue
            for sent in filters:
                if not set(sent) & known:
                    continue
                answer = api.call(tenants.people[role], spec.name, **sent)
                shown = answer.status_code == 200 and "victim" in answer.text
                if shown or answer.status_code not in (200, 431, 531):
                    wrong.append(f"{spec.name} {sent} as {role.name}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


def test_no_command_takes_an_id_of_another_tenant(world: World, api: Api, tenants: Tenants) -> None:
    admin = Person("admin", "", "", "admin-api-key", "admin-secret-key")
    foreign = theirs(world, api, admin, tenants)
    wrong = []
    tried = set()
    for spec in specs():
        for field in table(spec.params):
            if field.entity not in foreign or not field.info.authorize:
                continue
            tried.add(field.entity)
            needed = {other.wire: "1" for other in table(spec.params) if other.info.required}
            for role in (Role.USER, Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN):
                if role not in spec.roles:
                    continue
                code, text = api.error(tenants.people[role], spec.name, **{**needed, field.wire: foreign[field.entity]})
                # Beside other parameters that are needed, one of those may be what is complained of.
                if code != 531 and not (code == 431 and set(needed) - {field.wire}):
                    wrong.append(f"{spec.name} {field.wire} as {role.name}: {code} {text}")
    assert wrong == []
    assert tried == set(foreign)


def theirs(world: World, api: Api, admin: Person, tenants: Tenants) -> dict[type[Entity], str]:
    """One thing of every kind that the victim owns."""
    event = api.ok(admin, "listEvents", account="victim", domainid=tenants.domain)["event"][0]["id"]
    job = api.ok(admin, "disableUser", id=tenants.victim.user_id)["jobid"]
    with api.database.write() as tx:
        key = tx.one(account.select().where(account.c.uuid == tenants.victim.account_id))
        tx.execute(job_table.update().values(account_id=key["id"], domain_id=key["domain_id"]))
    hidden = {"is_public": 0, "is_featured": 0, "account_id": key["id"], "domain_id": key["domain_id"]}
    template = world.uuid(template_table, world.template(world.zone(), ready=False, **hidden))
    return {
        Account: tenants.victim.account_id,
        Domain: tenants.domain,
        User: tenants.victim.user_id,
        Event: event,
        Job: job,
        Template: template,
    }
