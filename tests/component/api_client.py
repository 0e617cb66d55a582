"""A client of the query API over ASGI, and people who use it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from pileus.server.api.app import App, IntegrationApp, create_app, create_integration_app
from pileus.server.api.signing import sign
from pileus.server.auth import passwords
from pileus.server.db.tables.account import users
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ADMIN_USER
from pileus.server.registered import register_all
from pileus.server.services import user

PASSWORD = "correct horse"
HOST = "cloud.test"


@dataclass
class Api:
    """The API of one database. `call` signs, `get` and `post` send what they are given."""

    database: Database
    app: App = field(init=False)
    integration: IntegrationApp = field(init=False)

    def __post_init__(self) -> None:
        register_all()
        self.app = create_app(self.database)
        self.integration = create_integration_app(self.database)

    def close(self) -> None:
        self.app.close()
        self.integration.close()

    def send(
        self,
        method: str,
        params: Mapping[str, str] | None = None,
        *,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/client/api",
        client: str = "192.0.2.7",
        integration: bool = False,
        url: str | None = None,
    ) -> httpx.Response:
        async def go() -> httpx.Response:
            app = self.integration if integration else self.app
            transport = httpx.ASGITransport(app=app, client=(client, 4711))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as http:
                return await http.request(method, url or path, params=params, data=data, headers=headers)

        return asyncio.run(go())

    def call(self, who: "Person", command: str, /, **params: Any) -> httpx.Response:
        """A signed call, answered in JSON."""
        sent = {"command": command, "response": "json", "apikey": who.api_key}
        sent |= {name: text(value) for name, value in params.items()}
        sent["signature"] = sign(sent, who.secret_key)
        return self.send("GET", sent)

    def ok(self, who: "Person", command: str, /, **params: Any) -> dict[str, Any]:
        """What is inside the envelope of a signed call that must succeed."""
        answer = self.call(who, command, **params)
        assert answer.status_code == 200, answer.text
        (body,) = answer.json().values()
        return dict(body)

    def error(self, who: "Person", command: str, /, **params: Any) -> tuple[int, str]:
        """Code and text of a signed call that must fail."""
        answer = self.call(who, command, **params)
        (body,) = answer.json().values()
        assert answer.status_code == body["errorcode"], answer.text
        return int(body["errorcode"]), str(body["errortext"])

    def admin(self) -> "Person":
        """The built-in administrator, with keys."""
        api_key, secret_key = "admin-api-key", "admin-secret-key"
        with self.database.write() as tx:
            tx.execute(users.update().where(users.c.id == ADMIN_USER).values(api_key=api_key, secret_key=secret_key))
            user.set_password(tx, ADMIN_USER, passwords.hashed(PASSWORD))
        return Person("admin", "", "", api_key, secret_key)

    def person(self, name: str, *, domain: str | None = None, kind: int = 0) -> "Person":
        """A new account with a user of the same name and keys."""
        root = Person("admin", "", "", "admin-api-key", "admin-secret-key")
        extra = {} if domain is None else {"domainid": domain}
        made = self.ok(
            root,
            "createAccount",
            accounttype=kind,
            username=name,
            password=PASSWORD,
            firstname=name,
            lastname="Test",
            email=f"{name}@example.org",
            **extra,
        )["account"]
        (member,) = made["user"]
        keys = self.ok(root, "registerUserKeys", id=member["id"])["userkeys"]
        return Person(name, made["id"], member["id"], keys["apikey"], keys["secretkey"])

    def login(self, username: str, password: str = PASSWORD, **params: str) -> httpx.Response:
        data = {"command": "login", "username": username, "password": password, "response": "json", **params}
        return self.send("POST", data=data)


@dataclass(frozen=True)
class Person:
    """A user with keys."""

    name: str
    account_id: str
    user_id: str
    api_key: str
    secret_key: str


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@pytest.fixture
def api(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The API of the test's database. Hashes are as real as ever, but cheap."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    made = Api(db)
    yield made
    made.close()


@pytest.fixture
def admin(api: Api) -> Person:
    """The built-in administrator, with keys."""
    return api.admin()
