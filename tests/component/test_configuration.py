"""Settings: typed, live on every server, with a history."""

import pytest
from api_client import Api, Person

from pileus.server import config
from pileus.server.db.tables.setting import setting, setting_change
from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock


def value_in(db: Database) -> int:
    with db.read() as tx:
        return config.value(tx, config.keys.expunge_delay)


def test_a_change_is_live_on_every_server_in_its_next_unit_of_work(api: Api, admin: Person) -> None:
    other = Database(api.database.url.render_as_string(hide_password=False), api.database.clock)
    try:
        assert value_in(api.database) == value_in(other) == 86400
        told = api.ok(admin, "updateConfiguration", name="expunge.delay", value="60")["configuration"]
        assert told["value"] == "60"
        assert value_in(api.database) == value_in(other) == 60
        api.ok(admin, "updateConfiguration", name="expunge.delay")
        assert value_in(api.database) == value_in(other) == 86400
    finally:
        other.dispose()


def test_a_change_is_seen_inside_its_own_unit_of_work_and_forgotten_when_it_fails(db: Database) -> None:
    assert value_in(db) == 86400
    with pytest.raises(RuntimeError), db.write() as tx:
        config.change(tx, config.keys.expunge_delay, "5", user_id=2)
        assert config.value(tx, config.keys.expunge_delay) == 5
        raise RuntimeError
    assert value_in(db) == 86400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("expunge.delay", "soon"),
        ("expunge.delay", "-1"),
        ("default.page.size", "0"),
        ("cpu.overprovisioning.factor", "0.5"),
        ("cpu.overprovisioning.factor", "nan"),
        ("cpu.capacity.threshold", "1.5"),
        ("check.pod.cidrs", "perhaps"),
        ("vm.allocation.algorithm", "best"),
        ("integration.api.port", "70000"),
        ("no.such.setting", "1"),
        ("proxy.cidr", "192.0.2.0/33"),
        ("proxy.cidr", "10.0.0.0/8,"),
        ("secstorage.allowed.internal.sites", "localhost"),
        ("guest.domain.suffix", "x\nserver=/#/192.0.2.1"),
        ("user.authenticators.order", ","),
        ("user.authenticators.order", "local,kerberos"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_refused(api: Api, admin: Person, name: str, value: str) -> None:
    assert api.error(admin, "updateConfiguration", name=name, value=value)[0] == 431
    with api.database.read() as tx:
        assert tx.all(setting.select().where(setting.c.name == name)) == []


def test_who_changed_what_is_kept_but_not_the_values_of_secrets(api: Api, admin: Person) -> None:
    api.ok(admin, "updateConfiguration", name="expunge.delay", value="60")
    told = api.ok(admin, "updateConfiguration", name="alert.smtp.password", value="canary-secret")
    listed = api.call(admin, "listConfigurations", pagesize=-1).text
    events = api.call(admin, "listEvents").text
    with api.database.read() as tx:
        history = tx.all(setting_change.select())
    assert [(row["name"], row["old_value"], row["new_value"], row["user_id"]) for row in history] == [
        ("expunge.delay", None, "60", 2),
        ("alert.smtp.password", None, None, 2),
    ]
    assert "canary-secret" not in str(told) + listed + events + str(history)


def test_administrators_see_who_changed_what_and_when(api: Api, admin: Person, clock: FakeClock) -> None:
    deputy = api.person("deputy", kind=1)
    api.ok(admin, "updateConfiguration", name="expunge.delay", value="60")
    clock.advance(86400)
    api.ok(deputy, "updateConfiguration", name="expunge.delay", value="90")
    api.ok(admin, "updateConfiguration", name="alert.smtp.password", value="canary-secret")
    api.ok(deputy, "updateConfiguration", name="expunge.delay")
    told = api.ok(admin, "listConfigurationChanges")
    assert (told["count"], "canary" in str(told)) == (4, False)
    seen = [
        (one["name"], one.get("oldvalue"), one.get("newvalue"), one["username"], one["account"])
        for one in told["configurationchange"]
    ]
    assert seen == [
        ("expunge.delay", "90", None, "deputy", "deputy"),
        ("alert.smtp.password", None, None, "admin", "admin"),
        ("expunge.delay", "60", "90", "deputy", "deputy"),
        ("expunge.delay", None, "60", "admin", "admin"),
    ]
    first = told["configurationchange"][-1]["changed"]
    narrowed = {
        "name": ({"name": "alert.smtp.password"}, 1),
        "keyword": ({"keyword": "EXPUNGE"}, 3),
        "end": ({"enddate": first}, 1),
        "start": ({"startdate": "2999-01-01"}, 0),
        "page": ({"page": 2, "pagesize": 3}, 4),
    }
    for why, (params, count) in narrowed.items():
        assert api.ok(admin, "listConfigurationChanges", **params).get("count", 0) == count, why
    assert api.error(admin, "listConfigurationChanges", name="no.such.setting")[0] == 431


def test_hidden_settings_are_not_listed(api: Api, admin: Person) -> None:
    names = {one["name"] for one in api.ok(admin, "listConfigurations", pagesize=-1)["configuration"]}
    assert "expunge.delay" in names
    assert "security.singlesignon.key" not in names


def test_settings_without_effect_say_so(api: Api, admin: Person) -> None:
    (told,) = api.ok(admin, "listConfigurations", name="xapiwait")["configuration"]
    assert told["description"].endswith("(accepted, without effect)")
    (told,) = api.ok(admin, "listConfigurations", name="expunge.delay")["configuration"]
    assert "without effect" not in told["description"]


def test_settings_are_listed_by_category_and_keyword(api: Api, admin: Person) -> None:
    usage = api.ok(admin, "listConfigurations", category="Account Defaults")["configuration"]
    assert {one["category"] for one in usage} == {"Account Defaults"}
    assert len(usage) == 5
    assert all(
        "expunge" in one["name"] for one in api.ok(admin, "listConfigurations", keyword="expunge")["configuration"]
    )


@pytest.mark.parametrize("key", config.every.values(), ids=lambda key: key.name)
def test_every_default_is_a_value_its_setting_may_have(key: config.Key[bool]) -> None:
    if key.default_text:
        assert key.read(key.default_text) == key.default
    assert key.description


ADDED = {"category": "advanced", "component": "tool", "instance": "DEFAULT"}


def test_a_setting_of_ones_own_is_kept_listed_and_changed(api: Api, admin: Person) -> None:
    told = api.ok(admin, "createConfiguration", name="our.tool", value="a", description="of ours", **ADDED)
    assert told["configuration"] == {
        "category": "Advanced",
        "name": "our.tool",
        "value": "a",
        "defaultvalue": "a",
        "description": "of ours",
    }
    api.ok(admin, "updateConfiguration", name="our.tool", value="b")
    (listed,) = api.ok(admin, "listConfigurations", category="Advanced", keyword="our.t")["configuration"]
    assert (listed["value"], listed["defaultvalue"]) == ("b", "a")
    api.ok(admin, "createConfiguration", name="our.other", **ADDED | {"category": "Tools"})
    assert [one["name"] for one in api.ok(admin, "listConfigurations", category="tools")["configuration"]] == [
        "our.other"
    ]
    api.ok(admin, "updateConfiguration", name="our.tool")
    changes = api.ok(admin, "listConfigurationChanges", name="our.tool")["configurationchange"]
    assert [one.get("newvalue") for one in changes] == [None, "b"]


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": "expunge.delay"}, "updateConfiguration"),
        ({"name": "our.tool"}, "updateConfiguration"),
        ({"name": "Our Tool"}, "name"),
        ({"name": "a..b"}, "name"),
        ({"category": "Hidden"}, "category"),
        ({"component": " x"}, "component"),
        ({"instance": "\t"}, "instance"),
        ({"value": "v" * 4097}, "value"),
    ],
)
def test_what_makes_no_setting_is_refused(api: Api, admin: Person, wrong: dict[str, str], parameter: str) -> None:
    api.ok(admin, "createConfiguration", name="our.tool", **ADDED)
    code, text = api.error(admin, "createConfiguration", **{"name": "another", **ADDED, **wrong})
    assert (code, parameter in text) == (431, True), text
    assert api.ok(admin, "listConfigurations", name="another") == {}
