"""Flaws that systems of this kind really had (numbers are CVE ids), and the tests that show they are not here.

Rows on consoles, backups and source CIDRs of rules join the table with the features they concern.
"""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest
from api_client import HOST, Api, Person

from pileus.server.api.app import create_app
from pileus.server.api.command import Params, Response, ResponseField, SuccessResponse, command, registry
from pileus.server.db.tables.template import template
from pileus.server.domain.account import Role
from pileus.server.registered import register_all
from pileus.testing.world import World

TESTS = Path(__file__).parent.parent
SOURCE = TESTS.parent / "src" / "pileus"

MATRIX = (
    "component/test_role_matrix.py::test_no_id_of_another_tenant_gets_anybody_anything",
    "component/test_role_matrix.py::test_no_list_shows_another_tenant_whatever_filter_is_given",
)
FLAWS: dict[str, tuple[str, ...]] = {
    "2012-4501": (
        "component/test_auth_calls.py::test_the_system_account_cannot_be_used",
        "component/test_first_start.py::test_the_administrator_gets_a_password_that_only_its_owner_can_read",
    ),
    "2012-5616": (
        "component/test_secrets.py::test_secrets_are_nowhere_but_in_the_answer_that_tells_them",
        "component/test_secrets.py::test_a_database_error_tells_no_values",
        "component/test_authenticators.py::test_the_password_of_the_directory_is_told_nowhere",
    ),
    "2013-2136": ("component/test_security.py::test_markup_in_a_name_comes_back_as_text_and_no_browser_runs_it",),
    "2013-4317, 2014-0031, 2024-42222, 2025-30675, 2025-59454, 2025-66170": MATRIX,
    "2014-7807": ("component/test_authenticators.py::test_an_empty_password_is_refused_before_any_bind",),
    "2014-9593, 2015-3251, 2024-42062, 2025-47849": (
        "component/test_security.py::test_no_answer_has_a_field_for_a_secret_but_those_that_tell_it_once",
        "component/test_security.py::test_no_list_tells_a_guests_password_nor_a_user_the_token_of_a_zone",
        "component/test_account_and_user.py::test_secrets_are_told_once_and_never_listed",
    ),
    "2016-6813, 2025-47713": (
        "component/test_account_and_user.py::test_no_one_may_grant_or_touch_more_privileges_than_their_own",
    ),
    "2019-17562": (
        "component/test_hosts_enrolment.py::test_requests_that_make_no_sense_get_a_short_no",
        "component/test_fuzz.py::test_a_command_answers_anything_with_grace",
    ),
    "2022-26779": ("component/test_security.py::test_no_predictable_chance_and_no_user_text_is_ever_run",),
    "2022-35741": ("component/test_security.py::test_the_server_and_its_appliances_read_no_xml_from_outside",),
    "2024-29006": (
        "component/test_auth_calls.py::test_failed_logins_are_bounded_per_address_not_by_what_a_client_says_it_is",
    ),
    "2024-29007": (
        "component/test_secondary_storage.py::test_a_redirect_to_an_internal_address_is_refused",
        "component/test_secondary_storage.py::test_a_name_is_resolved_once_and_the_checked_address_is_what_is_connected_to",
        "component/test_secondary_storage.py::test_loopback_is_refused_unless_it_is_allowed",
        "component/test_secondary_storage.py::test_a_redirect_to_another_scheme_is_refused",
        "unit/test_storage_addresses.py::test_internal_addresses_are_refused_in_every_spelling",
    ),
    "2024-38346, 2024-39864": (
        "component/test_first_start.py::test_a_server_listens_where_it_says_and_nowhere_else",
        "component/test_first_start.py::test_the_integration_port_opens_on_loopback_only_when_it_is_set",
        "component/test_hosts_enrolment.py::test_without_a_certificate_there_is_no_websocket",
    ),
    "2024-45219, 2024-50386": (
        "component/test_secondary_storage.py::test_an_image_that_refers_to_another_file_is_refused",
    ),
    "2024-45461, 2025-22829": ("component/test_security.py::test_a_command_without_roles_cannot_be_registered",),
    "2024-45462": (
        "component/test_security.py::test_a_session_that_ends_on_one_server_has_ended_on_all",
        "component/test_auth_calls.py::test_logout_ends_a_session_at_once",
        "component/test_auth_calls.py::test_disabling_a_user_ends_its_sessions_at_once",
    ),
    "2024-45693": (
        "component/test_auth_calls.py::test_another_sites_calls_are_refused",
        "component/test_auth_calls.py::test_a_session_needs_its_key_and_ends_without_it",
        "component/test_security.py::test_without_the_key_a_session_changes_nothing",
    ),
    "2025-22828, 2025-66171, 2025-66172": MATRIX,
    "2025-59302, 2026-25077": ("component/test_security.py::test_no_predictable_chance_and_no_user_text_is_ever_run",),
    "2025-66467": (
        "component/test_account_and_user.py::test_a_deleted_account_is_gone_and_its_names_are_free_without_its_power",
        "component/test_security.py::test_keys_and_sessions_of_a_deleted_user_open_nothing_when_its_name_is_used_again",
    ),
    "2025-69233": ("component/test_count.py::test_fifty_at_once_never_pass_a_limit_of_ten",),
}

