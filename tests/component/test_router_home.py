"""Where routers live: a zone's choice, the system template, and the sizes of routers."""

from typing import Any

import pytest
from sqlalchemy import select

from pileus.server.db.tables.network import network
from pileus.server.db.tables.template import template, template_copy
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused
from pileus.testing.networks import implement, router_of, running_network, virtual_network
from pileus.wire.operations import RouterMachine, RouterSpec

NAME = "router.template.id"


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


@pytest.fixture
def system(world: World, cloud: Cloud) -> int:
    return world.template(cloud.zone, is_public=0)


def name_template(world: World, admin: Client, template_id: int) -> str:
    """Make it the system template; its UUID."""
    return str(admin.call("updateConfiguration", name=NAME, value=template_id)["configuration"]["value"])


def choose(admin: Client, zone_id: int, launcher: str) -> None:
    admin.call("updateZone", id=zone_id, **{"details[0].router.launcher": launcher})


def specs(world: World) -> list[RouterSpec]:
    found = [guest.spec for _, guest in world.hosts.world.guests()]
    return [spec for spec in found if isinstance(spec, RouterSpec)]


def told(world: World, admin: Client, command: str, **sent: object) -> dict[str, Any]:
    """What the job of a router command ends with."""
    job = admin.call(command, **sent)["jobid"]
    world.settle()
    done = admin.call("queryAsyncJobResult", jobid=job)
    assert done["jobstatus"] == 1, done
    return dict(done["jobresult"]["router"])


def test_routers_live_in_namespaces_unless_somebody_says_otherwise(world: World, cloud: Cloud, user: Caller) -> None:
    running_network(world, user, cloud.zone)
    assert [spec.machine for spec in specs(world)] == [None]


def test_a_zone_may_have_its_routers_in_machines(
    world: World, cloud: Cloud, user: Caller, admin: Client, system: int
) -> None:
    uuid = name_template(world, admin, system)
    choose(admin, cloud.zone, "vm")
    network_id = running_network(world, user, cloud.zone)
    with world.reading() as tx:
        copy = tx.all(select(template_copy).where(template_copy.c.template_id == system))[0]
    (spec,) = specs(world)
    assert spec.machine == RouterMachine(copy["url"], copy["sha256"])
    assert {nic.default: nic.rate_mbps for nic in spec.nics} == {True: 200, False: 0}
    (shown,) = admin.call("listRouters", listall=True)["router"]
    assert shown["templateid"] == uuid
    life = router_of(world, network_id).life
    # The built-in offering has 64 MiB: a machine that could not boot would help nobody.
    assert life is not None
    assert (spec.ram_mib, life.ram_mib) == (128, 128)
    world.assert_nothing_left()


def test_the_setting_holds_for_zones_without_a_choice_of_their_own(
    world: World, cloud: Cloud, user: Caller, admin: Client, system: int
) -> None:
    name_template(world, admin, system)
    admin.call("updateConfiguration", name="router.launcher", value="vm")
    choose(admin, cloud.zone, "namespace")
    running_network(world, user, cloud.zone)
    assert [spec.machine for spec in specs(world)] == [None]
    choose(admin, cloud.zone, "")
    running_network(world, world.account(), cloud.zone)
    assert [spec.machine is None for spec in specs(world)] == [True, False]


@pytest.mark.parametrize("cleanup", [True, False])
def test_a_choice_is_in_force_at_the_next_start(
    world: World, cloud: Cloud, user: Caller, admin: Client, system: int, cleanup: bool
) -> None:
    network_id = running_network(world, user, cloud.zone)
    before = router_of(world, network_id)
    name_template(world, admin, system)
    choose(admin, cloud.zone, "vm")
    restart = admin.call("restartNetwork", id=world.uuid(network, network_id), cleanup=cleanup)
    world.result(restart["jobid"])
    assert [spec.machine is not None for spec in specs(world)] == [cleanup]
    if not cleanup:
        told(world, admin, "rebootRouter", id=world.uuid(vm, before.id))
        assert [spec.machine is not None for spec in specs(world)] == [True]
    choose(admin, cloud.zone, "namespace")
    router = world.uuid(vm, router_of(world, network_id).id)
    assert "templateid" not in told(world, admin, "rebootRouter", id=router)
    assert [spec.machine for spec in specs(world)] == [None]
    world.assert_nothing_left()


def test_a_machine_is_not_chosen_before_there_is_a_template(world: World, cloud: Cloud, admin: Client) -> None:
    with pytest.raises(Refused) as refused:
        choose(admin, cloud.zone, "vm")
    assert (refused.value.code, NAME in refused.value.text) == (431, True)


