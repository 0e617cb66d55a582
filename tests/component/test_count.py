"""Limits hold under concurrency, on the account and on every domain above it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert

from pileus.server.db.queries import count
from pileus.server.db.tables.account import account, domain
from pileus.server.db.transaction import Database
from pileus.server.domain.account import Resource
from pileus.server.domain.errors import LimitExceeded


def tree(db: Database) -> tuple[int, int, int, int]:
    """Domain a with b below it; one account in each."""
    with db.write() as tx:
        born = {"created_at": tx.now}
        a = tx.insert(insert(domain).values(name="a", parent_id=1, path="/a/", level=1, **born))
        b = tx.insert(insert(domain).values(name="b", parent_id=a, path="/a/b/", level=2, **born))
        upper = tx.insert(insert(account).values(name="upper", type=0, domain_id=a, **born))
        lower = tx.insert(insert(account).values(name="lower", type=0, domain_id=b, **born))
    return a, b, upper, lower


def attempt(db: Database, account_id: int, n: int = 1) -> bool:
    try:
        with db.write() as tx:
            count.claim(tx, account_id, Resource.INSTANCE, n)
    except LimitExceeded:
        return False
    return True


def used(db: Database, owner: str, owner_id: int) -> int:
    with db.read() as tx:
        return count.of(tx, owner, owner_id)[Resource.INSTANCE].used


@pytest.mark.parametrize("limited", ["account", "domain"])
def test_fifty_at_once_never_pass_a_limit_of_ten(db: Database, limited: str) -> None:
    a, b, _upper, lower = tree(db)
    with db.write() as tx:
        count.limit(tx, limited, lower if limited == "account" else a, Resource.INSTANCE, 10)
    with ThreadPoolExecutor(50) as pool:
        won = sum(pool.map(lambda _: attempt(db, lower), range(50)))
    assert won == 10
    owners = (("account", lower), ("domain", a), ("domain", b), ("domain", 1))
    assert [used(db, owner, key) for owner, key in owners] == [10] * 4


def test_a_domain_counts_all_accounts_below_it(db: Database) -> None:
    a, _b, upper, lower = tree(db)
    with db.write() as tx:
        count.limit(tx, "domain", a, Resource.INSTANCE, 3)
    assert [attempt(db, upper, 2), attempt(db, lower, 2), attempt(db, lower, 1), attempt(db, upper)] == [
        True,
        False,
        True,
        False,
    ]


def test_a_refused_claim_counts_nowhere(db: Database) -> None:
    a, b, _upper, lower = tree(db)
    with db.write() as tx:
        count.limit(tx, "domain", a, Resource.INSTANCE, 1)
    assert attempt(db, lower)
    assert not attempt(db, lower)
    assert [used(db, "account", lower), used(db, "domain", b), used(db, "domain", a)] == [1, 1, 1]


def test_what_is_released_may_be_claimed_again_and_never_falls_below_zero(db: Database) -> None:
    _a, _b, _upper, lower = tree(db)
    with db.write() as tx:
        count.limit(tx, "account", lower, Resource.INSTANCE, 1)
    assert attempt(db, lower)
    with db.write() as tx:
        count.release(tx, lower, Resource.INSTANCE)
        count.release(tx, lower, Resource.INSTANCE)
    assert used(db, "account", lower) == 0
    assert attempt(db, lower)


def test_the_error_names_the_limit_and_whose_it_is(db: Database) -> None:
    a, _b, _upper, lower = tree(db)
    with db.write() as tx:
        count.limit(tx, "domain", a, Resource.INSTANCE, 0)
    with pytest.raises(LimitExceeded, match="limit of 0 virtual machines for domain /a/"), db.write() as tx:
        count.claim(tx, lower, Resource.INSTANCE)


def test_a_limit_below_what_is_used_only_stops_more(db: Database) -> None:
    _a, _b, _upper, lower = tree(db)
    assert attempt(db, lower, 5)
    with db.write() as tx:
        count.limit(tx, "account", lower, Resource.INSTANCE, 2)
    assert not attempt(db, lower)
    with db.read() as tx:
        assert count.of(tx, "account", lower)[Resource.INSTANCE].available == 0