TOLD_ONCE = {("registerUserKeys", "apikey"), ("registerUserKeys", "secretkey"), ("login", "sessionkey")}
"""Commands whose answer is a secret that no other tells."""

TOLD_TO_SOME = {"password", "zonetoken", "privatekey"}
"""Fields of things, filled only in the answer that makes the secret, or for administrators only."""

NO_SECRETS = {"passwordenabled"}
"""Fields that only sound like secrets."""

_SOUNDS_SECRET = ("password", "secret", "apikey", "token", "privatekey", "sessionkey")


def test_every_test_that_a_flaw_is_answered_by_is_there() -> None:
    missing = []
    for flaw, named in FLAWS.items():
        for name in named:
            file, _, function = name.partition("::")
            tree = ast.parse((TESTS / file).read_text())
            functions = {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            if function not in functions:
                missing.append(f"{flaw}: {name}")
    assert missing == []


def test_markup_in_a_name_comes_back_as_text_and_no_browser_runs_it(api: Api, admin: Person) -> None:
    name = "<script>alert(1)</script>&\"'"
    api.ok(admin, "createServiceOffering", name="o", displaytext=name, cpunumber=1, cpuspeed=500, memory=128)
    listed = api.call(admin, "listServiceOfferings", name="o")
    assert listed.json()["listserviceofferingsresponse"]["serviceoffering"][0]["displaytext"] == name
    as_xml = api.call(admin, "listServiceOfferings", name="o", response="xml")
    assert "<script>" not in as_xml.text
    assert ElementTree.fromstring(as_xml.content).findtext("serviceoffering/displaytext") == name
    for answer in (listed, as_xml, api.call(admin, "listZones", id=name)):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].split(";")[0] in ("application/json", "text/xml")


def test_no_answer_has_a_field_for_a_secret_but_those_that_tell_it_once() -> None:
    register_all()
    found = {
        (name, field)
        for name, spec in registry.items()
        for field in _fields(spec.returns.fields)
        if any(word in field for word in _SOUNDS_SECRET) and field not in NO_SECRETS | TOLD_TO_SOME
    }
    # Encrypted for the holder of a key, which is what this command is for.
    assert found - {("getVMPassword", "encryptedpassword")} == TOLD_ONCE


def test_no_list_tells_a_guests_password_nor_a_user_the_token_of_a_zone(world: World, api: Api, admin: Person) -> None:
    cloud = world.cloud(hosts=1)
    someone = api.person("someone")
    with world.db.write() as tx:
        tx.execute(template.update().values(password_enabled=1))
    sent = {"zoneid": cloud.zone, "serviceofferingid": cloud.offering, "templateid": cloud.template}
    started = api.ok(someone, "deployVirtualMachine", **sent)
    world.settle()
    done = api.ok(someone, "queryAsyncJobResult", jobid=started["jobid"])
    secret = done["jobresult"]["virtualmachine"]["password"]
    assert len(secret) >= 6
    for who in (someone, admin):
        listed_all = api.call(who, "listVirtualMachines", listall=True)
        assert started["id"] in listed_all.text
        for answer in (
            listed_all,
            api.call(who, "listEvents", listall=True),
            api.call(who, "listAsyncJobs", listall=True),
        ):
            assert secret not in answer.text
    assert "zonetoken" in api.call(admin, "listZones").text
    assert "zonetoken" not in api.call(someone, "listZones").text


