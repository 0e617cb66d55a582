"""Two libvirt hosts, two accounts, real guests: what users see from inside their guests and from outside."""

import base64
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
from cloud import Cloud, Files, eventually, refused
from inside import Guest

from pileus.cli.client import Client

pytestmark = [pytest.mark.kvm, pytest.mark.slow]

USER_DATA = "role=web\nanswer=42\n"


@dataclass
class Tenants:
    """Two accounts with a guest on each host: a1 and b1 on the first, a2 and b2 on the second."""

    a: Client
    b: Client
    a1: Guest
    a2: Guest
    b1: Guest
    b2: Guest


@pytest.fixture(scope="module")
def tenants(cloud: Cloud) -> Iterator[Tenants]:
    """Deploy the four guests, one on each host for each account."""
    a, b = cloud.account("alice"), cloud.account("bob")
    first, second = (cloud.host_id(place) for place in cloud.places)
    data = base64.b64encode(USER_DATA.encode()).decode()
    guests: dict[str, Guest] = {}
    for owner, client, port in (("a", a, 8000), ("b", b, 8100)):
        for number, host in ((1, first), (2, second)):
            vm = _on_host(cloud, client, f"{owner}{number}", host, data)
            guests[f"{owner}{number}"] = Guest(cloud, client, vm, port + number)
    for guest in guests.values():
        guest.await_answer()
    yield Tenants(a, b, **guests)


def _on_host(cloud: Cloud, client: Client, name: str, host: str, data: str) -> dict[str, object]:
    """Deploy on one host: for the account, by keeping the other hosts from taking new guests meanwhile."""
    others = [h["id"] for h in cloud.admin.list("listHosts", "host", type="Routing") if h["id"] != host]
    for other in others:
        cloud.admin.call("updateHost", id=other, allocationstate="Disabled")
    try:
        return cloud.deploy(client, name, userdata=data)
    finally:
        for other in others:
            cloud.admin.call("updateHost", id=other, allocationstate="Enabled")


def test_guests_of_one_account_run_on_both_hosts(cloud: Cloud, tenants: Tenants) -> None:
    for client in (tenants.a, tenants.b):
        vms = cloud.admin.list("listVirtualMachines", "virtualmachine", listall=True)
        mine = {vm["id"] for vm in client.list("listVirtualMachines", "virtualmachine")}
        hosts = {vm["hostname"] for vm in vms if vm["id"] in mine}
        assert hosts == {"h1", "h2"}


def test_both_accounts_use_the_same_addresses(tenants: Tenants) -> None:
    assert tenants.a1.status()["gateway"] == tenants.b1.status()["gateway"] == "10.1.1.1"


def test_a_guest_has_the_lease_that_the_api_tells(tenants: Tenants) -> None:
    for guest in (tenants.a1, tenants.a2, tenants.b1, tenants.b2):
        status = guest.status()
        assert status["ip.eth0"] == f"{guest.address}/24"
        assert status["mac.eth0"] == guest.vm["nic"][0]["macaddress"]
        assert status["hostname"] == guest.vm["name"]


def test_guests_of_one_account_reach_each_other_across_hosts(tenants: Tenants) -> None:
    assert tenants.a1.pings(tenants.a2.address)
    assert "hostname=a2" in (tenants.a1.fetches(f"http://{tenants.a2.address}/cgi-bin/status") or "")


def test_guests_do_not_reach_those_of_another_account(tenants: Tenants) -> None:
    mine = {tenants.a1.address, tenants.a2.address}
    for other in (tenants.b1, tenants.b2):
        if other.address in mine:
            page = tenants.a1.fetches(f"http://{other.address}/cgi-bin/status") or ""
            assert f"hostname={other.vm['name']}" not in page
        else:
            assert not tenants.a1.pings(other.address)


def test_a_guest_resolves_its_neighbours_and_not_those_of_others(tenants: Tenants) -> None:
    assert tenants.a1.resolves("a2") == [tenants.a2.address]
    assert tenants.a1.resolves("b2") == []


def test_a_guest_reads_its_user_data_and_metadata(cloud: Cloud, tenants: Tenants) -> None:
    status = tenants.a1.status()
    assert base64.b64decode(status["user_data_base64"]).decode() == USER_DATA
    names = (
        "service-offering", "availability-zone", "local-ipv4", "local-hostname", "public-ipv4", "public-hostname",
        "instance-id",
    )  # fmt: skip
    told = {name: status[f"metadata.{name}"] for name in names}
    assert told["service-offering"] == "tiny"
    assert told["availability-zone"] == "z1"
    assert told["local-ipv4"] == tenants.a1.address
    assert told["local-hostname"] == "a1"
    assert told["public-ipv4"] == tenants.a1.public
    assert told["instance-id"].startswith("i-")


def test_outbound_traffic_leaves_under_the_accounts_public_address(cloud: Cloud, tenants: Tenants) -> None:
    seen: list[str] = []
    with _watching(cloud, seen) as url:
        assert tenants.a1.fetches(url) is not None
        assert tenants.b1.fetches(url) is not None
    assert seen == [tenants.a1.public, tenants.b1.public]
    assert tenants.a1.public != tenants.b1.public


