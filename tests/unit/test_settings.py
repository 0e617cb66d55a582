"""A server's file: what it may hold, and what is said of what it may not."""

from pathlib import Path
from typing import Any

import pytest

from pileus.server.settings import BadSettings, from_document, from_file


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    found = from_document({"state_dir": str(tmp_path)})
    assert found.database == f"sqlite:///{tmp_path}/pileus.db"
    assert (found.api_address, found.api_port, found.agent_port, found.workers) == ("127.0.0.1", 8080, 8250, 4)
    assert found.name
    assert [str(each) for each in found.metrics_peers] == ["127.0.0.0/8", "::1/128"]
    assert (found.log_level, found.log_format) == ("info", "json")


def test_who_reads_metrics_and_how_logs_are_written_is_for_the_file_to_say() -> None:
    entries = {"metrics": {"peers": ["10.1.0.0/16", "2001:db8::7"]}, "log": {"level": "warning", "format": "text"}}
    found = from_document({"state_dir": "s", **entries})
    assert [str(each) for each in found.metrics_peers] == ["10.1.0.0/16", "2001:db8::7/128"]
    assert (found.log_level, found.log_format) == ("warning", "text")
    assert from_document({"state_dir": "s", "metrics": {"peers": []}}).metrics_peers == ()


def test_what_is_said_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        'state_dir = "/s"\nname = "n"\ndatabase = "d"\n[api]\naddress = "::1"\nport = 0\ndrain_seconds = 7\n'
        '[agents]\naddress = "192.0.2.1"\nport = 65535\nnames = ["cloud.example"]\n[jobs]\nworkers = 1\n'
    )
    found = from_file(path)
    assert (found.name, found.database, found.state_dir) == ("n", "d", Path("/s"))
    assert found.drain_seconds == 7
    assert (found.api_address, found.api_port) == ("::1", 0)
    assert (found.agent_address, found.agent_port, found.agent_names) == ("192.0.2.1", 65535, ("cloud.example",))
    assert found.workers == 1


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "state_dir: a directory is needed"),
        ({"state_dir": ""}, "state_dir: must not be empty"),
        ({"state_dir": 3}, "state_dir: must be a string"),
        ({"state_dir": "s", "databse": "x"}, "databse: unknown; did you mean database?"),
        ({"state_dir": "s", "agent": {}}, "agent: unknown; did you mean agents?"),
        ({"state_dir": "s", "zzz": 1}, "zzz: unknown; known are database, state_dir, name"),
        ({"state_dir": "s", "api": 8080}, "api: must be a table, [api]"),
        ({"state_dir": "s", "api": [{"port": 1}]}, "api: must be a table, [api]"),
        ({"state_dir": "s", "api": {"prot": 1}}, "api.prot: unknown; did you mean port?"),
        ({"state_dir": "s", "api": {"port": "8080"}}, "api.port: must be a whole number"),
        ({"state_dir": "s", "api": {"port": True}}, "api.port: must be a whole number"),
        ({"state_dir": "s", "api": {"port": 65536}}, "api.port: must lie between 0 and 65535"),
        ({"state_dir": "s", "api": {"drain_seconds": -1}}, "api.drain_seconds: must lie between 0 and 600"),
        ({"state_dir": "s", "agents": {"port": -1}}, "agents.port: must lie between 0 and 65535"),
        ({"state_dir": "s", "agents": {"names": []}}, "agents.names: must be a list of names"),
        ({"state_dir": "s", "agents": {"names": ["a", 1]}}, "agents.names: must be a list of names"),
        ({"state_dir": "s", "agents": {"names": "a"}}, "agents.names: must be a list"),
        ({"state_dir": "s", "metrics": {"peers": "10.0.0.0/8"}}, "metrics.peers: must be a list"),
        ({"state_dir": "s", "metrics": {"peers": ["10.0.0.1/8"]}}, "metrics.peers: '10.0.0.1/8' is no network"),
        ({"state_dir": "s", "metrics": {"peers": [1]}}, "metrics.peers: 1 is no network"),
        ({"state_dir": "s", "log": {"level": "loud"}}, "log.level: must be one of debug, info, warning, error"),
        ({"state_dir": "s", "log": {"format": "xml"}}, "log.format: must be one of json, text"),
        ({"state_dir": "s", "jobs": {"workers": 0}}, "jobs.workers: must lie between 1 and 256"),
        ({"state_dir": "s", "jobs": {"workers": 257}}, "jobs.workers: must lie between 1 and 256"),
    ],
)
def test_each_error_names_its_entry(document: dict[str, Any], text: str) -> None:
    with pytest.raises(BadSettings) as caught:
        from_document(document)
    assert str(caught.value).startswith(text)


def test_each_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    for content in (b"state_dir = ", b"\xff", b"x = 1"):
        path.write_bytes(content)
        with pytest.raises(BadSettings) as caught:
            from_file(path)
        assert str(caught.value).startswith(str(path))
    for unreadable in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadSettings, match=str(unreadable)):
            from_file(unreadable)


def test_the_password_of_the_database_is_not_part_of_what_is_shown() -> None:
    assert "canary" not in repr(from_document({"state_dir": "s", "database": "mysql://u:canary@h/d"}))