def test_no_predictable_chance_and_no_user_text_is_ever_run() -> None:
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        if {"testing", "sandbox", "simulator"} & set(file.parts):
            continue
        text = file.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords)
                if name in ("eval", "exec", "os.system", "os.popen", "pickle.loads", "asyncio.create_subprocess_shell"):
                    wrong.append(f"{file.name}:{node.lineno} {name}")
                if shell and "subprocess" in name:
                    wrong.append(f"{file.name}:{node.lineno} a shell")
            modules = _imported(node)
            if "random" in modules and "# jitter" not in text:
                wrong.append(f"{file.name}: random")
    assert wrong == []


def test_the_server_and_its_appliances_read_no_xml_from_outside() -> None:
    readers = {
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if "testing" not in file.parts
        and any(
            _imported(node) & {"xml", "lxml", "defusedxml", "xmltodict"}
            for node in ast.walk(ast.parse(file.read_text()))
        )
    }
    # What libvirt says of its own domains is the only XML that is read.
    assert {name for name in readers if not name.startswith("agent/backends/kvm/")} == set()


def test_a_command_without_roles_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match="declares no roles"):
        command("doAnything", roles=Role(0), returns=SuccessResponse)

    class Nothing(Response, name="nothing"):
        pass

    class NoRun(Params):
        """Has a description, and nothing to run."""

    with pytest.raises(TypeError):
        command("doAnything", returns=Nothing)(NoRun)  # type: ignore[call-arg]
    assert "doAnything" not in registry


def opened(api: Api, name: str) -> tuple[str, str]:
    answer = api.login(name)
    assert answer.status_code == 200, answer.text
    return answer.headers["set-cookie"].split(";")[0].partition("=")[2], answer.json()["loginresponse"]["sessionkey"]


def listed(api: Api, token: str, key: str) -> int:
    params = {"command": "listEvents", "response": "json", "sessionkey": key}
    return api.send("GET", params, headers={"Cookie": f"JSESSIONID={token}", "Host": HOST}).status_code


def test_a_session_that_ends_on_one_server_has_ended_on_all(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    other = Api(api.database)
    other.app.close()
    other.app = create_app(api.database)
    try:
        token, key = opened(api, "someone")
        assert listed(other, token, key) == 200
        other.send("POST", {"command": "logout"}, headers={"Cookie": f"JSESSIONID={token}"})
        assert listed(api, token, key) == 401
        for ending in ("disableUser", "lockUser"):
            api.ok(admin, "enableUser", id=someone.user_id)
            token, key = opened(other, "someone")
            assert listed(api, token, key) == 200
            api.ok(admin, ending, id=someone.user_id)
            assert listed(other, token, key) == 401
            assert other.call(someone, "listEvents").status_code == 401
        api.ok(admin, "enableUser", id=someone.user_id)
        assert other.call(someone, "listEvents").status_code == 200
        api.ok(admin, "registerUserKeys", id=someone.user_id)
        assert other.call(someone, "listEvents").status_code == 401
    finally:
        other.close()


def test_without_the_key_a_session_changes_nothing(api: Api, admin: Person) -> None:
    token, _ = opened(api, "admin")
    sent = {"command": "createDomain", "name": "forged", "response": "json"}
    for method in ("GET", "POST"):
        assert api.send(method, sent, headers={"Cookie": f"JSESSIONID={token}"}).status_code == 401
    names = {one["name"] for one in api.ok(admin, "listDomains", listall=True)["domain"]}
    assert "forged" not in names


def test_keys_and_sessions_of_a_deleted_user_open_nothing_when_its_name_is_used_again(api: Api, admin: Person) -> None:
    owner = api.person("owner")
    new = {"account": "owner", "username": "guest", "firstname": "f", "lastname": "l", "email": "e@example.org"}
    first = api.ok(admin, "createUser", password="correct horse", **new)["user"]["id"]
    keys = api.ok(admin, "registerUserKeys", id=first)["userkeys"]
    former = Person("guest", owner.account_id, first, keys["apikey"], keys["secretkey"])
    token, key = opened(api, "guest")
    assert api.call(former, "listEvents").status_code == 200
    api.ok(admin, "deleteUser", id=first)
    second = api.ok(admin, "createUser", password="another horse", **new)["user"]["id"]
    assert second != first
    assert api.call(former, "listEvents").status_code == 401
    assert listed(api, token, key) == 401
    assert api.login("guest").status_code == 531
    assert api.login("guest", "another horse").status_code == 200


def _fields(fields: tuple[ResponseField, ...]) -> set[str]:
    found = {field.wire for field in fields}
    for field in fields:
        if field.nested is not None:
            found |= _fields(field.nested.fields)
    return found


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()
