"""Each invariant of simulated runs can fail: a sound cloud is broken by hand in one place, and it tells."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, select, update

from pileus.agent.backends.simulator.world import Image
from pileus.server.api.command import registry
from pileus.server.db import rows
from pileus.server.db.tables.account import account, resource_count
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host, host_capacity, storage_pool
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network, network_config, nic, port_forwarding_rule, public_ip, vlan_ip_range
from pileus.server.db.tables.place import cluster, zone_vnet
from pileus.server.db.tables.template import template_copy
from pileus.server.db.tables.vm import vm
from pileus.server.domain.vm import VmKind
from pileus.server.events import types
from pileus.server.registered import register_all
from pileus.testing.clock import FakeClock
from pileus.testing.simulation import invariants
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.invariants import INVARIANTS, End, broken
from pileus.testing.simulation.lines import LinedWorld
from pileus.testing.simulation.memory import memory_database
from pileus.testing.simulation.run import Play
from pileus.testing.simulation.sealed import overheard, sealed
from pileus.testing.simulation.stage import stage
from pileus.testing.simulation.workload import Ack

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """A cloud at rest in which two guests run, one with a rule, and one call has failed."""
    register_all()
    clock = FakeClock()
    chronicle = Chronicle(clock)
    set_up = stage(2)
    with memory_database(clock, set_up.image) as db, sealed("invariants"), overheard(chronicle):
        play = Play(LinedWorld(db, clock, like=set_up.world), set_up, random.Random(1), chronicle)
        play.world.trouble = False
        anna = next(person for person in play.workload.people if person.name == "anna")
        calls = ("deployVirtualMachine", "deployVirtualMachine", "createPortForwardingRule", "rebootVirtualMachine")
        for command in calls:
            while not play.workload.want(anna, registry[command]):
                play.world.settle()
            play.world.settle()
        yield play
        play.world.end()


class _Undone(Exception):
    """Nothing that a test broke stays."""


@pytest.fixture
def end(play: Play) -> Iterator[End]:
    """What the invariants judge. Whatever a test changes is gone after it."""
    world = play.world.hosts.world
    kept = copy.deepcopy((world.hosts, world.pools))
    with pytest.raises(_Undone), play.world.db.write() as tx:
        yield play.end(tx, quiet=True)
        raise _Undone
    world.hosts, world.pools = kept


def test_a_sound_cloud_breaks_nothing(end: End) -> None:
    assert not broken(end)


def test_every_invariant_has_its_number() -> None:
    told = [(check.__doc__ or "").split(" ", 1)[0] for check in INVARIANTS]
    assert told == [f"({number})" for number in range(1, 12)]


def _column(end: End, statement: object) -> list[int]:
    return [row[0] for row in end.tx.execute(statement)]  # type: ignore[arg-type]


def _twice_alive(end: End) -> None:
    hosts = list(end.world.hosts.world.hosts.values())
    name, guest = next((name, guest) for each in hosts for name, guest in each.guests.items() if not guest.router)
    other = next(each for each in hosts if name not in each.guests)
    other.guests[name] = copy.deepcopy(guest)


def _vlan_of_nobody(end: End) -> None:
    end.tx.execute(update(zone_vnet).values(network_id=None))


def _vlan_of_two(end: End) -> None:
    end.tx.execute(update(zone_vnet).values(network_id=None))
    end.tx.execute(update(network).values(vnet=5, isolation="vlan", specified_vlan=1))


def _vlan_of_public_addresses(end: End) -> None:
    end.tx.execute(update(zone_vnet).values(network_id=None))
    end.tx.execute(update(network).where(network.c.vnet.is_not(None)).values(isolation="vlan", specified_vlan=1))
    end.tx.execute(
        update(vlan_ip_range).values(
            vlan=str(end.tx.scalar(select(network.c.vnet).where(network.c.vnet.is_not(None)).limit(1)))
        )
    )


def _address_of_nobody(end: End) -> None:
    end.tx.execute(update(public_ip).where(public_ip.c.account_id.is_not(None)).values(account_id=None))


def _free_and_owned(end: End) -> None:
    end.tx.execute(update(public_ip).where(public_ip.c.account_id.is_not(None)).values(state="Free"))


def _guest_of_a_closed_account(end: End) -> None:
    owner = _column(end, select(vm.c.account_id).where(vm.c.kind == str(VmKind.USER)).limit(1))
    end.tx.execute(update(account).where(account.c.id.in_(owner)).values(live=None))


def _hosts_of_a_removed_cluster(end: End) -> None:
    end.tx.execute(update(cluster).values(live=None))


def _card_of_a_removed_network(end: End) -> None:
    used = _column(end, select(nic.c.network_id).where(nic.c.live == 1))
    end.tx.execute(update(network).where(network.c.id.in_(used)).values(live=None))


def _one_too_many_counted(end: End) -> None:
    counted = resource_count.c.used > 0
    end.tx.execute(update(resource_count).where(counted).values(used=resource_count.c.used + 1))


def _over_the_limit(end: End) -> None:
    end.tx.execute(update(resource_count).where(resource_count.c.used > 0).values(maximum=0))


def _memory_kept(end: End) -> None:
    end.tx.execute(update(host_capacity).values(ram_used_mib=host_capacity.c.ram_used_mib + 1))


def _space_kept(end: End) -> None:
    end.tx.execute(update(storage_pool).values(allocated_bytes=storage_pool.c.allocated_bytes + 1))


def _open_job(end: End) -> None:
    end.tx.execute(update(job).where(job.c.workflow == "vm.reboot").values(open=1, phase="forward"))


def _job_that_took_a_day(end: End) -> None:
    end.tx.execute(update(job).values(completed_at=job.c.created_at + DAY_MS))


def _starting_for_ever(end: End) -> None:
    end.tx.execute(update(vm).values(state="Starting"))


def _running_without_a_life(end: End) -> None:
    end.tx.execute(update(vm).where(vm.c.kind == str(VmKind.USER)).values(state="Stopped"))


def _hosts_never_connected(end: End) -> None:
    end.tx.execute(update(host).values(state="Connecting"))


def _rule_on_its_way(end: End) -> None:
    end.tx.execute(update(port_forwarding_rule).values(state="Revoke"))


def _behind(end: End) -> None:
    end.tx.execute(update(network_config).values(desired=network_config.c.desired + 1))


def _changed_and_not_declared(end: End) -> None:
    end.tx.execute(update(network).values(network_domain="drifted.example"))


def _guest_gone(end: End) -> None:
    for each in end.world.hosts.world.hosts.values():
        each.guests = {name: guest for name, guest in each.guests.items() if guest.router}


def _stray_file(end: End) -> None:
    for pool in end.world.hosts.world.pools.values():
        pool.volumes["stray"] = Image(1, 1)


def _image_gone(end: End) -> None:
    end.tx.execute(update(template_copy).values(name="another"))


def _unended(end: End) -> None:
    end.tx.execute(delete(event).where(event.c.start_id.is_not(None)))


def _begun_twice(end: End) -> None:
    row = dict(end.tx.all(select(event).where(event.c.type == types.VM_START, event.c.state == "Completed"))[0])
    end.tx.execute(insert(event).values({**row, "id": None, "uuid": "another"}))


def _never_begun(end: End) -> None:
    end.tx.execute(update(event).where(event.c.type == types.VOLUME_CREATE).values(type="OTHER"))


def _failed_and_there(end: End) -> None:
    end.tx.execute(update(job).where(job.c.workflow == "vm.deploy").values(phase="failed"))


BREAKS: list[tuple[Callable[[End], list[str]], Callable[[End], None]]] = [
    (invariants.one_life, _twice_alive),
    (invariants.one_owner, _vlan_of_nobody),
    (invariants.one_owner, _vlan_of_two),
    (invariants.one_owner, _vlan_of_public_addresses),
    (invariants.one_owner, _address_of_nobody),
    (invariants.one_owner, _free_and_owned),
    (invariants.one_owner, _guest_of_a_closed_account),
    (invariants.one_owner, _hosts_of_a_removed_cluster),
    (invariants.one_owner, _card_of_a_removed_network),
    (invariants.counts_right, _one_too_many_counted),
    (invariants.counts_right, _over_the_limit),
    (invariants.capacity_right, _memory_kept),
    (invariants.capacity_right, _space_kept),
    (invariants.jobs_ended, _open_job),
    (invariants.jobs_ended, _job_that_took_a_day),
    (invariants.states_stable, _starting_for_ever),
    (invariants.states_stable, _running_without_a_life),
    (invariants.states_stable, _hosts_never_connected),
    (invariants.states_stable, _rule_on_its_way),
    (invariants.configs_applied, _behind),
    (invariants.configs_applied, _changed_and_not_declared),
    (invariants.both_know, _guest_gone),
    (invariants.both_know, _stray_file),
    (invariants.both_know, _image_gone),
    (invariants.events_pair, _unended),
    (invariants.events_pair, _begun_twice),
    (invariants.events_pair, _never_begun),
    (invariants.failures_leave_nothing, _failed_and_there),
]


@pytest.mark.parametrize(("check", "harm"), BREAKS, ids=[harm.__name__.strip("_") for _, harm in BREAKS])
def test_what_is_broken_is_told(end: End, check: Callable[[End], list[str]], harm: Callable[[End], None]) -> None:
    assert not check(end)
    harm(end)
    assert check(end)


def test_a_host_to_which_nobody_gave_an_agent_may_wait_for_one(end: End) -> None:
    row = rows.every(end.tx, host, live=1, kind="Routing")[0]
    end.tx.execute(update(host).where(host.c.id == row["id"]).values(state="Connecting"))
    assert invariants.states_stable(end)
    end.world.hosts.world.hosts.pop(row["uuid"])
    assert not invariants.states_stable(end)


def test_work_that_never_rests_is_told(end: End) -> None:
    assert invariants.jobs_ended(replace(end, quiet=False))


def test_an_acknowledged_call_that_is_lost_is_told(end: End) -> None:
    assert not invariants.nothing_lost(end)
    for lost in (
        Ack("startVirtualMachine", "anna", {}, "no such job", None),
        Ack("createNetwork", "anna", {}, None, "no such network"),
    ):
        assert invariants.nothing_lost(replace(end, acks=(*end.acks, lost)))
    end.tx.execute(update(vm).where(vm.c.kind == str(VmKind.USER)).values(state="Destroyed"))
    assert invariants.nothing_lost(end)
