"""A management server's first minutes: its files, its sockets, its health, and what it says when it cannot start."""

import asyncio
import json
import os
import socket
import stat
from pathlib import Path

import httpx
import pytest
from server_process import LOOPBACK, configured, listening, refused_start, running
from sqlalchemy import select, update

from pileus.server.api.app import create_app
from pileus.server.auth import passwords
from pileus.server.config import change, keys
from pileus.server.db.tables.account import users
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ADMIN_USER
from pileus.server.first_start import admin_password
from pileus.server.health import Health


def password_hash(database: Database) -> str:
    with database.read() as tx:
        return str(tx.scalar(select(users.c.password_hash).where(users.c.id == ADMIN_USER)))


def test_the_administrator_gets_a_password_that_only_its_owner_can_read(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin-password"
    path.write_text("old")
    path.chmod(0o644)
    assert admin_password(db, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    password = path.read_text().strip()
    assert len(password) >= 16
    assert passwords.matches(password, password_hash(db))
    assert os.listdir(tmp_path).count("admin-password.new") == 0


def test_a_password_that_is_there_is_never_replaced(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "admin-password"
    admin_password(db, path)
    before, text = password_hash(db), path.read_text()
    assert not admin_password(db, path)
    assert (password_hash(db), path.read_text()) == (before, text)
    # Whoever has read it may delete the file: it does not come back.
    path.unlink()
    assert not admin_password(db, path)
    assert not path.exists()


def test_a_server_that_comes_second_keeps_no_password_that_is_not_in_force(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "admin-password"

    class SlowHasher:
        """While this one hashes, another server is quicker."""

        def hash(self, password: str) -> str:
            with db.write() as tx:
                tx.execute(update(users).where(users.c.id == ADMIN_USER).values(password_hash="theirs"))
            return "ours"

    monkeypatch.setattr("pileus.server.first_start.PasswordHasher", SlowHasher)
    assert not admin_password(db, path)
    assert password_hash(db) == "theirs"
    assert list(tmp_path.glob("admin-password*")) == []


def test_a_first_start_and_a_second(tmp_path: Path) -> None:
    state = tmp_path / "server"
    with running(tmp_path) as server:
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        for file in state.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        password = server.password
        api_key, secret = server.keys()
        assert httpx.get(f"http://127.0.0.1:{server.api_port}/healthz", trust_env=False).text == "ok\n"
    assert server.process.returncode == 0
    with running(tmp_path) as server:
        assert server.password == password
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line["event"] for line in lines].count("server ready") == 2
    written = server.log.read_text()
    for canary in (password, api_key, secret):
        assert canary not in written


def test_a_server_listens_where_it_says_and_nowhere_else(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert listening(server.process.pid) == {(LOOPBACK, server.api_port), (LOOPBACK, server.agent_port)}


def test_the_integration_port_opens_on_loopback_only_when_it_is_set(tmp_path: Path) -> None:
    with running(tmp_path):
        pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    database = Database(f"sqlite:///{tmp_path / 'server' / 'pileus.db'}")
    with database.write() as tx:
        change(tx, keys.integration_api_port, str(port), user_id=ADMIN_USER)
    database.dispose()
    with running(tmp_path) as server:
        places = {(LOOPBACK, each) for each in (server.api_port, server.agent_port, port)}
        assert listening(server.process.pid) == places
        answer = httpx.get(f"http://127.0.0.1:{port}/?command=listZones&response=json", trust_env=False)
        assert answer.json() == {"listzonesresponse": {}}


@pytest.mark.parametrize("content", [b"this is no database" * 1000, b""])
def test_health_is_bad_when_the_database_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.db"
    file.write_bytes(content)
    database = Database(f"sqlite:///{file}")
    app = create_app(database)
    try:
        answer = asyncio.run(_asked(Health(database, app)))
    finally:
        app.close()
        database.dispose()
    assert answer.status_code == 503
    assert answer.text.startswith("database: ")


async def _asked(health: Health) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=health), base_url="http://cloud.test") as http:
        return await http.get("/healthz")


def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.toml"
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('state_dir = "x"\n[api]\nprot = 1\n')
    for path, word in ((missing, "No such file"), (broken, "Invalid value"), (wrong, "did you mean port?")):
        status, text = refused_start(path)
        assert status == 2
        assert str(path) in text
        assert word in text
        assert "Traceback" not in text


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        config = configured(tmp_path)
        for section in ("api", "agents"):
            text = configured(tmp_path).read_text()
            before, _, after = text.partition(f"[{section}]")
            config.write_text(f"{before}[{section}]{after.replace('port = 0', f'port = {port}', 1)}")
            status, told = refused_start(config)
            assert status == 1
            assert str(port) in told
            assert "Traceback" not in told


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("nonsense", "parse"),
        ("oracle7://x/y", "oracle7"),
        ("sqlite:////dev/null/pileus.db", "unable to open"),
        ("postgresql+psycopg://pileus:canary@127.0.0.1:1/pileus", "refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line_without_its_password(
    tmp_path: Path, url: str, word: str
) -> None:
    status, text = refused_start(configured(tmp_path, f'database = "{url}"'))
    assert status == 1
    assert text.startswith("pileus server: database: ")
    assert word in text
    assert len(text.splitlines()) == 1
    assert "canary" not in text
