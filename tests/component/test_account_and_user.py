"""Accounts, users and domains over the API: who may do what, and what ends with them."""

import pytest
from api_client import PASSWORD, Api, Person

from pileus.server.db.queries import count
from pileus.server.db.tables.account import account, users
from pileus.server.domain.account import Resource
from pileus.testing.world import World

NEW = {"username": "new", "password": PASSWORD, "firstname": "N", "lastname": "ew", "email": "new@example.org"}


def test_a_new_account_has_a_user_default_limits_and_events(api: Api, admin: Person) -> None:
    made = api.ok(admin, "createAccount", accounttype=0, account="team", timezone="Europe/Berlin", **NEW)["account"]
    assert (made["name"], made["state"], made["accounttype"], made["domain"]) == ("team", "enabled", 0, "ROOT")
    assert (made["vmlimit"], made["vmtotal"], made["vmavailable"]) == ("20", 0, "20")
    (member,) = made["user"]
    assert (member["username"], member["account"], member["timezone"]) == ("new", "team", "Europe/Berlin")
    told = [one["type"] for one in api.ok(admin, "listEvents", listall=True)["event"]]
    assert {"ACCOUNT.CREATE", "USER.CREATE"} <= set(told)
    assert api.login("new").status_code == 200


def test_root_administrators_have_no_limits(api: Api, admin: Person) -> None:
    made = api.ok(admin, "createAccount", accounttype=1, **NEW)["account"]
    assert (made["vmlimit"], made["vmavailable"], made["templatelimit"]) == ("Unlimited",) * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"accounttype": "7"}, "accounttype"),
        ({"accounttype": ""}, "accounttype"),
        ({"username": "admin"}, "username"),
        ({"account": "admin"}, "account"),
        ({"username": " blank "}, "username"),
        ({"username": "new\nline"}, "username"),
        ({"password": ""}, "password"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"domainid": "nowhere"}, "domainid"),
        ({"email": ""}, "email"),
        ({"email": "a@example.org\r\nBcc: all"}, "email"),
        ({"firstname": " "}, "firstname"),
        ({"lastname": "a\x00"}, "lastname"),
        ({"networkdomain": "not a domain"}, "networkdomain"),
        ({"networkdomain": "x.example\naddress=/#/192.0.2.1"}, "networkdomain"),
    ],
)
def test_what_is_wrong_with_a_new_account_is_named_and_nothing_stays(
    api: Api, admin: Person, change: dict[str, str], named: str
) -> None:
    code, text = api.error(admin, "createAccount", **{"accounttype": "0", **NEW, **change})
    assert code == 431
    assert named in text
    with api.database.read() as tx:
        assert len(tx.all(account.select())) == 2
        assert len(tx.all(users.select())) == 2