def test_a_choice_that_there_is_not_is_refused(world: World, cloud: Cloud, admin: Client) -> None:
    with pytest.raises(Refused) as refused:
        choose(admin, cloud.zone, "cellar")
    assert (refused.value.code, "namespace, vm" in refused.value.text) == (431, True)


def test_details_that_mean_nothing_are_let_go(world: World, cloud: Cloud, admin: Client) -> None:
    admin.call("updateZone", id=cloud.zone, **{"details[0].colour": "red"})


def test_a_network_waits_for_no_template_that_its_zone_does_not_hold(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    name_template(world, admin, world.template(cloud.zone, ready=False, is_public=0))
    choose(admin, cloud.zone, "vm")
    network_id = virtual_network(world, user, cloud.zone)
    code, text = world.failure(implement(world, network_id))
    assert (code, "secondary storage" in text) == (534, True)
    assert specs(world) == []
    world.assert_nothing_left()


def test_the_template_that_is_named_is_the_systems_and_the_one_before_is_not(
    world: World, cloud: Cloud, admin: Client, system: int
) -> None:
    other = world.template(cloud.zone, is_public=0)
    name_template(world, admin, system)
    uuid = name_template(world, admin, other)
    assert uuid == world.uuid(template, other)
    with world.reading() as tx:
        types = {row["id"]: row["type"] for row in tx.all(select(template))}
    assert (types[system], types[other], types[int(cloud.template)]) == ("USER", "SYSTEM", "USER")
    assert admin.call("updateConfiguration", name=NAME)["configuration"].get("value") is None
    with world.reading() as tx:
        assert {row["type"] for row in tx.all(select(template))} == {"USER"}


def test_a_template_that_cannot_be_the_systems_is_refused(world: World, cloud: Cloud, admin: Client) -> None:
    for named in (str(cloud.template), "4711", "nonsense"):
        with pytest.raises(Refused) as refused:
            admin.call("updateConfiguration", name=NAME, value=named)
        assert refused.value.code == 431, named
    with world.reading() as tx:
        assert {row["type"] for row in tx.all(select(template))} == {"USER"}


def test_the_system_template_is_neither_deleted_nor_deployed(
    world: World, cloud: Cloud, admin: Client, system: int
) -> None:
    uuid = name_template(world, admin, system)
    with pytest.raises(Refused) as refused:
        admin.call("deleteTemplate", id=uuid)
    assert refused.value.code == 536
    with pytest.raises(Refused) as refused:
        admin.call("deployVirtualMachine", templateid=uuid, zoneid=cloud.zone, serviceofferingid=cloud.offering)
    assert (refused.value.code, "system VMs" in refused.value.text) == (431, True)


def test_a_stopped_router_takes_another_size(world: World, cloud: Cloud, user: Caller, admin: Client) -> None:
    network_id = running_network(world, user, cloud.zone)
    router = world.uuid(vm, router_of(world, network_id).id)
    size = {"cpunumber": 2, "cpuspeed": 300, "memory": 192, "issystem": True, "systemvmtype": "domainrouter"}
    large = admin.call("createServiceOffering", name="large", displaytext="large", **size)["serviceoffering"]["id"]
    change = {"id": router, "serviceofferingid": large}
    with pytest.raises(Refused) as refused:
        admin.call("changeServiceForRouter", **change)
    assert (refused.value.code, "not Stopped" in refused.value.text) == (431, True)
    told(world, admin, "stopRouter", id=router)
    shown = admin.call("changeServiceForRouter", **change)["router"]
    assert (shown["serviceofferingid"], shown["serviceofferingname"]) == (large, "large")
    told(world, admin, "startRouter", id=router)
    (spec,) = specs(world)
    assert (spec.cpus, spec.cpu_mhz, spec.ram_mib) == (2, 300, 192)
    world.assert_nothing_left()


def test_a_router_takes_no_size_of_guests_and_none_from_strangers(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    router = world.uuid(vm, router_of(world, running_network(world, user, cloud.zone)).id)
    told(world, admin, "stopRouter", id=router)
    with pytest.raises(Refused) as refused:
        admin.call("changeServiceForRouter", id=router, serviceofferingid=cloud.offering)
    assert (refused.value.code, "not for routers" in refused.value.text) == (431, True)
    stranger = Client(world.db, world.account(domain_id=world.domain(), type=AccountType.DOMAIN_ADMIN))
    with pytest.raises(Refused) as refused:
        stranger.call("changeServiceForRouter", id=router, serviceofferingid=cloud.offering)
    assert refused.value.code == 531
