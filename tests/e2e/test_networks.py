"""Virtual and Direct tagged networks of real guests on two hosts: isolation, restarts, rest and return."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from cloud import Cloud, eventually
from inside import Guest

from pileus import sandbox
from pileus.cli.client import Client
from pileus.sandbox import SandboxHost, open_vswitch
from pileus.sandbox.commands import SandboxError

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(sandbox.missing(vlans=True)), reason="needs Open vSwitch"),
]

VLAN, OTHER_VLAN = 77, 78
GUEST_LAN, NEIGHBOUR_LAN = "192.0.2.10", "192.0.2.200"
GONE_SECONDS = 90.0


@dataclass
class Tenant:
    """An account with one guest on its virtual network and on a tagged one."""

    cloud: Cloud
    client: Client
    own: str
    lan: str
    guest: Guest

    @property
    def host(self) -> SandboxHost:
        """Where the guest runs."""
        name = self.cloud.admin.list("listVirtualMachines", "virtualmachine", id=self.guest.vm["id"])[0]["hostname"]
        return next(host for host in self.cloud.sandbox if host.name == name)

    @property
    def other(self) -> SandboxHost:
        """The host without the guest."""
        return next(host for host in self.cloud.sandbox if host is not self.host)


@pytest.fixture(scope="module")
def tenant(tagged_cloud: Cloud) -> Iterator[Tenant]:
    cloud = tagged_cloud
    client = cloud.account("alice")
    offerings = {o["name"]: o["id"] for o in cloud.admin.list("listNetworkOfferings", "networkoffering")}
    lan = cloud.admin.call(
        "createNetwork", zoneid=cloud.zone, networkofferingid=offerings["DefaultDirectNetwork"], name="lan",
        displaytext="lan", vlan=VLAN, gateway="192.0.2.1", netmask="255.255.255.0", startip=GUEST_LAN,
        endip="192.0.2.19", account="alice", domainid=1,
    )["network"]["id"]  # fmt: skip
    own = client.call(
        "createNetwork", zoneid=cloud.zone, networkofferingid=offerings["DefaultVirtualizedNetwork"], name="own",
        displaytext="own",
    )["network"]["id"]  # fmt: skip
    data = base64.b64encode(b"answer=42\n").decode()
    vm = cloud.deploy(client, "web", networkids=f"{own},{lan}", userdata=data)
    guest = Guest(cloud, client, vm, 8001)
    guest.await_answer()
    yield Tenant(cloud, client, str(own), str(lan), guest)


@contextmanager
def tagged_machine(host: SandboxHost, vlan: int, address: str) -> Iterator[str]:
    """A machine outside the cloud on a VLAN, at the switch of a host: its namespace."""
    name = f"m{vlan}"
    host.run(["ip", "netns", "add", name])
    try:
        host.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name])
        host.run(["ip", "link", "set", name, "up"])
        host.run(["ovs-vsctl", "--timeout=20", "add-port", open_vswitch.BRIDGE, name, f"tag={vlan}"])
        enter = ["ip", "netns", "exec", name]
        host.run([*enter, "ethtool", "-K", "eth0", "tx", "off"])
        host.run([*enter, "ip", "addr", "add", f"{address}/24", "dev", "eth0"])
        host.run([*enter, "ip", "link", "set", "eth0", "up"])
        yield name
    finally:
        host.run(["ovs-vsctl", "--timeout=20", "--if-exists", "del-port", open_vswitch.BRIDGE, name])
        host.run(["ip", "netns", "del", name])


def answers(host: SandboxHost, namespace: str, address: str) -> bool:
    try:
        host.run(["ip", "netns", "exec", namespace, "busybox", "ping", "-c", "1", "-W", "1", address])
    except SandboxError:
        return False
    return True


def tagged_devices(host: SandboxHost) -> set[str]:
    """Bridges of tagged networks and ports of the switch on a host."""
    names = {link["ifname"] for link in json.loads(host.run(["ip", "-j", "link", "show"]))}
    ports = set(host.run(["ovs-vsctl", "list-ports", open_vswitch.BRIDGE]).split())
    return {name for name in names | ports if name.startswith(("brv", "vx", "vl"))} - {open_vswitch.BRIDGE}


def test_a_guest_has_a_lease_on_each_network_and_the_default_route_on_one(tenant: Tenant) -> None:
    status = eventually("both cards have a lease", lambda: _both(tenant.guest))
    assert status["ip.eth0"].startswith("10.1.1.")
    assert status["ip.eth1"] == f"{GUEST_LAN}/24"
    assert status["gateway"] == "10.1.1.1"
    assert base64.b64decode(status["user_data_base64"]) == b"answer=42\n"
    shown = tenant.client.list("listVirtualMachines", "virtualmachine")[0]["nic"]
    assert [(card["type"], card["isdefault"]) for card in shown] == [("Virtual", True), ("Direct", False)]


def test_the_tagged_network_reaches_machines_of_its_vlan_and_no_other(tenant: Tenant) -> None:
    here = tenant.other
    with tagged_machine(here, VLAN, NEIGHBOUR_LAN) as ours, tagged_machine(here, OTHER_VLAN, NEIGHBOUR_LAN) as foreign:
        eventually("the neighbour reaches the guest", lambda: answers(here, ours, GUEST_LAN))
        assert tenant.guest.pings(NEIGHBOUR_LAN)
        page = here.run(["ip", "netns", "exec", ours, "busybox", "wget", "-q", "-O", "-", f"http://{GUEST_LAN}/"])
        assert "Hello from web" in page
        assert not answers(here, foreign, GUEST_LAN)
        assert answers(here, ours, GUEST_LAN)


@pytest.mark.parametrize("cleanup", [False, True], ids=["apply", "replace"])
def test_a_restarted_network_serves_as_before(tenant: Tenant, cleanup: bool) -> None:
    before = tenant.client.list("listPortForwardingRules", "portforwardingrule")
    router = _router(tenant)
    tenant.client.run("restartNetwork", id=tenant.own, cleanup=cleanup)
    assert (_router(tenant) != router) is cleanup
    assert tenant.client.list("listPortForwardingRules", "portforwardingrule") == before
    tenant.guest.await_answer()
    assert tenant.guest.pings("10.1.1.1")


def test_an_idle_network_goes_from_the_hosts_and_comes_back_as_it_was(tenant: Tenant) -> None:
    cloud, client = tenant.cloud, tenant.client
    addresses = client.list("listPublicIpAddresses", "publicipaddress")
    rules = client.list("listPortForwardingRules", "portforwardingrule")
    for name in ("network.gc.wait", "network.gc.interval"):
        cloud.admin.call("updateConfiguration", name=name, value="1")
    client.run("stopVirtualMachine", id=tenant.guest.vm["id"], forced=True)
    eventually(
        "nothing of the networks is left on the hosts",
        lambda: not any(tagged_devices(host) for host in cloud.sandbox),
        seconds=GONE_SECONDS,
    )
    assert not cloud.admin.list("listRouters", "router", listall=True, state="Running")
    resting = {n["name"]: n for n in cloud.admin.list("listNetworks", "network", listall=True)}
    assert (resting["own"]["state"], "vlan" in resting["own"]) == ("Allocated", False)
    assert (resting["lan"]["state"], resting["lan"]["vlan"]) == ("Setup", str(VLAN))
    client.run("startVirtualMachine", id=tenant.guest.vm["id"])
    tenant.guest.await_answer()
    assert client.list("listPublicIpAddresses", "publicipaddress") == addresses
    assert client.list("listPortForwardingRules", "portforwardingrule") == rules
    assert _both(tenant.guest)["ip.eth1"] == f"{GUEST_LAN}/24"


def _router(tenant: Tenant) -> str:
    (found,) = tenant.cloud.admin.list("listRouters", "router", listall=True, networkid=tenant.own)
    return str(found["id"])


def _both(guest: Guest) -> dict[str, str]:
    status = guest.status()
    return status if "ip.eth1" in status else {}
