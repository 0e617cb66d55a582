"""Every command as everybody, another tenant's things in every id and every filter: generated from the registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.server.api.command import Params, Response, command, param, registry
from pileus.server.api.parse import table
from pileus.server.auth import visibility
from pileus.server.domain.account import Role
from pileus.server.domain.ids import Domain
from pileus.server.registered import register_all
from pileus.testing.roles import FOREIGN, Callers, Row, id_parameters, leaks, matrix, missing, row, specs, written
from pileus.testing.tenancy import CANARY, Tenancy
from pileus.testing.world import World

COMMITTED = Path(__file__).parent / "role_matrix.txt"


@pytest.fixture(scope="module")
def callers() -> Iterator[Callers]:
    register_all()
    with World.open() as world:
        yield Callers(Tenancy.settle(world))


@pytest.fixture(scope="module")
def rows(callers: Callers) -> list[Row]:
    return matrix(callers)


def test_no_id_of_another_tenant_gets_anybody_anything(rows: list[Row]) -> None:
    assert leaks(rows) == []
    assert sum(len(each.foreign) for each in rows) > 150


def test_the_committed_matrix_is_what_the_api_does(rows: list[Row]) -> None:
    assert written(rows) == COMMITTED.read_text(), "run tools/role_matrix.py --write and review the difference"


def test_every_command_is_refused_to_strangers_and_to_roles_it_does_not_name(callers: Callers, rows: list[Row]) -> None:
    for each in rows:
        roles = registry[each.command].roles
        assert set(each.callers) == {who for who, role in callers.roles.items() if role in roles}, each.command


def test_a_command_without_a_row_is_missed() -> None:
    register_all()
    text = COMMITTED.read_text()
    assert missing(text) == []
    without = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("listVolumes "))
    assert missing(without) == ["listVolumes: no row in the role matrix"]
    assert (
        missing(text.replace("listVolumes |", "listNothing |"))[-1] == "listNothing: in the role matrix, but no command"
    )


def test_the_matrix_sees_a_hole_where_there_is_one(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "_sees", lambda *_: True)
    holed = [row(callers, registry[name]) for name in ("queryAsyncJobResult", "restartNetwork", "listTemplates")]
    found = leaks(holed)
    assert "queryAsyncJobResult jobid as user: may" in found
    assert "restartNetwork id as neighbour: may" in found


def test_a_text_that_is_called_an_id_must_say_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(Response, name="nothing"):
        pass

    monkeypatch.setattr("pileus.server.api.command.registry", {})

    @command("doSomething", roles=Role.USER, returns=Nothing, public=True)
    class DoSomething(Params):
        """Does something."""

        thing_id: str = param("a thing")

    with pytest.raises(LookupError, match="doSomething thingid"):
        id_parameters(DoSomething.spec)


def test_no_list_shows_another_tenant_whatever_filter_is_given(callers: Callers) -> None:
    theirs = callers.tenancy.theirs
    domain_id = str(theirs.user.domain_id)
    name = theirs.user.account_name
    filters: list[dict[str, str]] = [
        {},
        {"listall": "true"},
        {"domainid": domain_id},
        {"domainid": domain_id, "isrecursive": "true"},
        {"domainid": domain_id, "listall": "true"},
        {"domainid": "1", "isrecursive": "true"},
        {"domainid": "1", "listall": "true"},
        {"account": name, "domainid": domain_id},
        {"account": name},
        {"account": name, "listall": "true"},
        {"keyword": CANARY, "listall": "true"},
        {"name": f"vm-{CANARY}", "listall": "true"},
        {"name": name, "listall": "true"},
        {"state": "Running", "listall": "true"},
        {"page": "1", "pagesize": "500", "listall": "true"},
    ]
    lists = [spec for spec in specs() if spec.is_list]
    wrong = []
    shown_to_root = 0
    for spec in lists:
        known = {field.wire for field in table(spec.params)}
        extra = {"templatefilter": "executable"} if "templatefilter" in known else {}
        for who in FOREIGN:
            if callers.roles[who] not in spec.roles:
                continue
            for sent in filters:
                if not set(sent) <= known:
                    continue
                status, body = callers.send(who, spec, {**sent, **extra})
                leaked = callers.leaked(sent.values(), body)
                if leaked and not _offered(callers, who, body, leaked):
                    wrong.append(f"{spec.name} {sent} as {who}: {leaked}")
                if status not in (200, 431, 531):
                    wrong.append(f"{spec.name} {sent} as {who}: {status} {body[:200]}")
        if "listall" in known:
            shown_to_root += bool(callers.leaked((), callers.send("root", spec, {"listall": "true", **extra})[1]))
    assert wrong == []
    # The same calls do show these things to somebody who may see them.
    assert shown_to_root >= 8


def test_every_list_of_what_accounts_own_answers_to_the_same_five_parameters(callers: Callers) -> None:
    theirs = callers.tenancy.theirs
    home, name = str(theirs.user.domain_id), theirs.user.account_name
    rule: list[tuple[str, dict[str, str], bool | int]] = [
        ("root", {"listall": "true"}, True),
        ("root", {}, False),
        ("root", {"listall": "false"}, False),
        ("root", {"domainid": home}, True),
        ("root", {"domainid": "1"}, False),
        ("root", {"domainid": "1", "isrecursive": "true"}, True),
        ("root", {"account": name, "domainid": home}, True),
        ("root", {"account": callers.tenancy.neighbour.account_name, "domainid": home}, False),
        ("root", {"account": name}, 431),
        ("owner-admin", {}, False),
        ("owner-admin", {"listall": "true"}, True),
        ("owner-admin", {"account": name}, True),
        ("owner-admin", {"domainid": home}, True),
        ("owner-admin", {"domainid": "1"}, 531),
        ("owner", {}, True),
        ("owner", {"listall": "true"}, True),
        ("neighbour", {"listall": "true"}, False),
        ("neighbour", {"account": name}, 531),
    ]
    followed, wrong = [], []
    for spec in specs():
        known = {field.wire for field in table(spec.params)}
        # Templates are listed by a filter of their own.
        if not spec.is_list or "listall" not in known or "templatefilter" in known or spec.returns.kind is Domain:
            continue
        if not callers.leaked((), callers.send("root", spec, {"listall": "true"})[1]):
            continue
        followed.append(spec.name)
        mine = {"id": theirs.things[spec.returns.kind]} if spec.returns.kind and "id" in known else {}
        by_id = [(who, mine, True) for who in ("root", "owner-admin", "owner") if mine]
        for who, sent, expected in [*rule, *by_id]:
            if callers.roles[who] not in spec.roles or not set(sent) <= known:
                continue
            status, body = callers.send(who, spec, sent)
            shown = status if status != 200 else bool(callers.leaked((), body))
            if shown != expected:
                wrong.append(f"{spec.name} {sent} as {who}: {shown}, not {expected}")
    assert wrong == []
    assert {"listVirtualMachines", "listEvents", "listVolumes", "listNetworks", "listUsers"} <= set(followed)
    assert len(followed) >= 8


def _offered(callers: Callers, who: str, body: str, leaked: set[str]) -> bool:
    """Whether all that shows are the offerings and the zone of the very domain the caller belongs to."""
    if who != "neighbour" or leaked != {CANARY}:
        return False
    return all(word.startswith((f"zone-{CANARY}", f"service-{CANARY}", CANARY)) for word in _words(body))


def _words(body: str) -> list[str]:
    return [word for word in body.replace('"', " ").split() if CANARY in word]
