"""Hostile values in every command: an error that names the parameter, well-formed, never internal, never another's."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pileus.server.api.command import CommandSpec, registry
from pileus.server.auth import passwords
from pileus.server.registered import register_all
from pileus.testing.fuzz import Attempt, Fuzzer, Told, run
from pileus.testing.tenancy import CANARY, Tenancy
from pileus.testing.world import World

register_all()
NAMES = sorted(registry)


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    patch = pytest.MonkeyPatch()
    patch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    with World.open() as world:
        made = Fuzzer(Tenancy.settle(world))
        yield made
        made.close()
    patch.undo()


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chance=st.randoms(use_true_random=False))
def test_a_command_answers_anything_with_grace(fuzzer: Fuzzer, name: str, chance: random.Random) -> None:
    attempt = fuzzer.attempt(chance, registry[name])
    told = asyncio.run(fuzzer.send(attempt))
    assert fuzzer.complaints(attempt, told) == [], (attempt.query, told.body)


def test_many_calls_after_one_another_leave_the_cloud_answering(fuzzer: Fuzzer) -> None:
    report = run(fuzzer, 1500, seed=20)
    assert [(attempt.query, told.body, wrong) for attempt, told, wrong in report.complaints] == []
    assert report.internal == 0
    # The calls get beyond the parser: they succeed, are forbidden, and meet things that are in use.
    assert report.by_status[200] > 150
    assert report.by_status[531] > 20
    assert report.by_status[536] > 3


@pytest.mark.parametrize(
    ("status", "content_type", "body", "complaint"),
    [
        (530, "application/json", b'{"listzonesresponse":{"errortext":"id"}}', "status 530"),
        (200, "application/json", b"{}}", "not well-formed"),
        (200, "text/xml", b"<a><b></a>", "not well-formed"),
        (200, "text/plain", b"", "not well-formed"),
        (431, "application/json", b'{"listzonesresponse":{"errortext":"invalid"}}', "names no parameter"),
        (431, "application/json", b'{"x":{"errortext":"id: Traceback (most"}}', "tells of its insides"),
        (200, "application/json", b'{"x":{"name":"' + CANARY.encode() + b'"}}', "leaks"),
    ],
)
def test_a_bad_answer_would_be_noticed(
    fuzzer: Fuzzer, status: int, content_type: str, body: bytes, complaint: str
) -> None:
    spec: CommandSpec = registry["listZones"]
    attempt = Attempt("user", b"", spec, True)
    (found,) = fuzzer.complaints(attempt, Told(status, content_type, body, 0.1))
    assert complaint in found


def test_a_name_that_xml_cannot_hold_may_be_told_by_its_replacement(fuzzer: Fuzzer) -> None:
    attempt = Attempt("user", b"", registry["listZones"], False, sent={"\0": "%%"})
    told = Told(431, "text/xml", "<a><errortext>parameter \ufffd is given twice</errortext></a>".encode(), 0.1)
    assert fuzzer.complaints(attempt, told) == []
