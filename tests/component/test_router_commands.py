"""Virtual routers through the API."""

import pytest
from sqlalchemy import select, update

from pileus.server.db.queries import network as networks
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.host import HostState
from pileus.server.domain.vm import VmState
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused, counted_statements
from pileus.testing.networks import guest, implement, net_of, router_of, running_network
from pileus.wire.messages import Answer
from pileus.wire.operations import ConfigureRouter, Reason, Refusal


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def uuid_of(world: World, network_id: int) -> str:
    return world.uuid(vm, router_of(world, network_id).id)


def told(world: World, admin: Client, command: str, **sent: object) -> dict[str, object]:
    """What the job of a router command ends with."""
    job = admin.call(command, **sent)["jobid"]
    world.settle()
    done = admin.call("queryAsyncJobResult", jobid=job)
    assert done["jobstatus"] == 1, done
    return dict(done["jobresult"]["router"])


def test_an_administrator_sees_every_side_of_a_router(world: World, cloud: Cloud, user: Caller, admin: Client) -> None:
    network_id = running_network(world, user, cloud.zone)
    (shown,) = admin.call("listRouters", listall=True)["router"]
    router = router_of(world, network_id)
    assert (shown["name"], shown["state"], shown["account"]) == (router.name, "Running", user.account_name)
    assert (shown["guestipaddress"], shown["guestnetmask"]) == ("10.1.1.1", "255.255.255.0")
    assert (shown["publicip"], shown["gateway"]) == ("198.51.100.10", "198.51.100.1")
    assert shown["guestnetworkid"] == world.uuid(network, network_id)
    assert router.life is not None
    assert shown["hostid"] == world.uuid(host, router.life.host_id)
    assert shown["isredundantrouter"] is False


def test_stop_start_and_reboot_are_new_lives_with_the_same_config(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    router = uuid_of(world, network_id)
    assert told(world, admin, "stopRouter", id=router)["state"] == "Stopped"
    assert not list(world.hosts.world.guests())
    assert told(world, admin, "startRouter", id=router)["state"] == "Running"
    assert told(world, admin, "rebootRouter", id=router)["state"] == "Running"
    after = router_of(world, network_id)
    assert after.epoch == 3
    assert world.uuid(vm, after.id) == router
    world.assert_nothing_left()
    with world.reading() as tx:
        written = tx.all(select(event.c.type, event.c.state).where(event.c.type.like("ROUTER.%")))
    assert {(row["type"], row["state"]) for row in written} >= {
        ("ROUTER.STOP", "Scheduled"),
        ("ROUTER.STOP", "Completed"),
        ("ROUTER.REBOOT", "Completed"),
    }


def test_a_command_that_does_not_fit_the_state_is_refused(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    router = uuid_of(world, running_network(world, user, cloud.zone))
    with pytest.raises(Refused) as refused:
        admin.call("startRouter", id=router)
    assert refused.value.code == 431
    told(world, admin, "stopRouter", id=router)
    for command in ("stopRouter", "rebootRouter"):
        with pytest.raises(Refused) as refused:
            admin.call(command, id=router)
        assert refused.value.code == 431


def test_a_router_that_was_stopped_on_purpose_stays_so_until_a_guest_needs_it(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id, state=VmState.RUNNING)
    told(world, admin, "stopRouter", id=uuid_of(world, network_id))
    world.clock.advance(300)
    world.reconcile("network-config")
    world.settle()
    assert router_of(world, network_id).state is VmState.STOPPED
    world.result(implement(world, network_id))
    assert router_of(world, network_id).runs


def test_a_destroyed_router_is_replaced_when_a_guest_needs_one(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    first = uuid_of(world, network_id)
    told(world, admin, "destroyRouter", id=first)
    assert admin.call("listRouters", listall=True) == {}
    assert net_of(world, network_id).vnet == 1000
    world.result(implement(world, network_id))
    assert uuid_of(world, network_id) != first
    assert world.left().addresses == ("198.51.100.10 Allocated",)
    world.assert_nothing_left()


def test_a_forced_stop_does_not_wait_for_a_host_that_is_away(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    life = router_of(world, network_id).life
    assert life is not None
    world.refuses_delivery = lambda waiting: waiting.host_id == life.host_id
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == life.host_id).values(state=str(HostState.DISCONNECTED)))
    assert told(world, admin, "stopRouter", id=uuid_of(world, network_id), forced=True)["state"] == "Stopped"
    assert [kind for _, kind in world.pending_operations()] == ["StopRouter"]
    world.refuses_delivery = lambda waiting: False
    world.settle()
    world.assert_nothing_left()


def test_a_router_on_a_host_that_is_down_begins_a_new_life_elsewhere(world: World, cloud: Cloud, user: Caller) -> None:
    network_id = running_network(world, user, cloud.zone)
    guest(world, user, cloud, network_id, state=VmState.RUNNING)
    before = router_of(world, network_id).life
    assert before is not None
    world.refuses_delivery = lambda waiting: waiting.host_id == before.host_id
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == before.host_id).values(state=str(HostState.DOWN)))
    world.clock.advance(120)
    world.reconcile("network-config")
    world.settle()
    router = router_of(world, network_id)
    assert router.runs
    assert router.life is not None
    assert router.life.host_id != before.host_id
    world.refuses_delivery = lambda waiting: False
    world.settle()
    world.assert_nothing_left()


