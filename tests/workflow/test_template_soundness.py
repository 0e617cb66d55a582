"""Downloading, deleting and evicting templates, whatever goes wrong."""

import pytest
from sqlalchemy import select
from template_cases import Case, registered, within
from vm_cases import asked, fresh, ordered, result_of

from pileus.server.db.queries import template as templates
from pileus.server.db.queries import template_on_pool
from pileus.server.db.tables.template import template, template_copy
from pileus.server.domain.caller import root_caller
from pileus.server.domain.ids import Id, Template
from pileus.server.domain.storage import CopyState
from pileus.server.jobs.submit import JobRef
from pileus.server.services import template as template_service
from pileus.server.services import vm as vm_service
from pileus.server.workflows.template_delete import begin_eviction, begin_removal
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


def prepared(world: World) -> Case:
    """A cloud and an account with nothing."""
    cloud = world.cloud(hosts=1)
    return Case(cloud, world.account("alice"), Id[Template](0))


def with_template(world: World) -> Case:
    """An account with a template that is ready."""
    case = prepared(world)
    case.template = world.template(case.cloud.zone, "mine", owner=case.caller)
    return case


def unused_on_pool(world: World) -> Case:
    """A template on a pool whose only clone is gone."""
    case = fresh(world)
    result_of(world, ordered(world, case))
    result_of(world, asked(world, case, lambda tx, caller, vm: vm_service.destroy(tx, root_caller(), vm, expunge=True)))
    return Case(case.cloud, case.caller, case.cloud.template)


def downloaded_or_said_why(world: World, case: Case) -> None:
    """Ready with everything hosts need, or Failed with a reason."""
    with world.db.read() as tx:
        copy = templates.copies_of(tx, case.template)[0]
        status = tx.scalar(select(template_copy.c.status))
    if copy.state is CopyState.READY:
        assert copy.url
        assert copy.sha256
        assert copy.virtual_bytes > 0
    else:
        assert copy.state is CopyState.FAILED
        assert status


def deletion(world: World, case: Case) -> JobRef:
    return within(world, "template.delete", lambda tx: template_service.delete(tx, case.caller, case.template, None))


def is_deleted(world: World, case: Case) -> None:
    with world.db.read() as tx:
        assert tx.scalar(select(template.c.live).where(template.c.id == case.template)) is None


def removal(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        copy = templates.copies_of(tx, case.template)[0]
        assert templates.move(tx, copy.id, CopyState.REMOVING)
    return within(world, "template.remove_copy", lambda tx: begin_removal(tx, copy))


def has_no_copy(world: World, case: Case) -> None:
    with world.db.read() as tx:
        assert templates.copies_of(tx, case.template) == []


def eviction(world: World, case: Case) -> JobRef:
    with world.db.read() as tx:
        (on_pool,) = template_on_pool.of_template(tx, case.template)
        now = tx.now
    return within(world, "template.evict", lambda tx: begin_eviction(tx, on_pool, used_before=now + 1))


def is_evicted(world: World, case: Case) -> None:
    with world.db.read() as tx:
        assert template_on_pool.of_template(tx, case.template) == []
    assert all(not pool.templates for pool in world.hosts.world.pools.values())


DOWNLOAD = Soundness[Case]("template.download", prepare=prepared, submit=registered, holds=downloaded_or_said_why)
DELETE = Soundness[Case]("template.delete", prepare=with_template, submit=deletion, holds=is_deleted)
REMOVE_COPY = Soundness[Case]("template.remove_copy", prepare=with_template, submit=removal, holds=has_no_copy)
EVICT = Soundness[Case]("template.evict", prepare=unused_on_pool, submit=eviction, holds=is_evicted)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_download_is_sound(scenario: Scenario) -> None:
    DOWNLOAD.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_deletion_is_sound(scenario: Scenario) -> None:
    DELETE.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_removing_a_copy_is_sound(scenario: Scenario) -> None:
    REMOVE_COPY.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_eviction_is_sound(scenario: Scenario) -> None:
    EVICT.check(scenario)