@contextlib.contextmanager
def _watching(cloud: Cloud, seen: list[str]) -> Iterator[str]:
    files = Files(cloud.address, cloud.directory)
    handler = files._server.RequestHandlerClass.func  # type: ignore[attr-defined]

    def note(self: object, *_: object) -> None:
        seen.append(self.client_address[0])  # type: ignore[attr-defined]

    handler.log_request = note
    try:
        yield f"{files.url}/server.toml"
    finally:
        files.close()


def test_the_firewall_lets_in_whom_a_rule_names(cloud: Cloud, tenants: Tenants) -> None:
    address = tenants.a.run("associateIpAddress", zoneid=cloud.zone)["ipaddress"]
    place = {"ipaddressid": address["id"], "protocol": "tcp"}
    tenants.a.run(
        "createPortForwardingRule", publicport=80, privateport=80, virtualmachineid=tenants.a1.vm["id"],
        openfirewall=False, **place,
    )  # fmt: skip
    shown = partial(_name_at, address["ipaddress"])
    assert shown() is None
    elsewhere = tenants.a.run("createFirewallRule", startport=80, cidrlist="192.0.2.0/24", **place)["firewallrule"]
    assert shown() is None
    here = tenants.a.run("createFirewallRule", startport=80, cidrlist=f"{cloud.address}/32", **place)["firewallrule"]
    assert shown() == "a1"
    tenants.a.run("deleteFirewallRule", id=here["id"])
    assert shown() is None
    tenants.a.run("deleteFirewallRule", id=elsewhere["id"])
    tenants.a.run("disassociateIpAddress", id=address["id"])


def test_an_address_with_static_nat_is_the_guests_both_ways(cloud: Cloud, tenants: Tenants) -> None:
    address = tenants.a.run("associateIpAddress", zoneid=cloud.zone)["ipaddress"]
    tenants.a.call("enableStaticNat", ipaddressid=address["id"], virtualmachineid=tenants.a2.vm["id"])
    tenants.a.run("createIpForwardingRule", ipaddressid=address["id"], protocol="tcp", startport=80)
    assert _name_at(address["ipaddress"]) == "a2"
    seen: list[str] = []
    with _watching(cloud, seen) as url:
        for guest in (tenants.a2, tenants.a1):
            assert guest.fetches(url) is not None
    assert seen == [address["ipaddress"], tenants.a1.public]
    tenants.a.run("disableStaticNat", ipaddressid=address["id"])
    assert _name_at(address["ipaddress"]) is None
    with _watching(cloud, seen) as url:
        assert tenants.a2.fetches(url) is not None
    assert seen[-1] == tenants.a2.public
    tenants.a.run("disassociateIpAddress", id=address["id"])


def test_connections_are_shared_out_among_guests_on_both_hosts(cloud: Cloud, tenants: Tenants) -> None:
    address = tenants.a.run("associateIpAddress", zoneid=cloud.zone)["ipaddress"]
    rule = tenants.a.run(
        "createLoadBalancerRule", name="web", algorithm="roundrobin", publicipid=address["id"], publicport=80,
        privateport=80,
    )["loadbalancer"]  # fmt: skip
    both = ",".join(guest.vm["id"] for guest in (tenants.a1, tenants.a2))
    tenants.a.run("assignToLoadBalancerRule", id=rule["id"], virtualmachineids=both)
    assert {_name_at(address["ipaddress"]) for _ in range(4)} == {"a1", "a2"}
    tenants.a.run("removeFromLoadBalancerRule", id=rule["id"], virtualmachineids=tenants.a1.vm["id"])
    assert {_name_at(address["ipaddress"]) for _ in range(3)} == {"a2"}
    tenants.a.run("disassociateIpAddress", id=address["id"])
    assert tenants.a.list("listLoadBalancerRules", "loadbalancerrule") == []
    assert _name_at(address["ipaddress"]) is None


def _name_at(ip: str) -> str | None:
    """The name of the guest that answers at port 80 of a public address; None when nobody does."""
    try:
        page = httpx.get(f"http://{ip}/cgi-bin/status", timeout=3, trust_env=False)
    except httpx.HTTPError:
        return None
    found = re.search(r"^hostname=(.*)$", page.text, re.MULTILINE)
    return found.group(1) if found and page.status_code == 200 else None


def test_the_first_password_is_the_one_that_was_shown(cloud: Cloud, tenants: Tenants) -> None:
    assert tenants.a1.logs_in(str(tenants.a1.vm["password"]))
    assert not tenants.a1.logs_in("something else")


