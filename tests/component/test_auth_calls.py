"""Who is let in: signatures, sessions, origins, the integration port."""

import pytest
from api_client import HOST, PASSWORD, Api, Person

from pileus.server.api.signing import sign
from pileus.server.db.tables.account import account, login_failure, session, users
from pileus.testing.clock import FakeClock

REFUSED = "unable to verify user credentials and/or request signature"


def signed(who: Person, secret: str | None = None, **params: str) -> dict[str, str]:
    sent = {"command": "listEvents", "response": "json", "apikey": who.api_key, **params}
    return {**sent, "signature": sign(sent, secret or who.secret_key)}


def test_a_wrong_key_a_wrong_secret_and_no_signature_are_told_alike(api: Api, admin: Person) -> None:
    nobody = Person("x", "", "", "no-such-key", "secret")
    unsigned = {"command": "listEvents", "response": "json", "apikey": admin.api_key}
    answers = [
        api.send("GET", signed(nobody)),
        api.send("GET", signed(admin, "wrong")),
        api.send("GET", unsigned),
        api.send("GET", {"command": "listEvents", "response": "json"}),
        api.send("GET", {**unsigned, "apikey": ""}),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["listeventsresponse"]["errortext"] for answer in answers} == {REFUSED}


def test_parameter_names_in_any_case_are_signed_as_they_are_sent(api: Api, admin: Person) -> None:
    sent = {"Command": "listEvents", "Response": "json", "apiKey": admin.api_key, "pageSize": "5", "page": "1"}
    answer = api.send("GET", {**sent, "Signature": sign(sent, admin.secret_key)})
    assert answer.status_code == 200


def test_an_expired_call_is_refused(api: Api, admin: Person, clock: FakeClock) -> None:
    past = {"signatureversion": "3", "expires": "2001-01-01T00:00:00+0000"}
    future = {"signatureversion": "3", "expires": "2999-01-01T00:00:00+0000"}
    assert api.send("GET", signed(admin, **past)).status_code == 401
    assert api.send("GET", signed(admin, signatureversion="3")).status_code == 401
    assert api.send("GET", signed(admin, **future)).status_code == 200


@pytest.mark.parametrize(
    ("table", "state"), [(users, "disabled"), (users, "locked"), (account, "disabled"), (account, "locked")]
)
def test_keys_of_the_disabled_and_the_locked_open_nothing(api: Api, admin: Person, table: object, state: str) -> None:
    someone = api.person("someone")
    assert api.call(someone, "listEvents").status_code == 200
    uuid = someone.user_id if table is users else someone.account_id
    with api.database.write() as tx:
        tx.execute(table.update().where(table.c.uuid == uuid).values(state=state))  # type: ignore[attr-defined]
    assert api.call(someone, "listEvents").status_code == 401
    assert api.login("someone").status_code == 531


def test_new_keys_end_the_old_ones(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    api.ok(admin, "registerUserKeys", id=someone.user_id)
    assert api.call(someone, "listEvents").status_code == 401


def test_the_system_account_cannot_be_used(api: Api, admin: Person) -> None:
    with api.database.write() as tx:
        tx.execute(users.update().where(users.c.id == 1).values(api_key="system-key", secret_key="s"))
    assert api.call(Person("system", "", "", "system-key", "s"), "listEvents").status_code == 401
    assert api.login("system", "").status_code in (431, 531)
    assert api.error(admin, "registerUserKeys", id=1)[0] == 531


def logged_in(api: Api, username: str = "admin") -> tuple[str, str]:
    answer = api.login(username)
    assert answer.status_code == 200, answer.text
    token = answer.headers["set-cookie"].split(";")[0].split("=", 1)[1]
    return token, answer.json()["loginresponse"]["sessionkey"]


def in_session(api: Api, token: str, key: str, command: str = "listEvents", **headers: str) -> int:
    params = {"command": command, "response": "json", "sessionkey": key}
    cookies = {"Cookie": f"other=1; JSESSIONID={token}", **headers}
    return api.send("GET", params, headers=cookies).status_code


def test_a_login_opens_a_session_with_a_safe_cookie(api: Api, admin: Person) -> None:
    answer = api.login("admin")
    body = answer.json()["loginresponse"]
    assert (body["username"], body["account"], body["type"]) == ("admin", "admin", "1")
    assert {"userid", "domainid", "sessionkey", "timeout", "firstname", "lastname"} <= set(body)
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("JSESSIONID=", "HttpOnly", "SameSite=Lax", "Path=/client"))
    token, key = logged_in(api)
    assert in_session(api, token, key) == 200
    with api.database.read() as tx:
        stored = str(tx.all(session.select()))
    assert token not in stored
    assert key not in stored


