"""What an agent is told is checked before anything is done, and the text names the entry."""

from pathlib import Path
from typing import Any

import pytest

from pileus.agent.enrolment import Endpoint, Token, parse_endpoint
from pileus.agent.settings import BadSettings, HostEntry, from_document, from_file, options_from_pairs
from pileus.wire.messages import HostKind

HOST = {"token": "t", "backend": "kvm"}
GOOD: dict[str, Any] = {"servers": ["10.0.0.1"], "state_dir": "/var/lib/agent", "host": [HOST]}


def test_a_short_document_gets_sensible_defaults() -> None:
    settings = from_document(GOOD)
    assert settings.servers == (Endpoint("10.0.0.1", 8250),)
    assert settings.hosts == (HostEntry(Token("t"), HostKind.ROUTING, "kvm", "127.0.0.1"),)
    assert settings.side_by_side == 16


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret --ca-sha256 " + "ab" * 32 + "\n")
    (tmp_path / "agent.toml").write_text(
        f"""
        servers = ["a:1", "wss://b:2"]
        state_dir = "{tmp_path}/state"
        side_by_side = 4
        [[host]]
        token_file = "{tmp_path}/token"
        kind = "SecondaryStorage"
        backend = "directory"
        address = "10.0.0.2"
        [host.options]
        port = 9443
        """
    )
    settings = from_file(tmp_path / "agent.toml")
    assert settings.servers == (Endpoint("a", 1), Endpoint("b", 2))
    (host,) = settings.hosts
    assert host == HostEntry(
        Token("secret", "ab" * 32), HostKind.SECONDARY_STORAGE, "directory", "10.0.0.2", {"port": 9443}
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"servers": []}, "servers"),
        ({"servers": "10.0.0.1"}, "servers"),
        ({"servers": ["a:b"]}, "servers"),
        ({"state_dir": ""}, "state_dir"),
        ({"state_dir": 3}, "state_dir"),
        ({"host": []}, "host"),
        ({"host": {}}, "host"),
        ({"host": [HOST, HOST]}, "token"),
        ({"host": [{"backend": "kvm"}]}, "token"),
        ({"host": [{**HOST, "token_file": "x"}]}, "token"),
        ({"host": [{"backend": "kvm", "token_file": "/missing/file"}]}, "token_file"),
        ({"host": [{**HOST, "token": "a b"}]}, "token"),
        ({"host": [{**HOST, "kind": "Other"}]}, "kind"),
        ({"host": [{**HOST, "address": "not-an-address"}]}, "address"),
        ({"host": [{"token": "t"}]}, "backend"),
        ({"host": [{**HOST, "options": 1}]}, "options"),
        ({"host": [{**HOST, "colour": 1}]}, "colour"),
        ({"colour": 1}, "colour"),
        ({"side_by_side": True}, "side_by_side"),
        ({"side_by_side": 0}, "side_by_side"),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadSettings) as refusal:
        from_document({**GOOD, **change})
    assert named in str(refusal.value)


@pytest.mark.parametrize("content", [b"not = = toml", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadSettings):
        from_file(tmp_path / "missing.toml")
    (tmp_path / "agent.toml").write_bytes(content)
    with pytest.raises(BadSettings):
        from_file(tmp_path / "agent.toml")


def test_options_of_the_command_line_are_numbers_where_they_look_like_it() -> None:
    assert options_from_pairs(["cpus=3", "on=true", "name=eth0", "empty="]) == {
        "cpus": 3,
        "on": True,
        "name": "eth0",
        "empty": "",
    }
    for pair in ("cpus", "=3"):
        with pytest.raises(BadSettings):
            options_from_pairs([pair])


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("h", Endpoint("h", 8250)),
        ("h:1", Endpoint("h", 1)),
        ("wss://h:1/", Endpoint("h", 1)),
        ("[fd00::1]:7", Endpoint("fd00::1", 7)),
        ("[fd00::1]", Endpoint("fd00::1", 8250)),
        ("fd00::1", Endpoint("fd00::1", 8250)),
    ],
)
def test_servers_may_be_written_in_any_usual_way(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", ":1", "h:0", "h:65536", "h:x", "[fd00::1", "[fd00::1]7", "h/path"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port|invalid literal"):
        parse_endpoint(text)


def test_an_address_with_ipv6_is_bracketed_in_the_url() -> None:
    assert Endpoint("fd00::1", 7).url == "wss://[fd00::1]:7/agent"
