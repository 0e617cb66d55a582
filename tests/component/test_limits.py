"""Limits and counts over the API."""

import pytest
from api_client import Api, Person
from sqlalchemy import update

from pileus.server.db.tables.account import account, resource_count
from pileus.testing.world import World


def limits(api: Api, who: Person, **params: object) -> dict[str, int]:
    return {one["resourcetype"]: one["max"] for one in api.ok(who, "listResourceLimits", **params)["resourcelimit"]}


def test_a_limit_of_an_account_is_set_shown_and_lifted(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    assert limits(api, someone) == dict.fromkeys("01234", 20)
    told = api.ok(admin, "updateResourceLimit", account="someone", domainid=1, resourcetype=2, max=3)["resourcelimit"]
    assert (told["account"], told["domain"], told["resourcetype"], told["max"]) == ("someone", "ROOT", "2", 3)
    assert limits(api, someone, resourcetype=2) == {"2": 3}
    api.ok(admin, "updateResourceLimit", account="someone", domainid=1, resourcetype=2)
    assert limits(api, someone, resourcetype=2) == {"2": -1}
    told = api.ok(admin, "listEvents", keyword="limit of")["event"]
    assert [one["description"] for one in told] == [
        "limit of volume of account someone of domain / set to any number",
        "limit of volume of account someone of domain / set to 3",
    ]


def test_a_domain_administrator_sets_limits_below_but_not_its_own(api: Api, admin: Person) -> None:
    upper = api.ok(admin, "createDomain", name="upper")["domain"]["id"]
    lower = api.ok(admin, "createDomain", name="lower", parentdomainid=upper)["domain"]["id"]
    chief = api.person("chief", domain=upper, kind=2)
    api.ok(chief, "updateResourceLimit", domainid=lower, resourcetype=0, max=5)
    assert limits(api, chief, domainid=lower, resourcetype=0) == {"0": 5}
    assert api.error(chief, "updateResourceLimit", domainid=upper, resourcetype=0, max=500)[0] == 531
    assert api.error(chief, "updateResourceLimit", domainid=1, resourcetype=0, max=500)[0] == 531
    assert api.error(chief, "updateResourceLimit", account="admin", domainid=1, resourcetype=0, max=0)[0] == 531


@pytest.mark.parametrize(
    "params",
    [
        {"resourcetype": 9, "max": 1, "domainid": 1},
        {"resourcetype": 0, "max": -2, "domainid": 1},
        {"resourcetype": 0, "max": "many", "domainid": 1},
        {"resourcetype": 0, "max": 1},
        {"resourcetype": 0, "max": 1, "domainid": 1, "account": "nobody"},
        {"max": 1, "domainid": 1},
    ],
)
def test_what_is_wrong_with_a_limit_is_431(api: Api, admin: Person, params: dict[str, object]) -> None:
    assert api.error(admin, "updateResourceLimit", **params)[0] == 431


def test_users_see_their_own_limits_only(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    api.person("other")
    assert api.error(someone, "listResourceLimits", account="other", domainid=1)[0] == 531
    assert api.error(someone, "updateResourceLimit", account="someone", resourcetype=0, max=99)[0] == 401


def test_a_recount_corrects_what_was_counted(world: World, api: Api, admin: Person) -> None:
    someone = api.person("someone")
    with api.database.read() as tx:
        key = tx.scalar(account.select().with_only_columns(account.c.id).where(account.c.uuid == someone.account_id))
    world.template(world.zone(), ready=False, account_id=key)
    with api.database.write() as tx:
        tx.execute(update(resource_count).values(used=17))
    told = api.ok(admin, "updateResourceCount", account="someone", domainid=1)["resourcecount"]
    assert {one["resourcetype"]: one["resourcecount"] for one in told} == {"0": 0, "1": 0, "2": 0, "3": 0, "4": 1}
    (whole,) = api.ok(admin, "updateResourceCount", domainid=1, resourcetype=4)["resourcecount"]
    assert whole["resourcecount"] == 1
    (shown,) = api.ok(admin, "listAccounts", id=someone.account_id)["account"]
    assert (shown["templatetotal"], shown["vmtotal"]) == (1, 0)