def test_a_login_tells_how_far_the_users_clock_is_ahead(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    assert "timezoneoffset" not in api.login("someone").json()["loginresponse"]
    for timezone, hours in (("Asia/Kolkata", "5.5"), ("Etc/GMT+12", "-12.0"), ("Etc/UTC", "0.0")):
        api.ok(admin, "updateUser", id=someone.user_id, timezone=timezone)
        told = api.login("someone").json()["loginresponse"]
        assert (told["timezone"], told["timezoneoffset"]) == (timezone, hours)


def test_a_login_by_get_is_405(api: Api, admin: Person) -> None:
    params = {"command": "login", "username": "admin", "password": PASSWORD, "response": "json"}
    assert api.send("GET", params).status_code == 405


def test_a_bad_login_is_531_whatever_was_wrong(api: Api, admin: Person) -> None:
    api.person("someone")
    answers = [
        api.login("admin", "wrong"),
        api.login("nobody"),
        api.login("someone", domain="/elsewhere"),
        api.login("someone", domainid="4711"),
    ]
    assert {answer.status_code for answer in answers} == {531}
    assert len({answer.json()["loginresponse"]["errortext"] for answer in answers}) == 1


def test_a_session_needs_its_key_and_ends_without_it(api: Api, admin: Person) -> None:
    token, key = logged_in(api)
    assert in_session(api, token, "") == 401
    assert in_session(api, token, key) == 401


def test_a_wrong_session_key_ends_the_session(api: Api, admin: Person) -> None:
    token, key = logged_in(api)
    assert in_session(api, token, "wrong") == 401
    assert in_session(api, token, key) == 401


def test_logout_ends_a_session_at_once(api: Api, admin: Person) -> None:
    token, key = logged_in(api)
    answer = api.send("POST", {"command": "logout", "response": "json"}, headers={"Cookie": f"JSESSIONID={token}"})
    assert answer.json() == {"logoutresponse": {"description": "success"}}
    assert in_session(api, token, key) == 401


def test_disabling_a_user_ends_its_sessions_at_once(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    token, key = logged_in(api, "someone")
    assert in_session(api, token, key) == 200
    api.ok(admin, "disableUser", id=someone.user_id)
    assert in_session(api, token, key) == 401


def test_a_new_password_ends_sessions_and_the_old_password(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    token, key = logged_in(api, "someone")
    api.ok(admin, "updateUser", id=someone.user_id, password="another one")
    assert in_session(api, token, key) == 401
    assert api.login("someone").status_code == 531
    assert api.login("someone", "another one").status_code == 200


def test_an_idle_session_ends_and_a_used_one_lasts(api: Api, admin: Person, clock: FakeClock) -> None:
    token, key = logged_in(api)
    for _ in range(4):
        clock.advance(1000)
        assert in_session(api, token, key) == 200
    clock.advance(1801)
    assert in_session(api, token, key) == 401


def test_a_session_ends_in_the_end_however_much_it_is_used(api: Api, admin: Person, clock: FakeClock) -> None:
    api.ok(admin, "updateConfiguration", name="session.length", value="2000")
    token, key = logged_in(api)
    clock.advance(1500)
    assert in_session(api, token, key) == 200
    clock.advance(600)
    assert in_session(api, token, key) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Referer": "http://evil.test/page"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_sites_calls_are_refused(api: Api, admin: Person, headers: dict[str, str]) -> None:
    token, key = logged_in(api)
    assert in_session(api, token, key, **headers) == 401
    data = {"command": "login", "username": "admin", "password": PASSWORD, "response": "json"}
    assert api.send("POST", data=data, headers=headers).status_code == 401
    assert in_session(api, token, key) == 200


def test_our_own_origin_and_those_allowed_are_good(api: Api, admin: Person) -> None:
    token, key = logged_in(api)
    assert in_session(api, token, key, Origin=f"http://{HOST}") == 200
    assert in_session(api, token, key, Origin="https://ui.example.org") == 401
    api.ok(admin, "updateConfiguration", name="api.allowed.origins", value="https://ui.example.org/")
    assert in_session(api, token, key, Origin="https://ui.example.org") == 200


def test_a_session_call_without_a_command_is_400_and_with_an_unknown_one_432(api: Api, admin: Person) -> None:
    token, key = logged_in(api)
    cookie = {"Cookie": f"JSESSIONID={token}"}
    assert api.send("GET", {"sessionkey": key}, headers=cookie).status_code == 400
    assert in_session(api, token, key, "doNothing") == 432


def test_failed_logins_are_bounded_per_user(api: Api, admin: Person, clock: FakeClock) -> None:
    for n in range(5):
        assert (
            api.login(
                "admin",
                f"guess {n}",
            ).status_code
            == 531
        )
    assert api.login("admin").status_code == 531
    clock.advance(301)
    assert api.login("admin").status_code == 200


def test_failed_logins_are_events_of_the_account_that_was_tried(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    for _ in range(7):
        api.login("someone", "canary-password")
    api.login("canary-typed-as-a-name", "x")
    mine = api.ok(someone, "listEvents", type="USER.LOGIN.FAILED")
    assert mine["count"] == 5
    assert {(one["level"], one["username"]) for one in mine["event"]} == {("WARN", "someone")}
    assert "192.0.2.7" in mine["event"][0]["description"]
    assert api.ok(admin, "listEvents", type="USER.LOGIN.FAILED") == {}
    told = api.call(admin, "listEvents", listall=True).text
    assert "not there" in told
    assert "canary" not in told


def test_failed_logins_are_bounded_per_address_not_by_what_a_client_says_it_is(api: Api, admin: Person) -> None:
    api.ok(admin, "updateConfiguration", name="incorrect.login.attempts.allowed", value="1")

    def attempt(name: str, told: str, client: str = "198.51.100.1") -> str:
        data = {"command": "login", "username": name, "password": "x", "response": "json"}
        answer = api.send("POST", data=data, headers={"X-Forwarded-For": told}, client=client)
        return str(answer.json()["loginresponse"]["errortext"])

    for n in range(4):
        assert "authenticate" in attempt(f"user{n}", f"203.0.113.{n}")
    assert "too many" in attempt("user9", "203.0.113.9")
    api.ok(admin, "updateConfiguration", name="proxy.cidr", value="198.51.100.0/24")
    assert "authenticate" in attempt("user10", "203.0.113.10")


def test_successful_logins_do_not_count_against_an_address(api: Api, admin: Person) -> None:
    for _ in range(6):
        assert api.login("admin").status_code == 200
    with api.database.read() as tx:
        assert [row["failures"] for row in tx.all(login_failure.select())] in ([], [0])


def test_at_the_integration_port_the_caller_is_the_administrator_and_sees_everything(api: Api, admin: Person) -> None:
    api.person("someone")
    for path in ("/", "/client/api", "/anything/at/all"):
        answer = api.send("GET", {"command": "listAccounts", "response": "json"}, path=path, integration=True)
        assert {one["name"] for one in answer.json()["listaccountsresponse"]["account"]} == {"admin", "someone"}


def test_the_integration_port_answers_no_browser_of_another_site(api: Api) -> None:
    for headers in ({"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = api.send("GET", {"command": "listAccounts"}, integration=True, headers=headers)
        assert answer.status_code == 401


def test_the_integration_port_refuses_broken_escapes_and_login(api: Api) -> None:
    assert api.send("GET", url="/?command=listZones&name=%zz", integration=True).status_code == 431
    assert api.send("POST", {"command": "login", "username": "a", "password": "b"}, integration=True).status_code == 432
