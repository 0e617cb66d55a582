"""A zone whose routers are virtual machines, on two libvirt hosts: what a guest behind one sees, and how it moves."""

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cloud import Cloud, Files, eventually
from inside import Guest

from pileus.appliance.image import system
from pileus.cli.client import Client

IMAGE = Path(__file__).parents[2] / "build/systemvm.qcow2"
VIRSH = ["/usr/bin/virsh", "-q", "-c", "qemu:///system"]

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.slow,
    pytest.mark.skipif(not system.is_current(IMAGE), reason="no system template of these sources: make systemvm"),
]


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Client:
    """An account in a zone whose routers are to be machines."""
    template = cloud.register(IMAGE, name="systemvm", ispublic=False, isfeatured=False, passwordenabled=False)
    cloud.admin.call("updateConfiguration", name="router.template.id", value=template)
    cloud.admin.call("updateZone", id=cloud.zone, **{"details[0].router.launcher": "vm"})
    return cloud.account("carol")


@pytest.fixture(scope="module")
def guest(cloud: Cloud, client: Client) -> Iterator[Guest]:
    vm = cloud.deploy(client, "web", userdata=base64.b64encode(b"role=web\n").decode())
    made = Guest(cloud, client, vm, 8000)
    made.await_answer()
    yield made


def router(cloud: Cloud) -> dict[str, str]:
    (found,) = cloud.admin.list("listRouters", "router", listall=True)
    return dict(found)


def machines(cloud: Cloud) -> dict[str, list[str]]:
    """Names of the routers among the domains of each host, off ones included."""
    return {
        host.name: [name for name in host.run([*VIRSH, "list", "--all", "--name"]).split() if name.startswith("r-")]
        for host in cloud.sandbox
    }


def test_the_router_is_a_machine_from_the_system_template(cloud: Cloud, guest: Guest) -> None:
    shown = router(cloud)
    assert shown["state"] == "Running"
    template = cloud.admin.list("listTemplates", "template", templatefilter="self", name="systemvm")[0]
    assert (template["templatetype"], shown["templateid"]) == ("SYSTEM", template["id"])
    assert machines(cloud)[shown["hostname"]] == [shown["name"]]
    assert [name for names in machines(cloud).values() for name in names] == [shown["name"]]


def test_a_guest_behind_it_has_its_lease_its_data_and_its_password(guest: Guest) -> None:
    status = guest.status()
    assert (status["ip.eth0"], status["gateway"], status["hostname"]) == (f"{guest.address}/24", "10.1.1.1", "web")
    assert base64.b64decode(status["user_data_base64"]) == b"role=web\n"
    assert status["metadata.public-ipv4"] == guest.public
    assert guest.logs_in(str(guest.vm["password"]))


def test_a_guest_behind_it_resolves_names_and_leaves_under_the_public_address(cloud: Cloud, guest: Guest) -> None:
    assert guest.resolves("web") == [guest.address]
    seen: list[str] = []
    with _noting(cloud, seen) as url:
        assert guest.fetches(url) is not None
    assert seen == [guest.public]


def test_a_rebooted_router_may_come_up_on_another_host(cloud: Cloud, guest: Guest) -> None:
    before = router(cloud)
    cloud.admin.call("updateHost", id=before["hostid"], allocationstate="Disabled")
    try:
        after = cloud.admin.run("rebootRouter", id=before["id"])["router"]
    finally:
        cloud.admin.call("updateHost", id=before["hostid"], allocationstate="Enabled")
    assert after["hostname"] != before["hostname"]
    assert machines(cloud) == {before["hostname"]: [], after["hostname"]: [before["name"]]}
    eventually("the guest is reached through the router's new host", lambda: _answers(guest))
    assert guest.resolves("web") == [guest.address]


def test_a_network_moves_back_into_a_namespace_and_nothing_of_the_machine_is_left(cloud: Cloud, guest: Guest) -> None:
    cloud.admin.call("updateZone", id=cloud.zone, **{"details[0].router.launcher": "namespace"})
    cloud.admin.run("restartNetwork", id=guest.vm["nic"][0]["networkid"], cleanup=True)
    assert "templateid" not in router(cloud)
    assert set(map(tuple, machines(cloud).values())) == {()}
    for place in cloud.places:
        kept = cloud.directory / place.name / "agent"
        assert list(kept.rglob("router-machines/*")) == []
    eventually("the guest is reached through the namespace", lambda: _answers(guest))


def test_each_host_fetched_the_template_once(cloud: Cloud, guest: Guest) -> None:
    checksum = hashlib.sha256(IMAGE.read_bytes()).hexdigest()
    for place in cloud.places:
        (kept,) = (cloud.directory / place.name / "agent").rglob("system-templates/*")
        assert kept.name == checksum
        assert {path.name for path in kept.iterdir()} >= {"disk.qcow2", "vmlinux", "initrd"}


def _answers(guest: Guest) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return "metadata.instance-id=" in guest.get("/cgi-bin/status")
    return False


@contextlib.contextmanager
def _noting(cloud: Cloud, seen: list[str]) -> Iterator[str]:
    """A page outside that notes who fetches it."""
    files = Files(cloud.address, cloud.directory)
    handler = files._server.RequestHandlerClass.func  # type: ignore[attr-defined]
    handler.log_request = lambda self, *_: seen.append(self.client_address[0])
    try:
        yield f"{files.url}/server.toml"
    finally:
        files.close()