def test_a_reset_password_holds_after_the_next_start_and_disk_and_address_stay(tenants: Tenants) -> None:
    guest, vm = tenants.a2, tenants.a2.vm["id"]
    boots = int(guest.status()["boots"])
    assert refused(tenants.a, "resetPasswordForVirtualMachine", id=vm).code == 431
    stopped = tenants.a.run("stopVirtualMachine", id=vm)["virtualmachine"]
    assert stopped["state"] == "Stopped"
    password = tenants.a.run("resetPasswordForVirtualMachine", id=vm)["virtualmachine"]["password"]
    started = tenants.a.run("startVirtualMachine", id=vm)["virtualmachine"]
    assert started["nic"][0]["ipaddress"] == guest.address
    guest.await_answer()
    assert int(guest.status()["boots"]) == boots + 1
    assert guest.logs_in(password)
    assert not guest.logs_in(str(guest.vm["password"]))


def test_a_reboot_is_a_stop_and_a_start_of_the_same_disk(tenants: Tenants) -> None:
    boots = int(tenants.b2.status()["boots"])
    rebooted = tenants.b.run("rebootVirtualMachine", id=tenants.b2.vm["id"])["virtualmachine"]
    assert rebooted["state"] == "Running"

    def again() -> bool:
        try:
            return int(tenants.b2.status()["boots"]) == boots + 1
        except (httpx.HTTPError, KeyError):
            return False

    eventually("the guest has booted again", again)


def test_a_guest_that_is_stopped_from_inside_is_seen_as_stopped(cloud: Cloud, tenants: Tenants) -> None:
    name = _instance_name(cloud, tenants.b2.vm["id"])
    host = cloud.sandbox[1]
    host.run(["/usr/bin/virsh", "-c", "qemu:///system", "shutdown", "--mode", "acpi", name])

    def stopped() -> bool:
        return _state(tenants.b, tenants.b2.vm["id"]) == "Stopped"

    eventually("the API shows the guest stopped", stopped)


def test_a_used_name_and_a_used_address_are_refused_and_leave_nothing(cloud: Cloud, tenants: Tenants) -> None:
    before = len(tenants.a.list("listVirtualMachines", "virtualmachine"))
    place = {"zoneid": cloud.zone, "serviceofferingid": cloud.offering, "templateid": cloud.template}
    assert refused(tenants.a, "deployVirtualMachine", **place, name="a1").code in (431, 537)
    used = refused(tenants.a, "deployVirtualMachine", **place, name="a9", ipaddress=tenants.a1.address)
    assert used.code in (431, 533, 537)
    assert len(tenants.a.list("listVirtualMachines", "virtualmachine")) == before


def test_a_deploy_beyond_capacity_names_every_host_and_its_reason(cloud: Cloud, tenants: Tenants) -> None:
    huge = cloud.admin.call(
        "createServiceOffering", name="huge", displaytext="huge", cpunumber=1, cpuspeed=100, memory=4_000_000
    )["serviceoffering"]["id"]
    error = refused(
        tenants.a, "deployVirtualMachine", zoneid=cloud.zone, serviceofferingid=huge, templateid=cloud.template
    )
    assert error.code == 533
    assert "h1" in error.text and "h2" in error.text
    assert len(tenants.a.list("listVirtualMachines", "virtualmachine")) == 2


def test_after_destroy_and_expunge_nothing_is_left_on_the_hosts(cloud: Cloud, tenants: Tenants) -> None:
    cloud.admin.call("updateConfiguration", name="expunge.delay", value="0")
    cloud.admin.call("updateConfiguration", name="expunge.interval", value="1")
    # One is expunged by itself when its delay is over, the others at once.
    tenants.b.run("destroyVirtualMachine", id=tenants.b1.vm["id"])
    for guest in (tenants.a1, tenants.a2, tenants.b2):
        cloud.admin.run("destroyVirtualMachine", id=guest.vm["id"], expunge=True)
    eventually("the last guest is expunged", lambda: _count(cloud, "listVirtualMachines", "virtualmachine") == 0)
    for client in (tenants.a, tenants.b):
        for network in client.list("listNetworks", "network"):
            client.run("deleteNetwork", id=network["id"])
    assert _count(cloud, "listRouters", "router") == 0
    assert _volumes(cloud) == []
    for host in cloud.sandbox:
        assert host.run(["/usr/bin/virsh", "-c", "qemu:///system", "list", "--all", "--name"]).split() == []
        links = host.run(["/usr/sbin/ip", "-o", "link"])
        assert "vxlan" not in links and "brvx" not in links, links
        assert host.run(["/usr/sbin/ip", "netns", "list"]).split() == []
    for capacity in cloud.admin.list("listHosts", "host", type="Routing"):
        assert capacity["memoryallocated"] == 0
        assert capacity["cpuallocated"] == "0.00%"


def _instance_name(cloud: Cloud, vm_id: str) -> str:
    found = cloud.admin.list("listVirtualMachines", "virtualmachine", id=vm_id)[0]
    return str(found["instancename"])


def _state(client: Client, vm_id: str) -> str:
    return str(client.list("listVirtualMachines", "virtualmachine", id=vm_id)[0]["state"])


def _count(cloud: Cloud, command: str, entry: str) -> int:
    return len(cloud.admin.list(command, entry, listall=True))


def _volumes(cloud: Cloud) -> list[str]:
    return [path.name for path in (cloud.directory / "primary" / "volumes").iterdir()]
