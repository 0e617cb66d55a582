"""Rules at public addresses under the soundness harness: one kind for what all share, and what is special to others."""

import pytest
from network_cases import Case, address_of, command, config_of, in_use, is_lost, is_running
from sqlalchemy import select

from pileus.server.db.queries.rule import BALANCER, FIREWALL, IP_FORWARDING
from pileus.server.db.tables.network import port_forwarding_rule, public_ip
from pileus.server.db.transaction import Tx
from pileus.server.services import firewall, ip_forwarding, load_balancer, port_forwarding, remote_access_vpn, vpn_user
from pileus.server.services import public_ip as addresses
from pileus.testing import World
from pileus.testing.client import Client
from pileus.testing.networks import guest, router_of, running_network
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness
from pileus.wire.router import RouterConfig


def add_rule(tx: Tx, case: Case, _router: int) -> str:
    return port_forwarding.create(
        tx,
        case.user,
        public_ip_id=address_of(tx, case.network, source_nat=True),
        vm_id=case.guest,
        protocol="tcp",
        public_port=8080,
        public_end_port=None,
        private_port=80,
        private_end_port=None,
        cidrs=(),
        open_firewall=True,
    )[0]


def delete_rule(tx: Tx, case: Case, _router: int) -> str:
    rule = tx.scalar(select(port_forwarding_rule.c.id).where(port_forwarding_rule.c.live == 1))
    return port_forwarding.delete(tx, case.user, rule)


def change_rule(tx: Tx, case: Case, _router: int) -> str:
    return port_forwarding.change(
        tx,
        case.user,
        public_ip_id=address_of(tx, case.network, source_nat=True),
        protocol="tcp",
        public_port=8080,
        private_port=8000,
        private_ip=None,
        vm_id=None,
    )


def with_rule(world: World) -> Case:
    case = in_use(world)
    world.result(command(add_rule)(world, case))
    return case


def with_static_nat(world: World) -> Case:
    case = in_use(world)
    with world.db.write() as tx:
        job, uuid = addresses.associate(
            tx, case.user, zone_id=case.cloud.zone, network_id=case.network, account_name=None, domain_id=None
        )
    world.result(job)
    with world.db.write() as tx:
        address = tx.scalar(select(public_ip.c.id).where(public_ip.c.uuid == uuid))
        ip_forwarding.enable(tx, case.user, public_ip_id=address, vm_id=case.guest)
        job, _ = ip_forwarding.create(
            tx,
            case.user,
            public_ip_id=address,
            protocol="tcp",
            start_port=22,
            end_port=None,
            cidrs=(),
            open_firewall=True,
        )
    world.result(job)
    return case


def disable_static_nat(tx: Tx, case: Case, _router: int) -> str:
    return ip_forwarding.disable(tx, case.user, address_of(tx, case.network, source_nat=False))


def with_balancer(world: World) -> Case:
    case = in_use(world)
    with world.db.write() as tx:
        job, _ = load_balancer.create(
            tx,
            case.user,
            name="web",
            description=None,
            public_ip_id=address_of(tx, case.network, source_nat=True),
            zone_id=None,
            account_name=None,
            domain_id=None,
            algorithm="roundrobin",
            public_port=80,
            private_port=80,
            cidrs=(),
            open_firewall=True,
        )
    world.result(job)
    return case


def with_member(world: World) -> Case:
    case = with_balancer(world)
    world.result(command(assign)(world, case))
    return case


def assign(tx: Tx, case: Case, _router: int) -> str:
    return load_balancer.assign(tx, case.user, live_of(tx, BALANCER.table), [case.guest])


def remove(tx: Tx, case: Case, _router: int) -> str:
    return load_balancer.remove(tx, case.user, live_of(tx, BALANCER.table), [case.guest])


def live_of(tx: Tx, table: object) -> int:
    return int(tx.scalar(select(table.c.id).where(table.c.live == 1)))  # type: ignore[attr-defined]


def applied(world: World, case: Case) -> RouterConfig | None:
    """What the router runs, which is what is declared; None when there is no router any more."""
    if is_lost(world, case):
        return None
    is_running(world, case)
    return config_of(world, router_of(world, case.network).name)


def forwards(world: World, case: Case, count: int) -> None:
    config = applied(world, case)
    if config is not None:
        assert (len(config.port_forwards), len(config.firewall)) == (count, count)
    with world.db.read() as tx:
        states = [row["state"] for row in tx.all(select(FIREWALL.table).where(FIREWALL.table.c.live == 1))]
    assert states == ["Active"] * count


