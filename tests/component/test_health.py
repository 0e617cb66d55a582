"""What `/healthz` says: well, what is wrong, and that the server is about to stop."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server_process import configured, running

from pileus.server import health as health_module
from pileus.server.api.app import App, create_app
from pileus.server.api.render import Answer
from pileus.server.api.request import Receive, Scope, Send, tell
from pileus.server.db.transaction import Database
from pileus.server.health import Health
from pileus.server.hosts.authority import Authority
from pileus.server.hosts.listener import Listener, ListenerSettings
from pileus.server.jobs import worker
from pileus.server.jobs.engine import Engine
from pileus.server.jobs.pool import JobPool
from pileus.server.jobs.reconciler import ReconcilerPool


@pytest.fixture
def app(db: Database) -> Iterator[App]:
    made = create_app(db)
    yield made
    made.close()


async def asked(health: Health, path: str = "/healthz") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=health), base_url="http://cloud.test") as http:
        return await http.get(path)


def test_a_server_that_serves_is_well(db: Database, app: App) -> None:
    answer = asyncio.run(asked(Health(db, app, {"jobs": lambda: ""})))
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_everything_that_is_wrong_is_named(db: Database, app: App) -> None:
    checks = {"jobs": lambda: "no worker has moved", "agents": lambda: "cannot connect", "reconcilers": lambda: ""}
    health = Health(db, app, checks)
    answer = asyncio.run(asked(health))
    assert answer.status_code == 503
    assert answer.text == "jobs: no worker has moved\nagents: cannot connect\n"


def test_a_database_that_does_not_answer_is_told_in_time(
    db: Database, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "PATIENCE_SECONDS", 0.01)
    health, answers = Health(db, app), threading.Event()
    looks = []

    def slow() -> str:
        looks.append(1)
        answers.wait(30)
        return ""

    monkeypatch.setattr(health, "_database_trouble", slow)

    async def scene() -> list[httpx.Response]:
        try:
            return await asyncio.gather(*(asked(health) for _ in range(5)))
        finally:
            answers.set()

    for answer in asyncio.run(scene()):
        assert answer.status_code == 503
        assert answer.text == "database: no answer within 0.01 s\n"
    # However many ask, one look goes to the database.
    assert len(looks) == 1


class SlowApp:
    """Answers `/slow` when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.begun.set()
            await self.let.wait()
        await tell(send, Answer(200, b"answered", "text/plain"))


def test_a_draining_server_says_so_and_answers_what_it_has_begun_and_what_still_comes(db: Database) -> None:
    async def scene() -> None:
        app = SlowApp()
        health = Health(db, app)  # type: ignore[arg-type]
        slow = asyncio.create_task(asked(health, "/slow"))
        await app.begun.wait()
        health.drain()
        drained = asyncio.create_task(health.drained(at_least=0, at_most=30))
        said = await asked(health)
        assert (said.status_code, said.text) == (503, "draining: this server is about to stop\n")
        assert (await asked(health, "/quick")).text == "answered"
        assert not drained.done()
        assert health.calls == 1
        app.let.set()
        assert (await slow).text == "answered"
        await drained
        assert health.calls == 0

    asyncio.run(scene())


def test_a_call_that_never_ends_holds_up_the_stop_for_so_long_only(db: Database) -> None:
    async def scene() -> None:
        app = SlowApp()
        health = Health(db, app)  # type: ignore[arg-type]
        slow = asyncio.create_task(asked(health, "/slow"))
        await app.begun.wait()
        await health.drained(at_least=0, at_most=0.01)
        assert not slow.done()
        app.let.set()
        await slow

    asyncio.run(scene())


def test_a_stopping_process_is_ill_at_once_and_serves_until_its_time_is_over(tmp_path: Path) -> None:
    config = configured(tmp_path)
    config.write_text(config.read_text().replace("[api]", "[api]\ndrain_seconds = 600", 1))
    with running(tmp_path, config) as server:
        at = f"http://127.0.0.1:{server.api_port}"
        with httpx.Client(trust_env=False, base_url=at, timeout=30) as http:
            assert http.get("/healthz").status_code == 200
            server.process.send_signal(signal.SIGTERM)
            _log_says(server.log, '"server stops"')
        with httpx.Client(trust_env=False, base_url=at, timeout=30) as stranger:
            assert stranger.get("/healthz").status_code == 503
            assert stranger.get("/client/api?command=listZones&response=json").status_code == 401
        # The second signal, sent at the end of the block, cuts the rest short.
    assert server.process.returncode == 0


def _log_says(log: Path, words: str) -> None:
    told = threading.Event()
    for _ in range(6000):
        if words in log.read_text():
            return
        told.wait(0.01)  # between looks at another process's file
    raise AssertionError(log.read_text())


def test_a_pool_whose_workers_hang_or_have_ended_says_so(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = JobPool(Engine(db, owner="s1"), workers=2)
    pool.start()
    assert pool.trouble() == ""
    monkeypatch.setattr(worker.Signal, "silent_seconds", 61.0)
    assert pool.trouble() == "no worker has moved for 61 s"
    assert pool.stop()
    assert pool.trouble() == "2 of 2 workers have ended"


def test_a_worker_that_looks_for_jobs_gives_signs_of_life() -> None:
    signs = worker.Signal()
    signs._moved_at -= 100
    assert signs.silent_seconds >= 100
    assert signs.moved() is False
    assert signs.silent_seconds < 100
    signs.stop()
    assert signs.moved() is True


def test_reconcilers_whose_scheduler_hangs_or_has_ended_are_told(db: Database) -> None:
    pool = ReconcilerPool(db, owner="s1")
    pool.start()
    assert pool.trouble() == ""
    assert pool.stop()
    assert pool.trouble() == "the scheduler has ended"


def test_a_listener_that_does_not_listen_is_told(db: Database) -> None:
    async def scene() -> None:
        listener = Listener(db, Authority.load(db), ListenerSettings("s1", "127.0.0.1", 0))
        assert listener.trouble == "agents cannot connect"
        await listener.start()
        assert listener.trouble == ""
        await listener.close()
        assert listener.trouble == "agents cannot connect"

    asyncio.run(scene())
