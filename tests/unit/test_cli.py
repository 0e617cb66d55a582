"""The command line against a real server process on loopback, and against servers that are not there or not ours."""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from server_process import Running, running
from typer.testing import CliRunner

from pileus.cli import main
from pileus.cli.client import ApiError, Client, Profile, signature
from pileus.cli.local import down, up  # noqa: F401 (their help is part of what is shown)
from pileus.cli.main import app
from pileus.cli.state import State, read_profile, store_profile, write_secret
from pileus.server.api.signing import sign

WIDE = {"COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


@dataclass
class Shell:
    """A shell with keys in its environment, and a directory where no cloud is."""

    env: dict[str, str]
    state: Path

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        given = {**self.env, "PILEUS_STATE": str(self.state), **WIDE} if env is None else {**WIDE, **env}
        cleared = dict.fromkeys(("CLOUDSTACK_ENDPOINT", "CLOUDSTACK_KEY", "CLOUDSTACK_SECRET"), "")
        return CliRunner().invoke(app, list(arguments), env={**cleared, **given})

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.run("call", *arguments, "-o", "json")
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def keys(server: Running) -> tuple[str, str]:
    return server.keys()


@pytest.fixture
def shell(server: Running, keys: tuple[str, str], tmp_path: Path) -> Shell:
    return Shell(
        {"CLOUDSTACK_ENDPOINT": server.endpoint, "CLOUDSTACK_KEY": keys[0], "CLOUDSTACK_SECRET": keys[1]}, tmp_path
    )


@pytest.fixture(scope="module")
def zone(server: Running, keys: tuple[str, str]) -> str:
    client = Client(Profile(server.endpoint, *keys))
    made = client.call("createZone", name="east", networktype="Advanced", dns1="192.0.2.1", internaldns1="192.0.2.1")
    client.close()
    return str(made["zone"]["id"])


def test_the_signature_is_the_one_the_server_makes() -> None:
    sent = {"command": "listZones", "apikey": "K+/=", "name": "ä *-._~ [x]&", "details[0].cpuNumber": "2"}
    assert signature(sent, "secret") == sign(sent, "secret")


def test_a_list_is_a_table(shell: Shell, zone: str) -> None:
    done = shell.run("call", "listZones")
    assert done.exit_code == 0
    header, row = done.stdout.splitlines()
    assert header.split()[:2] == ["id", "name"]
    assert row.split()[:2] == [zone, "east"]


def test_an_empty_list_says_so(shell: Shell) -> None:
    done = shell.run("call", "listHosts")
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (0, "", "nothing found")


def test_a_single_thing_is_name_and_value(shell: Shell, zone: str) -> None:
    done = shell.run("call", "updateZone", f"id={zone}", "dns2=192.0.2.2")
    assert ["dns2", "192.0.2.2"] in [line.split() for line in done.stdout.splitlines()]


def test_json_is_the_body_as_it_came(shell: Shell, zone: str) -> None:
    body = shell.json("listZones", "NAME=east")
    assert body["count"] == 1
    assert body["zone"][0]["id"] == zone
    assert shell.json("listHosts") == {}


def test_a_page_that_is_not_all_says_how_to_get_more(shell: Shell) -> None:
    done = shell.run("call", "listOsTypes", "page=1", "pagesize=3")
    assert len(done.stdout.splitlines()) == 4
    assert "page=2" in done.stderr


def test_a_job_is_waited_for_unless_told_otherwise(shell: Shell) -> None:
    made = shell.json(
        "createAccount", "accounttype=0", "username=alice", "password=correct horse", "firstname=A", "lastname=L",
        "email=a@example.org",
    )["account"]  # fmt: skip
    started = shell.json("deleteAccount", f"id={made['id']}", "--no-wait")
    assert set(started) == {"jobid"}
    done = shell.run("call", "queryAsyncJobResult", f"jobid={started['jobid']}")
    assert started["jobid"] in done.stdout
    again = shell.json(
        "createAccount", "accounttype=0", "username=bob", "password=correct horse", "firstname=B", "lastname=L",
        "email=b@example.org",
    )["account"]  # fmt: skip
    ended = shell.run("call", "deleteAccount", f"id={again['id']}", "-o", "json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == {"success": True}
    assert "deleteAccount" in ended.stderr


def test_an_error_is_told_with_its_code(shell: Shell) -> None:
    done = shell.run("call", "deleteZone", "id=99")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Unable to execute API command deletezone")
    assert "(code 431)" in done.stderr


def test_an_unknown_command_gets_its_likely_name(shell: Shell) -> None:
    done = shell.run("call", "listZone")
    assert done.exit_code == 1
    assert "next: did you mean listZones" in done.stderr
    assert "listApis" in shell.run("call", "frobnicate").stderr


def test_wrong_keys_are_told_as_such(shell: Shell) -> None:
    for wrong in ({"CLOUDSTACK_SECRET": "x"}, {"CLOUDSTACK_KEY": "x"}):
        done = shell.run("call", "listZones", env={**shell.env, **wrong})
        assert done.exit_code == 1
        assert "(code 401)" in done.stderr
        assert "does not take these keys" in done.stderr


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1/client/api", "nonsense", "http://", "http://[", "ftp://127.0.0.1/x"]
)
@pytest.mark.parametrize("command", [("call", "listZones"), ("id", "zone", "east")])
def test_a_server_that_is_not_there_is_told_as_such(shell: Shell, command: tuple[str, ...], endpoint: str) -> None:
    done = shell.run(*command, env={**shell.env, "CLOUDSTACK_ENDPOINT": endpoint})
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert f"no answer from {endpoint}" in done.stderr
    assert "pileus doctor" in done.stderr


@pytest.mark.parametrize("answer", [b"hello", b"[]", b"{}", b'{"a": 1}', b'{"a": {}, "b": {}}', b"\xff"])
def test_a_server_that_is_no_cloud_is_told_as_such(shell: Shell, answer: bytes) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    stranger = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=stranger.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{stranger.server_port}/client/api"
        done = shell.run("call", "listZones", env={**shell.env, "CLOUDSTACK_ENDPOINT": endpoint})
    finally:
        stranger.shutdown()
        stranger.server_close()
        thread.join()
    assert done.exit_code == 1
    assert "speaks no query API" in done.stderr


@pytest.mark.parametrize("pair", ["zoneid", "=x", "command=listZones", "apiKey=x"])
def test_parameters_that_are_none_are_refused_before_anything_is_sent(shell: Shell, pair: str) -> None:
    done = shell.run("call", "listZones", pair)
    assert done.exit_code == 2
    assert pair.partition("=")[0] in done.stderr


def test_a_parameter_given_twice_is_refused(shell: Shell) -> None:
    assert "given twice" in shell.run("call", "listZones", "id=1", "id=2").stderr


def test_no_keys_half_of_them_and_broken_ones(shell: Shell, tmp_path: Path) -> None:
    state = {"PILEUS_STATE": str(tmp_path)}
    for command in (("call", "listZones"), ("id", "zone", "x")):
        done = shell.run(*command, env=state)
        assert done.exit_code == 1
        assert "pileus up" in done.stderr
        done = shell.run(*command, env={**state, "CLOUDSTACK_KEY": "x"})
        assert done.exit_code == 1
        assert "CLOUDSTACK_ENDPOINT and CLOUDSTACK_SECRET must be set too" in done.stderr
    profile = State(tmp_path).profile
    for broken in ("", "endpoint = 1\n", "= x"):
        profile.write_text(broken)
        done = shell.run("call", "listZones", env=state)
        assert done.exit_code == 1
        assert str(profile) in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_stored_keys_are_used_and_readable_by_their_owner_alone(shell: Shell, zone: str) -> None:
    profile = Profile(*shell.env.values())
    path = State(shell.state).profile
    path.write_text("before")
    path.chmod(0o644)
    store_profile(path, profile)
    assert read_profile(path) == profile
    assert path.stat().st_mode & 0o777 == 0o600
    done = shell.run("id", "zone", "east", env={"PILEUS_STATE": str(shell.state)})
    assert (done.exit_code, done.stdout) == (0, f"{zone}\n")
    write_secret(path, "shorter")
    assert path.read_text() == "shorter"


def test_an_id_is_found_by_name(shell: Shell, zone: str) -> None:
    assert shell.run("id", "zone", "east").stdout == f"{zone}\n"
    offering = shell.run("id", "offering", "Small Instance")
    assert offering.exit_code == 0
    assert shell.json("listServiceOfferings", f"id={offering.stdout.strip()}")["count"] == 1


def test_a_name_that_finds_nothing_or_too_much_is_told(shell: Shell, zone: str) -> None:
    done = shell.run("id", "zone", "eats")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no zone is named 'eats'" in done.stderr
    assert "there is east" in done.stderr
    for _ in range(2):
        shell.json("createDiskOffering", "name=twin", "displaytext=twin", "disksize=1")
    done = shell.run("id", "disk-offering", "twin")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "2 things of kind disk-offering are named 'twin'" in done.stderr
    done = shell.run("id", "zones", "east")
    assert done.exit_code == 2
    assert "did you mean zone?" in done.stderr


def test_a_list_is_read_to_its_last_page(shell: Shell) -> None:
    client = Client(Profile(*shell.env.values()))
    everything = client.list("listOsTypes", "ostype", pagesize=-1)
    by_pages = client.list("listOsTypes", "ostype", page=1, pagesize=7)
    client.close()
    assert len(everything) > 20
    assert by_pages == everything


def test_a_job_that_never_ends_is_given_up_with_its_number(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Profile(*shell.env.values()))
    monkeypatch.setattr(client, "call", lambda command, **parameters: {"jobstatus": 0})
    with pytest.raises(ApiError, match="jobid=j-1"):
        client.wait("j-1", seconds=0)
    client.close()


def test_a_job_outlives_a_server_that_does_not_answer_for_a_while(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Profile(*shell.env.values()))
    answers: list[Any] = [
        ApiError(0, "no answer", unreached=True),
        ApiError(503, "busy"),
        {"jobstatus": 1, "jobresult": {"success": True}},
    ]

    def call(command: str, **parameters: object) -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return dict(answer)

    monkeypatch.setattr(client, "call", call)
    assert client.wait("j-1", seconds=60) == {"success": True}
    answers.append(ApiError(431, "no such job"))
    with pytest.raises(ApiError, match="no such job"):
        client.wait("j-1", seconds=60)
    client.close()


def test_the_doctor_says_whether_the_api_answers(shell: Shell) -> None:
    assert "the API answers in" in shell.run("doctor").stdout
    gone = shell.run("doctor", env={**shell.env, "CLOUDSTACK_ENDPOINT": "http://127.0.0.1:1/client/api"})
    assert gone.exit_code == 1
    assert "fix: pileus up starts the server" in gone.stdout
    wrong = shell.run("doctor", env={**shell.env, "CLOUDSTACK_SECRET": "x"})
    assert wrong.exit_code == 1
    assert "does not take the keys" in wrong.stdout
    half = shell.run("doctor", env={"CLOUDSTACK_KEY": "x", "PILEUS_STATE": str(shell.state)})
    assert half.exit_code == 1
    assert "must be set too" in half.stdout


def test_the_doctor_names_hosts_that_are_not_up(shell: Shell, zone: str) -> None:
    pod = shell.json(
        "createPod", f"zoneid={zone}", "name=p", "gateway=192.168.10.1", "netmask=255.255.255.0",
        "startip=192.168.10.2",
    )["pod"]["id"]  # fmt: skip
    host = shell.json(
        "addHost", f"zoneid={zone}", f"podid={pod}", "clustername=c", "hypervisor=KVM", "url=http://sick",
        "username=root", "password=a one-time secret",
    )["host"]["id"]  # fmt: skip
    done = shell.run("doctor")
    assert done.exit_code == 1
    assert "host sick is Connecting" in done.stdout
    assert "fix: start its agent" in done.stdout
    shell.json("deleteHost", f"id={host}")


@pytest.mark.parametrize("subnet", ["x", "10.0.0.1/24", "10.0.0.0/25"])
def test_up_refuses_a_network_it_cannot_use(shell: Shell, subnet: str) -> None:
    done = shell.run("up", "--subnet", subnet)
    assert done.exit_code == 2
    assert "--subnet" in done.stderr


def test_a_cloud_that_was_never_started_is_stopped(shell: Shell) -> None:
    done = shell.run("status")
    assert done.exit_code == 3
    assert "running" not in done.stdout
    assert shell.run("down", "--state", str(shell.state / "none")).exit_code == 0


@pytest.mark.parametrize("command", ["server", "agent"])
def test_programs_want_a_file_that_is_there(shell: Shell, command: str) -> None:
    done = shell.run(command, "--config", str(shell.state / "none.toml"))
    assert done.exit_code == 2
    assert "none.toml" in done.stderr


def test_every_command_and_option_has_help(shell: Shell) -> None:
    top = shell.run("--help").stdout
    for command in ("up", "down", "status", "call", "id", "doctor", "server", "agent", "fleet", "mishap", "token"):
        assert command in top
        assert shell.run(command, "--help").exit_code == 0
    assert "listApis" in shell.run("call", "--help").stdout


def test_tokens_are_long_enough_for_hosts_and_never_the_same(shell: Shell) -> None:
    tokens = {shell.run("token").stdout.strip() for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 40


def test_expected_errors_end_without_a_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (OSError(28, "No space left on device"), ApiError(431, "no")):

        def fails(raised: Exception = error) -> None:
            raise raised

        monkeypatch.setattr(main, "app", fails)
        with pytest.raises(SystemExit) as ended:
            main.run()
        assert ended.value.code == 1
        assert "error:" in capsys.readouterr().err
