"""Fifty calls at once against a limit of ten, over the API, on every kind of database."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from pileus.server.db.queries import count
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.domain.account import AccountType, Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import LimitExceeded
from pileus.testing import World
from pileus.testing.client import Client, Refused
from pileus.testing.database import KINDS

pytestmark = pytest.mark.parametrize("database_kind", KINDS, indirect=True)

CALLS, LIMIT = 50, 10
SECONDS = 120.0


def at_once(calls: list[Callable[[], object]]) -> Counter[int]:
    """How many calls were answered (0) or refused with each code; all begin together."""
    ends: Counter[int] = Counter()
    lock, start = threading.Lock(), threading.Barrier(len(calls))

    def make(call: Callable[[], object]) -> None:
        start.wait(SECONDS)
        code = 0
        try:
            call()
        except Refused as refused:
            code = refused.code
        with lock:
            ends[code] += 1

    threads = [threading.Thread(target=make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return ends


def users(world: World, limited: str) -> list[Caller]:
    """One account that has the limit, or two accounts below a domain that has it."""
    if limited == "account":
        return [world.account("anna", type=AccountType.USER, maximum=LIMIT)]
    above = world.domain("above")
    below = [world.domain(name, parent_id=above) for name in ("east", "west")]
    with world.db.write() as tx:
        count.limit(tx, count.DOMAIN, above, Resource.INSTANCE, LIMIT)
    return [
        world.account(name, domain_id=home, type=AccountType.USER)
        for name, home in zip(("anna", "bert"), below, strict=True)
    ]


@pytest.mark.parametrize("limited", ["account", "parent domain"])
def test_fifty_creates_against_a_limit_of_ten_make_exactly_ten(world: World, limited: str) -> None:
    cloud = world.cloud()
    clients = [Client(world.db, caller) for caller in users(world, limited)]
    wanted = {
        "zoneid": cloud.zone,
        "serviceofferingid": cloud.offering,
        "templateid": cloud.template,
        "startvm": False,
    }

    def create(which: int) -> object:
        return clients[which % len(clients)].call("deployVirtualMachine", name=f"vm{which}", **wanted)

    ends = at_once([lambda which=which: create(which) for which in range(CALLS)])

    assert ends == {0: LIMIT, LimitExceeded.code: CALLS - LIMIT}
    world.settle()
    with world.reading() as tx:
        assert tx.scalar(select(func.count()).select_from(vm).where(vm.c.live == 1, vm.c.kind == "User")) == LIMIT
        assert tx.scalar(select(func.count()).select_from(volume).where(volume.c.live == 1)) == LIMIT
    world.assert_nothing_left()
