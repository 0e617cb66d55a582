"""Envelopes, lists, errors and paging of the query API, in JSON and XML."""

from xml.etree import ElementTree

import pytest
from api_client import Api, Person
from structlog.testing import capture_logs

from pileus.server.api.command import registry
from pileus.server.services import configuration


def test_an_empty_list_is_an_empty_object(api: Api, admin: Person) -> None:
    assert api.call(admin, "listZones").json() == {"listzonesresponse": {}}


def test_a_list_has_its_count_and_its_object_name(api: Api, admin: Person) -> None:
    body = api.call(admin, "listConfigurations", name="expunge.delay").json()
    assert body["listconfigurationsresponse"]["count"] == 1
    assert body["listconfigurationsresponse"]["configuration"][0]["value"] == "86400"


def test_xml_is_the_default_and_carries_the_version(api: Api) -> None:
    answer = api.send("GET", {"command": "listConfigurations", "name": "expunge.delay"}, integration=True)
    assert answer.headers["content-type"].startswith("text/xml")
    root = ElementTree.fromstring(answer.content)
    assert root.tag == "listconfigurationsresponse"
    assert root.attrib["cloud-stack-version"].startswith("2.2")
    assert root.findtext("configuration/value") == "86400"


def test_json_is_told_as_json(api: Api, admin: Person) -> None:
    assert api.call(admin, "listZones").headers["content-type"] == "application/json; charset=UTF-8"


def test_html_in_names_stays_text(api: Api, admin: Person) -> None:
    name = "<script>alert('x')</script>&\""
    made = api.ok(admin, "createDomain", name=name.replace("/", "|"))["domain"]
    assert made["name"] == name.replace("/", "|")
    answer = api.send("GET", {"command": "listDomains", "id": made["id"]}, integration=True)
    assert "<script>" not in answer.text
    assert ElementTree.fromstring(answer.content).findtext("domain/name") == name.replace("/", "|")


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({}, 431, "Unable to execute API command deletedomain due to missing parameter id"),
        ({"idd": "1"}, 431, "idd looks like a misspelt id"),
        ({"id": "no-such-domain"}, 431, "due to invalid value no-such-domain for parameter id"),
        ({"id": "4711"}, 431, "there is no domain '4711'"),
        ({"id": "-1"}, 431, "there is no domain '-1'"),
    ],
)
def test_bad_parameters_are_named(api: Api, admin: Person, params: dict[str, str], code: int, text: str) -> None:
    answer = api.call(admin, "deleteDomain", **params)
    body = answer.json()["deletedomainresponse"]
    assert (answer.status_code, body["errorcode"], body["cserrorcode"]) == (code, code, 4350)
    assert text in body["errortext"]
    assert answer.headers["x-description"] == body["errortext"]
    assert body["uuidList"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"page": "abc", "pagesize": "1"}, 431),
        ({"page": "1"}, 431),
        ({"pagesize": "10"}, 431),
        ({"page": "0", "pagesize": "10"}, 431),
        ({"page": "-1", "pagesize": "10"}, 431),
        ({"page": "1", "pagesize": "0"}, 431),
        ({"page": "1", "pagesize": "501"}, 431),
        ({"page": "1", "pagesize": "-1"}, 431),
    ],
)
def test_bad_paging_is_refused(api: Api, admin: Person, params: dict[str, str], code: int) -> None:
    assert api.error(admin, "listConfigurations", **params)[0] == code


def test_pages_do_not_overlap_and_count_all(api: Api, admin: Person) -> None:
    pages = [api.ok(admin, "listConfigurations", page=n, pagesize=50) for n in (1, 2, 3, 4, 5, 6)]
    names = [one["name"] for page in pages for one in page.get("configuration", [])]
    assert len(names) == len(set(names)) == pages[0]["count"]
    assert pages[-1] == {"count": pages[0]["count"]}


def test_a_page_size_of_minus_one_alone_asks_for_everything(api: Api, admin: Person) -> None:
    api.ok(admin, "updateConfiguration", name="default.page.size", value="3")
    assert len(api.ok(admin, "listConfigurations")["configuration"]) == 3
    everything = api.ok(admin, "listConfigurations", pagesize=-1)
    assert len(everything["configuration"]) == everything["count"] > 200


