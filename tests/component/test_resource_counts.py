"""Counts that drifted are corrected, told once, and their alert goes with the next recount that finds none."""

import pytest
from sqlalchemy import select, update
from structlog.testing import capture_logs
from vm_setup import deployed, steady_cloud

from pileus.server.db.queries import count
from pileus.server.db.tables.account import resource_count
from pileus.server.db.tables.event import alert
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.client import counted_statements


@pytest.fixture
def alice(world: World) -> Caller:
    caller = world.account("alice", domain_id=world.domain("below", parent_id=world.domain("d")))
    deployed(world, caller, steady_cloud(world), name="web")
    return caller


def standing(world: World) -> list[str]:
    with world.reading() as tx:
        return list(tx.execute(select(alert.c.subject_key).where(alert.c.standing == 1)).scalars())


def spoil(world: World, owner: str, owner_id: int, resource: Resource, used: int) -> None:
    with world.db.write() as tx:
        mine = (resource_count.c.owner == owner, resource_count.c.owner_id == owner_id)
        tx.execute(update(resource_count).where(*mine, resource_count.c.resource == int(resource)).values(used=used))


def test_counts_that_are_right_are_left_alone(world: World, alice: Caller) -> None:
    with capture_logs() as logs:
        world.reconcile("resource-counts")
    assert (standing(world), logs) == ([], [])
    world.assert_nothing_left()


@pytest.mark.parametrize("used", [0, 7])
def test_a_count_of_an_account_or_domain_that_drifted_is_corrected_and_told(
    world: World, alice: Caller, used: int
) -> None:
    spoil(world, count.ACCOUNT, alice.account_id, Resource.VOLUME, used)
    spoil(world, count.DOMAIN, alice.domain_id, Resource.INSTANCE, used)
    world.reconcile("resource-counts")
    assert sorted(standing(world)) == [
        f"count account:{alice.account_id}:{int(Resource.VOLUME)}",
        f"count domain:{alice.domain_id}:{int(Resource.INSTANCE)}",
    ]
    world.assert_nothing_left()
    world.reconcile("resource-counts")
    assert standing(world) == []


def test_looking_costs_the_same_in_a_large_cloud(world: World, alice: Caller) -> None:
    world.reconcile("resource-counts")
    with counted_statements(world.db) as few:
        world.reconcile("resource-counts")
    for _ in range(5):
        world.account(domain_id=world.domain())
    with counted_statements(world.db) as many:
        world.reconcile("resource-counts")
    assert len(many) == len(few)
