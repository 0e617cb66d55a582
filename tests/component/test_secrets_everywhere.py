"""A canary in every secret parameter of every registered command, sent in every way: it is written down nowhere.

What is sent comes from the registry, so a new command is in it from its first day. The older cases, with their reasons,
are in test_secrets.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from api_client import Api
from argon2 import PasswordHasher
from sqlalchemy import select

from pileus.server.api.command import CommandSpec, registry
from pileus.server.api.parse import Field, table
from pileus.server.api.signing import sign
from pileus.server.auth import passwords
from pileus.server.config import keys
from pileus.server.config.key import Key
from pileus.server.db.tables.event import alert, event
from pileus.server.redaction import redact
from pileus.server.registered import register_all
from pileus.testing import plausible
from pileus.testing.builders import root
from pileus.testing.client import Client
from pileus.testing.tenancy import Tenancy
from pileus.testing.world import World

register_all()
CANARY = "c4n4ry-s3cret-0123456789"
OTHER = "0ther-v4lue"
NAMES = sorted(registry)


class Places:
    """A tenancy, its API with a signing administrator, and everything that its servers write."""

    def __init__(self, world: World) -> None:
        self.tenancy = Tenancy.settle(world)
        self.api = Api(world.db)
        self.keys = Client(world.db, root()).keys
        self.lines: list[str] = []

    def signed(self, spec: CommandSpec, sent: dict[str, str]) -> str:
        sent = {**sent, "command": spec.name, "response": "json", "apikey": self.keys[0]}
        return self.told(self.api.send("POST", data={**sent, "signature": sign(sent, self.keys[1])}))

    def told(self, answer: Any) -> str:
        return f"{answer.text} {answer.headers}"

    def written(self) -> list[str]:
        """Every event and alert there is."""
        with self.tenancy.world.db.read() as tx:
            return [str(dict(row)) for kept in (event, alert) for row in tx.all(select(kept))]


class _Keep:
    """A log that keeps what would have been written."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __call__(self, *_args: object) -> "_Keep":
        return self

    def msg(self, line: str) -> None:
        self._lines.append(line)

    debug = info = warning = error = exception = msg


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    patch, before = pytest.MonkeyPatch(), structlog.get_config()
    patch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    with World.open() as world:
        made = Places(world)
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(default=repr),
            ],
            logger_factory=_Keep(made.lines),
            cache_logger_on_first_use=False,
        )
        yield made
        made.api.close()
    structlog.configure(**before)
    patch.undo()


def is_secret(field: Field) -> bool:
    return field.is_password or field.info.secret


def rightly(places: Places, spec: CommandSpec) -> dict[str, str]:
    """Parameters that the command accepts, the secret ones with the canary."""
    things = places.tenancy.theirs.things
    sent = {}
    for each in table(spec.params):
        if is_secret(each):
            sent[plausible.name(each)] = CANARY
        elif each.info.required and (each.entity is None or each.entity in things):
            sent[plausible.name(each)] = plausible.value(spec.name, each, things)
    return sent


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_is_written_down_nowhere(places: Places, name: str) -> None:
    spec = registry[name]
    places.lines.clear()
    right = rightly(places, spec)
    secrets = [plausible.name(each) for each in table(spec.params) if is_secret(each)]
    wrong = {plausible.name(each): CANARY if is_secret(each) else OTHER for each in table(spec.params)}
    answers = [places.signed(spec, wrong), places.signed(spec, right)]
    for secret in secrets or ["password"]:
        # Too long, given twice, misspelt, with another that is wrong, without the rest.
        answers.append(places.signed(spec, {**right, secret: CANARY * 500}))
        answers.append(places.signed(spec, {**right, f"{secret}s": CANARY}))
        answers.append(places.signed(spec, {secret: CANARY}))
        twice = f"/client/api?command={name}&{secret}={CANARY}&{secret}=x{CANARY}"
        answers.append(places.told(places.api.send("GET", url=twice)))
    # Before anybody was let in: unsigned, badly signed, with a session that is none.
    before = {**dict.fromkeys(secrets, CANARY), "command": name}
    for more in ({}, {"apikey": CANARY, "signature": CANARY}, {"sessionkey": CANARY}):
        cookie = {"Cookie": f"JSESSIONID={CANARY}"}
        answers.append(places.told(places.api.send("GET", {**before, **more}, headers=cookie)))
    assert len(places.lines) >= len(answers)
    for line in places.lines:
        assert CANARY not in line
        # The log repeats no parameter at all.
        assert OTHER not in line
        json.loads(line)
    for answer in answers:
        assert CANARY not in answer


def test_no_secret_is_in_an_event_or_an_alert(places: Places) -> None:
    """Runs behind the calls above, which made what they could; by itself it makes the accounts and hosts once more."""
    for name in NAMES:
        if any(is_secret(each) for each in table(registry[name].params)):
            places.signed(registry[name], rightly(places, registry[name]))
    written = places.written()
    assert any("USER.CREATE" in line or "ACCOUNT.CREATE" in line for line in written)
    for line in written:
        assert CANARY not in line


def secret_settings() -> list[str]:
    return sorted(each.name for each in vars(keys).values() if isinstance(each, Key) and each.secret)


def test_a_secret_setting_is_set_and_never_said_again(places: Places) -> None:
    names = secret_settings()
    assert "alert.smtp.password" in names
    places.lines.clear()
    update, show = registry["updateConfiguration"], registry["listConfigurations"]
    answers = [places.signed(update, {"name": name, "value": CANARY}) for name in names]
    answers += [places.signed(show, {"name": name}) for name in names]
    answers.append(places.signed(update, {"name": "expunge.delay", "value": "no number"}))
    for text in [*answers, *places.lines, *places.written()]:
        assert CANARY not in text


def test_the_registry_knows_its_secrets() -> None:
    """What is named like a secret is declared as one: the cases above are made of declarations."""
    wanted = ("password", "passwd", "secret", "token", "privatekey", "bindpass")
    undeclared = [
        f"{name} {each.wire}"
        for name in NAMES
        for each in table(registry[name].params)
        if any(part in each.wire.lower() for part in wanted) and not is_secret(each) and each.wire_type == "string"
    ]
    assert undeclared == []