def test_a_malformed_map_is_430(api: Api, admin: Person) -> None:
    assert api.error(admin, "listZones", **{"details[0": "1"})[0] == 430


def test_a_fault_of_ours_tells_a_reference_and_no_more(
    api: Api, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("secret inner thing")

    monkeypatch.setattr(configuration, "list_page", broken)
    with capture_logs() as logs:
        code, text = api.error(admin, "listConfigurations")
    assert code == 530
    assert "secret inner thing" not in text
    (logged,) = [line for line in logs if line.get("log_level") == "error"]
    assert logged["reference"] in text


def test_no_parameters_at_all_is_432_in_errorresponse(api: Api) -> None:
    answer = api.send("GET")
    assert answer.status_code == 432
    assert ElementTree.fromstring(answer.content).tag == "errorresponse"


def test_an_unknown_command_is_told_by_who_asks(api: Api, admin: Person) -> None:
    signed = api.call(admin, "doNothing")
    assert (signed.status_code, list(signed.json())) == (401, ["errorresponse"])
    port = api.send("GET", {"command": "doNothing", "response": "json"}, integration=True)
    assert (port.status_code, list(port.json())) == (432, ["errorresponse"])


def test_parameters_are_read_from_query_and_form_together(api: Api) -> None:
    answer = api.send(
        "POST", {"command": "listConfigurations"}, data={"name": "wait", "response": "json"}, integration=True
    )
    assert answer.json()["listconfigurationsresponse"]["count"] == 1


def test_a_parameter_with_two_values_is_refused(api: Api) -> None:
    answer = api.send("GET", url="/client/api?command=listZones&name=a&NAME=b&response=json")
    assert answer.status_code == 431


def test_other_methods_are_refused(api: Api) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert api.send(method, {"command": "listZones"}).status_code == 405


def test_a_form_larger_than_any_call_is_refused(api: Api) -> None:
    answer = api.send("POST", data={"command": "login", "username": "x" * 1_100_000, "response": "json"})
    assert answer.status_code == 431


def test_answers_are_not_kept_nor_sniffed(api: Api, admin: Person) -> None:
    headers = api.call(admin, "listZones").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_unknown_parameters_are_ignored_and_named_in_the_log(api: Api, admin: Person) -> None:
    with capture_logs() as logs:
        api.ok(admin, "listZones", nonsense="very secret")
    assert any(line.get("names") == ["nonsense"] for line in logs)
    assert "very secret" not in str(logs)


def test_every_command_is_in_list_apis_with_descriptions(api: Api, admin: Person) -> None:
    told = {one["name"]: one for one in api.ok(admin, "listApis")["api"]}
    assert set(told) == set(registry)
    for name, one in told.items():
        assert one["isasync"] is registry[name].job
        texts = [one["description"], *(f["description"] for f in [*one.get("params", []), *one["response"]])]
        assert all(text and "\n" not in text and not text.endswith('"') for text in texts), name


def test_list_apis_tells_only_what_the_caller_may_call(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    told = {one["name"] for one in api.ok(someone, "listApis")["api"]}
    assert "listEvents" in told
    assert "updateConfiguration" not in told
    assert api.error(someone, "updateConfiguration", name="wait", value="1")[0] == 401
    assert api.error(someone, "listApis", name="updateConfiguration")[0] == 431


def test_openapi_has_a_path_for_every_command_that_can_be_called(api: Api, admin: Person) -> None:
    document = api.send("GET", path="/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {f"/{name}" for name in registry}
    answer = api.send("GET", path="/client/api/listZones")
    assert ElementTree.fromstring(answer.content).tag == "listzonesresponse"
    assert answer.status_code == 401


def test_capabilities_are_told(api: Api, admin: Person) -> None:
    told = api.ok(admin, "listCapabilities")["capability"]
    assert told["cloudstackversion"].startswith("2.2")
    assert told["userpublictemplateenabled"] is True