def test_filters_narrow_the_list(world: World, cloud: Cloud, user: Caller, admin: Client) -> None:
    network_id = running_network(world, user, cloud.zone)
    running_network(world, world.account(), cloud.zone)
    name = router_of(world, network_id).name
    for sent in (
        {"networkid": world.uuid(network, network_id)},
        {"name": name},
        {"keyword": name},
        {"account": user.account_name, "domainid": 1},
        {"id": uuid_of(world, network_id)},
    ):
        assert admin.names("listRouters", listall=True, **sent) == [name], sent
    assert admin.call("listRouters", listall=True, state="Running")["count"] == 2
    assert admin.call("listRouters", listall=True, state="Stopped") == {}
    assert admin.call("listRouters", listall=True, zoneid=world.zone()) == {}
    assert admin.call("listRouters", listall=True, podid=cloud.pod)["count"] == 2


def test_routers_are_for_administrators_and_domain_administrators_see_their_own(
    world: World, cloud: Cloud, user: Caller
) -> None:
    router = uuid_of(world, running_network(world, user, cloud.zone))
    with pytest.raises(Refused) as refused:
        Client(world.db, user).call("listRouters")
    assert refused.value.code in (401, 432)
    inside = world.domain()
    below = Client(world.db, world.account(domain_id=inside, type=AccountType.DOMAIN_ADMIN))
    assert below.call("listRouters", listall=True) == {}
    for command in ("stopRouter", "rebootRouter", "destroyRouter", "startRouter"):
        with pytest.raises(Refused) as refused:
            below.call(command, id=router)
        assert refused.value.code == 531
    domain_admin = Client(world.db, world.account(type=AccountType.DOMAIN_ADMIN))
    (shown,) = domain_admin.call("listRouters", listall=True)["router"]
    assert "hostid" not in shown


def test_a_page_of_routers_costs_the_same_however_long_it_is(world: World, cloud: Cloud, admin: Client) -> None:
    running_network(world, world.account(), cloud.zone)
    admin.call("listRouters", listall=True)
    with counted_statements(world.db) as few:
        admin.call("listRouters", listall=True)
    for _ in range(4):
        running_network(world, world.account(), cloud.zone)
    with counted_statements(world.db) as many:
        assert admin.call("listRouters", listall=True)["count"] == 5
    assert len(many) == len(few)


def test_a_config_the_router_rejects_is_told_and_not_pushed_again_until_it_changes(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    network_id = running_network(world, user, cloud.zone)
    pushes = []

    def reject(waiting: object) -> Answer | None:
        operation = getattr(waiting, "operation", None)
        if not isinstance(operation, ConfigureRouter):
            return None
        pushes.append(operation.config.generation)
        return Answer(getattr(waiting, "operation_id", ""), "", refusal=Refusal(Reason.REJECTED, "bad rule"))

    world.instead = reject
    job = admin.call("restartNetwork", id=world.uuid(network, network_id))["jobid"]
    code, text = world.failure(job)
    assert code == 534
    assert "bad rule" in text
    world.reconcile("network-config")
    world.settle()
    assert len(pushes) == 1
    world.instead = lambda waiting: None
    with world.db.write() as tx:
        networks.bump(tx, network_id)
    world.reconcile("network-config")
    world.settle()
    assert net_of(world, network_id).applied == net_of(world, network_id).desired
    world.assert_nothing_left()