def leads_to_other_port(world: World, case: Case) -> None:
    config = applied(world, case)
    if config is not None:
        assert [rule.guest_start for rule in config.port_forwards] == [8000]


def maps_nothing(world: World, case: Case) -> None:
    config = applied(world, case)
    if config is not None:
        assert (config.static_nats, config.firewall) == ((), ())
    with world.db.read() as tx:
        assert tx.all(select(IP_FORWARDING.table).where(IP_FORWARDING.table.c.live == 1)) == []
        assert tx.all(select(public_ip).where(public_ip.c.vm_id.is_not(None))) == []


def balances(world: World, case: Case, count: int) -> None:
    config = applied(world, case)
    if config is not None:
        assert [len(balancer.members) for balancer in config.load_balancers] == [count]


def with_way_in(world: World) -> Case:
    admin = Client(world.db)
    cloud = world.cloud()
    admin.call("updateConfiguration", name="router.template.id", value=world.template(cloud.zone, is_public=0))
    admin.call("updateZone", id=cloud.zone, **{"details[0].router.launcher": "vm"})
    user = world.account()
    network = running_network(world, user, cloud.zone)
    case = Case(cloud, user, network, guest(world, user, cloud, network))
    with world.db.write() as tx:
        job, _ = remote_access_vpn.create(
            tx,
            case.user,
            public_ip_id=address_of(tx, case.network, source_nat=True),
            ip_range=None,
            account_name=None,
            domain_id=None,
            open_firewall=True,
        )
    world.result(job)
    return case


def with_vpn_user(world: World) -> Case:
    case = with_way_in(world)
    world.result(command(add_vpn_user)(world, case))
    return case


def add_vpn_user(tx: Tx, case: Case, _router: int) -> str:
    return vpn_user.add(tx, case.user, username="alice", password="a-password", account_name=None, domain_id=None)[0]


def remove_vpn_user(tx: Tx, case: Case, _router: int) -> str:
    return vpn_user.remove(tx, case.user, username="alice", account_name=None, domain_id=None)


def admits(world: World, case: Case, count: int) -> None:
    config = applied(world, case)
    if config is not None:
        assert config.vpn is not None
        assert len(config.vpn.users) == count


def associate_and_open(tx: Tx, case: Case, _router: int) -> str:
    """An address may have a rule before the job that brings it has ended, and that may fail."""
    job, uuid = addresses.associate(
        tx, case.user, zone_id=case.cloud.zone, network_id=case.network, account_name=None, domain_id=None
    )
    firewall.create(
        tx,
        case.user,
        public_ip_id=int(tx.scalar(select(public_ip.c.id).where(public_ip.c.uuid == uuid))),
        protocol="tcp",
        start_port=22,
        end_port=None,
        icmp_type=None,
        icmp_code=None,
        cidrs=(),
    )
    return job


SOUND = [
    Soundness("public_ip.associate", prepare=in_use, submit=command(associate_and_open)),
    Soundness("vpn_user.add", prepare=with_way_in, submit=command(add_vpn_user), holds=lambda w, c: admits(w, c, 1)),
    Soundness(
        "vpn_user.remove", prepare=with_vpn_user, submit=command(remove_vpn_user), holds=lambda w, c: admits(w, c, 0)
    ),
    Soundness("rule.create", prepare=in_use, submit=command(add_rule), holds=lambda w, c: forwards(w, c, 1)),
    Soundness("rule.delete", prepare=with_rule, submit=command(delete_rule), holds=lambda w, c: forwards(w, c, 0)),
    Soundness("rule.change", prepare=with_rule, submit=command(change_rule), holds=leads_to_other_port),
    Soundness("static_nat.disable", prepare=with_static_nat, submit=command(disable_static_nat), holds=maps_nothing),
    Soundness(
        "load_balancer.assign",
        prepare=with_balancer,
        submit=command(assign),
        holds=lambda w, c: balances(w, c, 1),
    ),
    Soundness(
        "load_balancer.remove",
        prepare=with_member,
        submit=command(remove),
        holds=lambda w, c: balances(w, c, 0),
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: sound.workflow)
def test_it_is_sound(sound: Soundness[Case], scenario: Scenario) -> None:
    sound.check(scenario)
