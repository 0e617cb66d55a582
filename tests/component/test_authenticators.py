"""Who confirms passwords: local, LDAP against a real slapd, and the MD5 that clients of API 2.2 send."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ldap
import pytest
from api_client import PASSWORD, Api, Person
from ldap_server import BASE, PEOPLE, READER, READER_PASSWORD, Slapd, slapd
from structlog.testing import capture_logs

from pileus.server.auth import directory, passwords
from pileus.server.auth.authenticators import Check, Credentials, Unavailable
from pileus.server.config import change, keys
from pileus.server.db.tables.account import users

LDAP_PASSWORD = "known to the directory"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Slapd]:
    people = [("alice", LDAP_PASSWORD, ""), ("bob", LDAP_PASSWORD, "ou=abroad")]
    twins = [("twin", LDAP_PASSWORD, ""), ("twin", LDAP_PASSWORD, "ou=abroad")]
    with slapd(tmp_path / "slapd", *people, *twins) as running:
        yield running


def configure(api: Api, admin: Person, server: Slapd, **wishes: Any) -> dict[str, Any]:
    given = {
        "hostname": "127.0.0.1",
        "port": server.port,
        "searchbase": PEOPLE,
        "queryfilter": "(&(objectClass=inetOrgPerson)(uid=%u))",
        "binddn": READER,
        "bindpass": READER_PASSWORD,
        "truststore": server.authority,
    }
    return dict(api.ok(admin, "ldapConfig", **{**given, **wishes})["ldapconfig"])


def check_of(api: Api) -> Check:
    with api.database.read() as tx:
        check = directory.prepare(tx)
    assert check is not None
    return check


def tried(username: str, password: str = LDAP_PASSWORD) -> Credentials:
    return Credentials(username, f"{username}@example.org", username, password, None)


def setting(api: Api, admin: Person, name: str, value: str) -> None:
    api.ok(admin, "updateConfiguration", name=name, value=value)


def code(api: Api, username: str, password: str) -> int:
    return api.login(username, password).status_code


def test_the_directory_lets_in_who_binds_and_nobody_else(api: Api, admin: Person, server: Slapd) -> None:
    api.person("alice")
    assert code(api, "alice", LDAP_PASSWORD) == 531
    configure(api, admin, server)
    assert code(api, "alice", LDAP_PASSWORD) == 200
    assert code(api, "alice", "wrong") == 531
    assert code(api, "alice", PASSWORD) == 200, "the local password goes on"
    assert code(api, "bob", LDAP_PASSWORD) == 531, "whoever has no user here stays out"
    setting(api, admin, "user.authenticators.order", "ldap")
    assert code(api, "alice", PASSWORD) == 531


def test_the_disabled_stay_out_whatever_the_directory_says(api: Api, admin: Person, server: Slapd) -> None:
    someone = api.person("alice")
    configure(api, admin, server)
    api.ok(admin, "disableUser", id=someone.user_id)
    assert code(api, "alice", LDAP_PASSWORD) == 531


def test_an_empty_password_is_refused_before_any_bind(api: Api, admin: Person, server: Slapd) -> None:
    configure(api, admin, server)
    connection = ldap.initialize(f"ldap://127.0.0.1:{server.port}")
    # This directory, as RFC 4513 allows, calls such a bind a success.
    connection.simple_bind_s(f"uid=alice,{PEOPLE}", "")
    connection.unbind_s()
    assert not check_of(api)(tried("alice", ""))
    api.person("alice")
    assert api.login("alice", "").status_code in (431, 531)
    server.stop()
    assert not check_of(api)(tried("alice", "")), "no server is asked"


def test_users_are_found_at_any_depth_only_if_the_setting_says_so(api: Api, admin: Person, server: Slapd) -> None:
    configure(api, admin, server)
    assert check_of(api)(tried("bob"))
    setting(api, admin, "ldap.search.subtree", "false")
    assert not check_of(api)(tried("bob"))
    assert check_of(api)(tried("alice"))


def test_a_name_that_two_entries_have_is_nobodys(api: Api, admin: Person, server: Slapd) -> None:
    configure(api, admin, server)
    assert not check_of(api)(tried("twin"))


@pytest.mark.parametrize(
    "name", ["*", "ali*", "alice)(uid=*", "*)(|(uid=alice", "alice\\2a", "\x00", ")", "%u", "al%eice"]
)
def test_what_a_name_holds_never_becomes_part_of_the_filter(api: Api, admin: Person, server: Slapd, name: str) -> None:
    configure(api, admin, server)
    assert not check_of(api)(tried(name))


def test_a_filter_takes_name_address_and_full_name_as_plain_text() -> None:
    someone = Credentials("a*", "e(1)@x", "F %u", "p", None)
    filled = directory.filled("(|(uid=%u)(mail=%e)(cn=%n)(x=%x%))", someone)
    assert "(uid=a\\2a)" in filled
    assert "(cn=F %u)" in filled.replace("\\20", " ").replace("\\25", "%")
    assert "(x=%x%)" in filled
    assert "(mail=e\\281\\29@x)" in filled


def test_a_filter_without_a_place_for_the_user_is_refused(api: Api, admin: Person) -> None:
    wrong = {"hostname": "h", "searchbase": BASE, "queryfilter": "(uid=admin)"}
    assert api.error(admin, "ldapConfig", **wrong)[0] == 431
    half = {"hostname": "h", "searchbase": BASE, "queryfilter": "(uid=%u)", "binddn": READER}
    assert api.error(admin, "ldapConfig", **half) == (431, "binddn and bindpass are given together")


def test_a_directory_that_is_down_is_logged_and_the_next_is_asked(api: Api, admin: Person, server: Slapd) -> None:
    api.person("alice")
    configure(api, admin, server)
    setting(api, admin, "user.authenticators.order", "ldap,local")
    server.stop()
    with capture_logs() as lines:
        assert code(api, "alice", PASSWORD) == 200
        assert code(api, "alice", LDAP_PASSWORD) == 531
    told = [line for line in lines if line.get("authenticator") == "ldap"]
    assert told
    assert f"127.0.0.1:{server.port}" in told[0]["reason"]
    assert LDAP_PASSWORD not in str(lines)
    assert READER_PASSWORD not in str(lines)


def test_a_directory_that_never_answers_ends_in_time(api: Api, admin: Person, server: Slapd) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        configure(api, admin, server, port=silent.getsockname()[1])
        setting(api, admin, "ldap.timeout", "1")
        with pytest.raises(Unavailable):
            check_of(api)(tried("alice"))


def test_a_directory_that_cannot_prove_who_it_is_is_not_believed(api: Api, admin: Person, server: Slapd) -> None:
    configure(api, admin, server, truststore=None)
    with pytest.raises(Unavailable):
        check_of(api)(tried("alice"))
    configure(api, admin, server, truststore="/no/such/file.pem")
    with pytest.raises(Unavailable, match=r"/no/such/file\.pem"):
        check_of(api)(tried("alice"))


def test_no_password_is_said_in_the_clear_unless_a_setting_demands_it(api: Api, admin: Person, server: Slapd) -> None:
    configure(api, admin, server)
    assert check_of(api)(tried("alice")), "this directory refuses to hear one without TLS"
    configure(api, admin, server, starttls=False)
    with pytest.raises(Unavailable):
        check_of(api)(tried("alice"))


def test_the_password_of_the_directory_is_told_nowhere(api: Api, admin: Person, server: Slapd) -> None:
    told = configure(api, admin, server)
    assert told == {
        "hostname": "127.0.0.1",
        "port": str(server.port),
        "ssl": "false",
        "searchbase": PEOPLE,
        "queryfilter": "(&(objectClass=inetOrgPerson)(uid=%u))",
        "binddn": READER,
    }
    for listed in ("listConfigurations", "listEvents"):
        assert READER_PASSWORD not in api.call(admin, listed, pagesize=-1).text
    with api.database.read() as tx:
        assert READER_PASSWORD not in repr(directory.prepare(tx))
    assert LDAP_PASSWORD not in repr(tried("alice"))


def test_a_removed_directory_lets_nobody_in_and_its_password_is_gone(api: Api, admin: Person, server: Slapd) -> None:
    api.person("alice")
    configure(api, admin, server)
    assert api.ok(admin, "ldapRemove") == {"success": True}
    assert code(api, "alice", LDAP_PASSWORD) == 531
    assert code(api, "alice", PASSWORD) == 200
    with api.database.read() as tx:
        assert directory.prepare(tx) is None
        assert READER_PASSWORD not in str(tx.connection.exec_driver_sql("SELECT * FROM setting").all())


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_the_md5_of_a_password_opens_nothing_unless_a_setting_says_so(api: Api, admin: Person) -> None:
    api.person("someone")
    assert code(api, "someone", md5(PASSWORD)) == 531
    setting(api, admin, "user.authenticators.order", "local,md5")
    assert code(api, "someone", md5(PASSWORD)) == 531, "no verifier was stored for it"
    api.person("late")
    assert code(api, "late", md5(PASSWORD)) == 200
    assert code(api, "late", md5(PASSWORD).upper()) == 200
    assert code(api, "late", PASSWORD) == 200
    assert code(api, "late", md5("wrong")) == 531
    setting(api, admin, "user.authenticators.order", "local")
    assert code(api, "late", md5(PASSWORD)) == 531
    assert code(api, "late", PASSWORD) == 200


def test_a_password_set_as_md5_is_good_in_both_forms_while_such_clients_are_admitted(api: Api, admin: Person) -> None:
    someone = api.person("someone")
    setting(api, admin, "user.authenticators.order", "local,md5")
    api.ok(admin, "updateUser", id=someone.user_id, password=md5("old style"))
    assert code(api, "someone", md5("old style")) == 200
    assert code(api, "someone", "old style") == 200
    assert code(api, "someone", "other style") == 531


def test_no_verifier_of_an_md5_is_stored_while_such_clients_are_not_admitted(api: Api, admin: Person) -> None:
    api.person("before")
    setting(api, admin, "user.authenticators.order", "local,md5")
    api.person("after")
    with api.database.read() as tx:
        stored = {row["username"]: row["password_hash"] for row in tx.all(users.select())}
    assert stored["before"].count("$argon2id$") == 1
    assert stored["after"].count("$argon2id$") == 2
    assert md5(PASSWORD) not in stored["after"]


def test_an_authenticator_that_is_not_installed_is_passed_over_and_logged(api: Api, admin: Person) -> None:
    # A setting names who is installed; whoever was then may be gone since.
    with api.database.write() as tx:
        change(tx, keys.user_authenticators_order, "nosuch, local", user_id=2)
    with capture_logs() as lines:
        assert code(api, "admin", PASSWORD) == 200
    assert [line["authenticator"] for line in lines if "authenticator" in line] == ["nosuch"]


def test_an_unknown_user_costs_as_many_hashes_as_a_wrong_password(
    api: Api, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(api, admin, "user.authenticators.order", "local,md5")
    verified: list[str] = []
    true = passwords._verified

    def counted(password: str, verifier: str | None) -> bool:
        verified.append(password)
        return true(password, verifier)

    monkeypatch.setattr(passwords, "_verified", counted)
    assert code(api, "admin", "wrong") == 531
    known = len(verified)
    assert code(api, "nobody", "wrong") == 531
    assert len(verified) == 2 * known