def test_root_administrators_belong_to_root_only(api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    assert api.error(admin, "createAccount", accounttype=1, domainid=domain, **NEW)[0] == 431


def test_user_names_are_unique_in_a_domain_only(api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    api.person("twin")
    other = api.person("twin", domain=domain)
    assert api.login("twin", domain="/d").json()["loginresponse"]["userid"] == other.user_id
    assert api.login("twin", domain="d/").status_code == 200
    assert api.login("twin", domainid=domain).json()["loginresponse"]["userid"] == other.user_id


def test_no_one_may_grant_or_touch_more_privileges_than_their_own(api: Api, admin: Person) -> None:
    resource_admin = api.person("stocker", kind=3)
    api.person("someone")
    assert api.error(resource_admin, "createAccount", accounttype=1, **NEW)[0] == 531
    assert api.error(resource_admin, "createUser", account="admin", **NEW)[0] == 531
    assert api.error(resource_admin, "updateUser", id=2, password="mine now")[0] == 531
    assert api.error(resource_admin, "deleteUser", id=2)[0] == 531
    assert api.error(resource_admin, "lockAccount", account="admin", domainid=1)[0] == 531
    assert api.error(resource_admin, "disableAccount", id=2, lock=False)[0] == 531
    api.ok(resource_admin, "createUser", account="someone", **NEW)
    assert api.login("admin").status_code == 200


def test_a_domain_administrator_reaches_its_subtree_and_no_further(api: Api, admin: Person) -> None:
    upper = api.ok(admin, "createDomain", name="upper")["domain"]["id"]
    lower = api.ok(admin, "createDomain", name="lower", parentdomainid=upper)["domain"]["id"]
    beside = api.ok(admin, "createDomain", name="upper2")["domain"]["id"]
    chief = api.person("chief", domain=upper, kind=2)
    inside = api.person("inside", domain=lower)
    outside = api.person("outside", domain=beside)
    api.ok(chief, "lockAccount", account="inside", domainid=lower)
    assert api.call(inside, "listEvents").status_code == 401
    api.ok(chief, "enableAccount", account="inside", domainid=lower)
    assert api.error(chief, "lockUser", id=outside.user_id)[0] == 531
    assert api.error(chief, "lockAccount", account="outside", domainid=beside)[0] == 531
    assert api.error(chief, "listUsers", domainid=beside)[0] == 531
    assert {one["username"] for one in api.ok(chief, "listUsers", listall=True)["user"]} == {"chief", "inside"}
    assert {one["name"] for one in api.ok(chief, "listDomains")["domain"]} == {"upper", "lower"}
    assert api.error(chief, "listDomains", id=1)[0] == 531


def test_domains_that_differ_in_case_are_two(api: Api, admin: Person) -> None:
    one = api.ok(admin, "createDomain", name="case")["domain"]["id"]
    two = api.ok(admin, "createDomain", name="CASE")["domain"]["id"]
    chief = api.person("chief", domain=one, kind=2)
    api.person("other", domain=two)
    assert {u["username"] for u in api.ok(chief, "listUsers", listall=True)["user"]} == {"chief"}


def test_lists_show_ones_own_account_unless_asked_for_more(api: Api, admin: Person) -> None:
    someone, other = api.person("someone"), api.person("other")

    def names(who: Person, **params: object) -> set[str]:
        return {one["name"] for one in api.ok(who, "listAccounts", **params).get("account", [])}

    assert names(admin) == {"admin"}
    assert names(admin, listall=True) == {"admin", "someone", "other"}
    assert names(admin, id=other.account_id) == {"other"}
    assert names(admin, domainid=1) == {"admin", "someone", "other"}
    assert names(someone) == names(someone, listall=True) == names(someone, domainid=1) == {"someone"}
    assert names(someone, name="other") == set()
    assert api.error(someone, "listAccounts", id=other.account_id)[0] == 531
    assert api.error(someone, "listEvents", account="other", domainid=1)[0] == 531
    assert api.error(admin, "listEvents", account="nobody", domainid=1) == (
        431,
        "could not find account nobody in domain /",
    )


def test_another_tenants_events_are_never_listed(api: Api, admin: Person) -> None:
    someone, other = api.person("someone"), api.person("other")
    mine = api.ok(someone, "listEvents", listall=True)["event"]
    assert {one["account"] for one in mine} == {"someone"}
    theirs = api.ok(other, "listEvents")["event"][0]["id"]
    assert api.error(someone, "listEvents", id=theirs)[0] == 531


def test_secrets_are_told_once_and_never_listed(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    told = [
        api.call(admin, "listUsers", listall=True).text,
        api.call(admin, "listAccounts", listall=True).text,
        api.call(admin, "listEvents", listall=True).text,
        api.call(admin, "updateUser", id=someone.user_id, firstname="x").text,
    ]
    for text in told:
        assert someone.secret_key not in text
        assert someone.api_key not in text
        assert "argon2" not in text
        assert PASSWORD not in text


def test_renaming_a_domain_moves_everything_below_it(api: Api, admin: Person) -> None:
    upper = api.ok(admin, "createDomain", name="a")["domain"]["id"]
    lower = api.ok(admin, "createDomain", name="b", parentdomainid=upper)["domain"]
    assert (lower["path"], lower["level"], lower["parentdomainname"]) == ("ROOT/a/b", 2, "a")
    api.person("deep", domain=lower["id"])
    renamed = api.ok(admin, "updateDomain", id=upper, name="z")["domain"]
    assert (renamed["path"], renamed["haschild"]) == ("ROOT/z", True)
    assert api.ok(admin, "listDomains", id=lower["id"])["domain"][0]["path"] == "ROOT/z/b"
    assert api.login("deep", domain="/z/b").status_code == 200
    assert api.login("deep", domain="/a/b").status_code == 531
    assert {d["name"] for d in api.ok(admin, "listDomainChildren", isrecursive=True)["domain"]} == {"z", "b"}
    assert {d["name"] for d in api.ok(admin, "listDomainChildren")["domain"]} == {"z"}


@pytest.mark.parametrize("name", ["", "a/b", "x\x00y", "y" * 256])
def test_domains_have_names_that_fit_a_path(api: Api, admin: Person, name: str) -> None:
    assert api.error(admin, "createDomain", name=name)[0] == 431


def test_a_domain_with_accounts_goes_only_with_cleanup(world: World, api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    someone = api.person("someone", domain=domain)
    assert api.error(admin, "deleteDomain", id=domain)[0] == 536
    assert api.error(admin, "deleteDomain", id=1)[0] == 431
    job = api.ok(admin, "deleteDomain", id=domain, cleanup=True)["jobid"]
    world.settle()
    assert api.ok(admin, "queryAsyncJobResult", jobid=job)["jobresult"] == {"success": True}
    assert api.call(someone, "listEvents").status_code == 401
    assert {d["name"] for d in api.ok(admin, "listDomains")["domain"]} == {"ROOT"}


def test_a_deleted_account_is_gone_and_its_names_are_free_without_its_power(
    world: World, api: Api, admin: Person
) -> None:
    former = api.person("phoenix")
    job = api.ok(admin, "deleteAccount", id=former.account_id)["jobid"]
    world.settle()
    assert api.ok(admin, "queryAsyncJobResult", jobid=job)["jobstatus"] == 1
    assert api.call(former, "listEvents").status_code == 401
    assert api.login("phoenix").status_code == 531
    successor = api.person("phoenix")
    assert successor.account_id != former.account_id
    assert api.call(former, "listEvents").status_code == 401
    types = {one["description"] for one in api.ok(successor, "listEvents", listall=True)["event"]}
    assert "Successfully deleted account" not in types


def test_nobody_deletes_themselves(api: Api, admin: Person) -> None:
    second = api.person("second", kind=1)
    assert api.error(second, "deleteUser", id=second.user_id)[0] == 431
    assert api.error(second, "deleteAccount", id=second.account_id)[0] == 431
    api.ok(admin, "deleteUser", id=second.user_id)
    assert api.call(second, "listEvents").status_code == 401


def test_the_built_in_administrator_and_ones_own_account_stay(api: Api, admin: Person) -> None:
    second = api.person("second", kind=1)
    assert api.error(admin, "deleteAccount", id=2)[0] == 431
    assert api.error(second, "deleteAccount", id=2)[0] == 431
    assert api.error(second, "disableAccount", id=second.account_id, lock=False)[0] == 431
    for command in ("deleteUser", "disableUser", "lockUser"):
        assert api.error(second, command, id=2)[0] == 431


def test_a_disabled_account_is_out_at_once_and_comes_back(world: World, api: Api, admin: Person) -> None:
    someone = api.person("someone")
    job = api.ok(admin, "disableAccount", account="someone", domainid=1, lock=False)["jobid"]
    assert api.call(someone, "listEvents").status_code == 401
    world.settle()
    told = api.ok(admin, "queryAsyncJobResult", jobid=job)
    assert told["jobresult"]["account"]["state"] == "disabled"
    back = api.ok(admin, "enableAccount", account="someone", domainid=1)["account"]
    assert back["state"] == "enabled"
    assert api.call(someone, "listEvents").status_code == 200


def test_accounts_and_users_are_updated(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    assert api.ok(admin, "updateAccount", account="someone", domainid=1, newname="else")["account"]["name"] == "else"
    assert api.error(admin, "updateAccount", account="else", domainid=1, newname="admin")[0] == 431
    changed = api.ok(admin, "updateUser", id=someone.user_id, username="renamed", email="r@example.org")["user"]
    assert (changed["username"], changed["email"], changed["account"]) == ("renamed", "r@example.org", "else")
    assert api.error(admin, "updateUser", id=someone.user_id, userapikey="x" * 40)[0] == 431
    keys = {"userapikey": "k" * 40, "usersecretkey": "s" * 40}
    api.ok(admin, "updateUser", id=someone.user_id, **keys)
    assert api.call(Person("x", "", "", "k" * 40, "s" * 40), "listEvents").status_code == 200
    assert api.error(admin, "updateUser", id=2, **keys)[0] == 431


def test_a_network_domain_is_one_wherever_it_is_given(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    made = api.ok(admin, "createDomain", name="d", networkdomain="D.Example")["domain"]
    assert made["networkdomain"] == "d.example"
    for command, which in (
        ("createDomain", {"name": "e"}),
        ("updateDomain", {"id": made["id"]}),
        ("updateAccount", {"id": someone.account_id}),
    ):
        code, text = api.error(admin, command, **which, networkdomain="-bad-.example\nserver=/#/192.0.2.1")
        assert (code, "networkdomain" in text, "example.org" in text) == (431, True, True), command
    told = api.ok(admin, "updateAccount", id=someone.account_id, networkdomain="a.example")["account"]
    assert told["networkdomain"] == "a.example"
    assert "networkdomain" not in api.ok(admin, "updateAccount", id=someone.account_id, networkdomain="")["account"]
    assert api.ok(admin, "listDomains", name="e") == {}


def test_what_a_user_is_called_stays_visible(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    for wrong in ({"firstname": ""}, {"lastname": "  "}, {"email": "a\nb@example.org"}, {"timezone": "Europe"}):
        code, text = api.error(admin, "updateUser", id=someone.user_id, **wrong)
        assert (code, next(iter(wrong)) in text) == (431, True), wrong
    assert api.ok(admin, "listUsers", id=someone.user_id)["user"][0]["firstname"] == "someone"


GUIDE_ZONES = """
Etc/GMT+12 Etc/GMT+11 Pacific/Samoa Pacific/Honolulu US/Alaska America/Los_Angeles Mexico/BajaNorte US/Arizona
US/Mountain America/Chihuahua America/Chicago America/Costa_Rica America/Mexico_City Canada/Saskatchewan America/Bogota
America/New_York America/Caracas America/Asuncion America/Cuiaba America/Halifax America/La_Paz America/Santiago
America/St_Johns America/Araguaina America/Argentina/Buenos_Aires America/Cayenne America/Godthab America/Montevideo
Etc/GMT+2 Atlantic/Azores Atlantic/Cape_Verde Africa/Casablanca Etc/UTC Atlantic/Reykjavik Europe/London CET
Europe/Bucharest Africa/Johannesburg Asia/Beirut Africa/Cairo Asia/Jerusalem Europe/Minsk Europe/Moscow Africa/Nairobi
Asia/Karachi Asia/Kolkata Asia/Bangkok Asia/Shanghai Asia/Kuala_Lumpur Australia/Perth Asia/Taipei Asia/Tokyo Asia/Seoul
Australia/Adelaide Australia/Darwin Australia/Brisbane Australia/Canberra Pacific/Guam Pacific/Auckland
"""


def test_every_time_zone_of_the_guide_is_known(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    for name in GUIDE_ZONES.split():
        assert api.ok(admin, "updateUser", id=someone.user_id, timezone=name)["user"]["timezone"] == name


@pytest.mark.parametrize(
    ("command", "params", "allowed"),
    [
        ("listAccounts", {"state": "asleep"}, "enabled, disabled, locked"),
        ("listAccounts", {"accounttype": "9"}, "2 (domain administrator)"),
        ("listUsers", {"state": "asleep"}, "enabled, disabled, locked"),
        ("listUsers", {"accounttype": "-1"}, "2 (domain administrator)"),
        ("listDomains", {"level": "-1"}, "from 0"),
        ("listConfigurations", {"category": "Basic"}, "Advanced"),
    ],
)
def test_a_filter_that_nothing_can_match_is_named(
    api: Api, admin: Person, command: str, params: dict[str, str], allowed: str
) -> None:
    code, text = api.error(admin, command, **params)
    assert (code, next(iter(params)) in text, allowed in text) == (431, True, True)


def test_limits_nobody_set_follow_the_setting(api: Api, admin: Person) -> None:
    plain, special = api.person("plain"), api.person("special")
    with api.database.write() as tx:
        key = tx.scalar(account.select().with_only_columns(account.c.id).where(account.c.uuid == special.account_id))
        count.limit(tx, count.ACCOUNT, key, Resource.INSTANCE, 3)
    api.ok(admin, "updateConfiguration", name="max.account.user.vms", value="7")
    limits = {a["name"]: a["vmlimit"] for a in api.ok(admin, "listAccounts", listall=True)["account"]}
    assert limits == {"admin": "Unlimited", "plain": "7", "special": "3"}
    assert plain.account_id != special.account_id
