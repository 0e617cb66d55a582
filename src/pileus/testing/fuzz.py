"""Calls of every command with right, wrong and hostile values, as bytes of a query, and what no answer may be.

All chance comes from the `random.Random` that is given: a seed repeats a run, and hypothesis can shrink one.
"""

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from argon2 import PasswordHasher

from pileus.server.api.app import App, IntegrationApp
from pileus.server.api.command import CommandSpec, registry
from pileus.server.api.parse import Field, table
from pileus.server.api.signing import sign
from pileus.server.auth import passwords
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Entity
from pileus.testing import plausible
from pileus.testing.builders import root
from pileus.testing.client import Client
from pileus.testing.hostile import ODD_NAMES, VALUES
from pileus.testing.rehearsal import Rehearsal
from pileus.testing.tenancy import CANARY, Tenancy

SLOW_SECONDS = 20.0
"""An answer that takes longer than this counts as a hang, whatever else the machine is doing."""


@dataclass(frozen=True)
class Attempt:
    """One call as it is sent. `keep` lets what it does stand, for later calls to stumble over."""

    who: str
    query: bytes
    spec: CommandSpec
    as_json: bool
    keep: bool = False
    sent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    content_type: str
    body: bytes
    seconds: float


class Fuzzer:
    """Makes attempts on a tenancy, sends them, and says what was wrong with the answers."""

    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        people: Mapping[str, Caller] = {
            "root": root(),
            "user": tenancy.ours.user,
            "domain-admin": tenancy.ours.admin,
            "resource-admin": tenancy.ours.resource_admin,
            "owner": tenancy.theirs.user,
        }
        database = tenancy.world.db
        self._roles = {name: caller.role for name, caller in people.items()}
        self._keys = {name: Client(database, caller).keys for name, caller in people.items()}
        rehearsal = Rehearsal(database)
        self._apps = {False: App(rehearsal), True: App(database)}
        self._trusted = IntegrationApp(rehearsal)
        self._specs = sorted(registry.values(), key=lambda spec: spec.name)

    def close(self) -> None:
        """End the threads."""
        for app in self._apps.values():
            app.close()
        self._trusted.close()

    # ---- making

    def attempt(self, chance: random.Random, spec: CommandSpec | None = None) -> Attempt:
        """A call of a command, or of any."""
        spec = spec or chance.choice(self._specs)
        who = chance.choices(
            ["root", "user", "domain-admin", "resource-admin", "owner", "nobody", "integration"],
            weights=[40, 12, 12, 8, 8, 4, 16],
        )[0]
        if who in self._roles and self._roles[who] not in spec.roles and chance.random() < 0.8:
            who = "root"
        pairs = self._parameters(chance, spec)
        as_json = chance.random() < 0.5
        pairs.append(("command", spec.name))
        if as_json or chance.random() < 0.3:
            pairs.append(("response", "json" if as_json else "xml"))
        if chance.random() < 0.03:
            pairs.append(chance.choice(pairs))
        if chance.random() < 0.03:
            pairs.append((chance.choice(pairs)[0], chance.choice(VALUES)))
        chance.shuffle(pairs)
        sent = dict(pairs)
        if who in self._keys:
            key, secret = self._keys[who]
            pairs.append(("apikey", key))
            pairs.append(("signature", sign(dict(pairs), secret)))
        query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs).encode()
        if chance.random() < 0.01:
            query += chance.choice([b"&x=%zz", b"&x=%ff", b"&=", b"&&&", b"&x", b"&x=%00%", b"&\xff=\xfe"])
        keep = who == "root" and spec.name.startswith(_KEPT) and spec.name not in _NEVER_KEPT and chance.random() < 0.05
        return Attempt(who, query, spec, as_json, keep, sent)

    def _parameters(self, chance: random.Random, spec: CommandSpec) -> list[tuple[str, str]]:
        fields = table(spec.params)
        style = chance.random()
        victim = chance.choice(fields) if fields else None
        pairs: list[tuple[str, str]] = []
        for each in fields:
            if chance.random() > (0.97 if each.info.required else 0.25) and each is not victim:
                continue
            # Mostly one wrong value among right ones: that is what reaches beyond the parser.
            wrong = each is victim if style < 0.6 else chance.random() < (0.5 if style < 0.85 else 0)
            name = plausible.name(each)
            if each.is_map and wrong:
                name = (
                    f"{each.wire}{chance.choice(['', '[0]', '[0].x', '[1].key', '[5].name', '[-1].x', '[z].y', '[0'])}"
                )
            if chance.random() < 0.05:
                name = name.upper()
            value = self._wrong(chance, each) if wrong else self._right(chance, spec, each)
            pairs.append((name, value))
        if chance.random() < 0.04:
            pairs.append((chance.choice(ODD_NAMES), chance.choice(VALUES)))
        return pairs

    def _right(self, chance: random.Random, spec: CommandSpec, each: Field) -> str:
        owner = self.tenancy.ours if chance.random() < 0.7 else self.tenancy.theirs
        return plausible.value(spec.name, each, owner.things)

    def _wrong(self, chance: random.Random, each: Field) -> str:
        things: Mapping[type[Entity], str] = self.tenancy.theirs.things
        kind = chance.random()
        if each.entity is not None and kind < 0.4:
            found = chance.choice(list(things.values()))
            return chance.choice([found, found.upper(), found.replace("-", ""), f"{found},{found}", f" {found} "])
        if kind < 0.85:
            return chance.choice(VALUES)
        if kind < 0.93:
            return str(chance.choice([1, -1]) * chance.getrandbits(chance.choice([4, 8, 16, 31, 63, 70])))
        return "".join(chr(_scalar(chance)) for _ in range(chance.randrange(40)))

    # ---- sending

    async def send(self, attempt: Attempt) -> Told:
        """The answer of the real application."""
        app = self._trusted if attempt.who == "integration" else self._apps[attempt.keep]
        as_form = attempt.spec.name == "login"
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST" if as_form else "GET",
            "path": "/client/api",
            "scheme": "http",
            "query_string": b"" if as_form else attempt.query,
            "headers": [(b"content-type", b"application/x-www-form-urlencoded")] if as_form else [],
            "client": ("192.0.2.7", 4711),
        }
        told: dict[str, Any] = {"body": b""}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": attempt.query if as_form else b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                told["headers"] = dict(message["headers"])
            else:
                told["body"] += message["body"]

        began = time.monotonic()
        await asyncio.wait_for(app(scope, receive, send), SLOW_SECONDS)
        return Told(told["status"], told["headers"][b"content-type"].decode(), told["body"], time.monotonic() - began)

    # ---- judging

    def complaints(self, attempt: Attempt, told: Told) -> list[str]:
        """What is wrong with an answer; empty for a good one."""
        found = []
        if told.status == 530 or not 200 <= told.status < 538 or 500 <= told.status < 503:
            found.append(f"status {told.status}")
        try:
            text = _error_text(attempt, told)
        except (ValueError, ElementTree.ParseError, KeyError, StopIteration) as error:
            return [*found, f"not well-formed: {error!r}"]
        if told.status in (430, 431) and not _names_a_parameter(attempt, text):
            found.append("names no parameter")
        if "Traceback" in text or "sqlalchemy" in text.lower() or ".py" in text:
            found.append("tells of its insides")
        if attempt.who in ("user", "domain-admin", "resource-admin", "nobody"):
            found += self._leaks(attempt, told)
        return found

    def _leaks(self, attempt: Attempt, told: Told) -> list[str]:
        answered = told.body.decode("utf-8", "replace")
        given = " ".join(attempt.sent.values()).lower()
        secrets = {CANARY, *self.tenancy.secrets} if told.status == 200 else {CANARY}
        return [f"leaks {secret}" for secret in secrets if secret in answered and secret not in given]


@dataclass
class Report:
    """What a run found."""

    calls: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    complaints: list[tuple[Attempt, Told, list[str]]] = field(default_factory=list)
    slowest: float = 0.0
    slowest_query: bytes = b""

    @property
    def internal(self) -> int:
        """Answers that were a fault of ours."""
        return self.by_status[530]


def run(fuzzer: Fuzzer, calls: int, seed: int, *, most_complaints: int = 200) -> Report:
    """Make calls one after another and judge them. `asyncio.TimeoutError` if one hangs."""
    chance = random.Random(seed)  # noqa: S311 (a run must be repeatable)
    report = Report()

    async def go() -> None:
        for _ in range(calls):
            attempt = fuzzer.attempt(chance)
            told = await fuzzer.send(attempt)
            report.calls += 1
            report.by_status[told.status] += 1
            if told.seconds > report.slowest:
                report.slowest, report.slowest_query = told.seconds, attempt.query
            wrong = fuzzer.complaints(attempt, told)
            if wrong and len(report.complaints) < most_complaints:
                report.complaints.append((attempt, told, wrong))

    asyncio.run(go())
    return report


def cheap_hashes() -> None:
    """Hashes of this process take microseconds from now on: fuzzing needs none that last."""
    passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


_KEPT = ("create", "update", "register", "add", "deploy", "associate")
_NEVER_KEPT = frozenset(
    {"updateUser", "registerUserKeys", "updateAccount", "updateDomain", "updateTemplatePermissions"}
)
"""They could take the keys of those who call, or give what is theirs to everybody."""


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _scalar(chance: random.Random) -> int:
    """A Unicode scalar value: surrogates cannot be sent."""
    point = chance.randrange(chance.choice([0x80, 0x800, 0x10000, 0x110000]))
    return 0x20 if 0xD800 <= point < 0xE000 else point


def _error_text(attempt: Attempt, told: Told) -> str:
    """The text of an error, empty for a success. Raises if the answer is not well-formed."""
    if told.content_type.startswith("application/json"):
        (envelope,) = json.loads(told.body).values()
        return str(envelope["errortext"]) if told.status != 200 else ""
    if not told.content_type.startswith("text/xml"):
        raise ValueError(told.content_type)
    tree = ElementTree.fromstring(told.body)  # noqa: S314 (our own answer)
    return next(tree.iter("errortext")).text or "" if told.status != 200 else ""


_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _names_a_parameter(attempt: Attempt, text: str) -> bool:
    told = text.lower()
    known = {each.wire for each in table(attempt.spec.params)}
    # What XML cannot carry stands there as a replacement character.
    sent = {name.lower()[:80] for name in attempt.sent}
    names = known | sent | {_NOT_IN_XML.sub("\ufffd", name) for name in sent} | {"the parameters"}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", told) for name in names if name)
