"""Hosts in namespaces for the end-to-end tests; whatever a test leaves behind fails it."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from cloud import Cloud, Place

from pileus import sandbox
from pileus.sandbox import SandboxHost, Switch, open_vswitch
from pileus.sandbox.watchdog import Watchdog

_numbers = itertools.count(1)

# Programs start here as they do in the field: with their modules compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def switch(watchdog: Watchdog) -> Iterator[Switch]:
    """A switch joined to the root namespace, with a prefix and subnet of its own. Torn down with all on it."""
    sandbox.check()
    prefix = f"t{os.getpid() % 10000}x{next(_numbers) % 100}"
    watchdog.sandbox(prefix)
    try:
        made = sandbox.create_somewhere(prefix)
        made.connect_root()
        yield made
    finally:
        sandbox.sweep(prefix)
        left = sandbox.leftovers(prefix)
    assert left == []


@pytest.fixture
def make_host(switch: Switch, tmp_path: Path) -> Iterator[Callable[[], SandboxHost]]:
    """Power on the next host of the switch: h1, h2, …"""
    made: list[SandboxHost] = []

    def build() -> SandboxHost:
        number = len(made) + 1
        made.append(SandboxHost(f"h{number}", number, switch, tmp_path / "hosts"))
        made[-1].start()
        return made[-1]

    yield build
    for host in made:
        host.stop()


@pytest.fixture
def hosts(make_host: Callable[[], SandboxHost]) -> tuple[SandboxHost, SandboxHost]:
    """Two hosts, powered on."""
    return make_host(), make_host()


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small guest template, built from distribution packages once for all tests."""
    image = tmp_path_factory.mktemp("image") / "small.qcow2"
    subprocess.run([sys.executable, "-m", "pileus.appliance.image.guest", str(image)], check=True)
    return image


@contextmanager
def cloud_of(
    count: int, directory: Path, guest_image: Path, watchdog: Watchdog, *, vlans: bool = False
) -> Iterator[Cloud]:
    """A KVM cloud with so many hosts (`vlans`: that tag frames); afterwards nothing of it is left on the machine."""
    sandbox.check(vlans=vlans)
    prefix = f"c{os.getpid() % 10000}x{next(_numbers) % 100}"
    watchdog.sandbox(prefix)
    switch = sandbox.create_somewhere(prefix)
    hosts = [
        SandboxHost(f"h{number + 1}", number + 1, switch, directory / "hosts", vlans=vlans) for number in range(count)
    ]
    options = f'[host.options]\nvlan_switch = "{open_vswitch.BRIDGE}"\n' if vlans else ""
    cloud = None
    try:
        switch.connect_root(nat=True)
        for host in hosts:
            host.start()
        places = [Place(host.name, str(host.address), host.argv, options) for host in hosts]
        cloud = Cloud(
            directory / "cloud", address=str(switch.gateway), subnet=switch.subnet, places=places, backend="kvm"
        )
        cloud.sandbox = hosts
        cloud.start_server()
        cloud.lay_out(guest_image)
        yield cloud
    finally:
        if cloud is not None:
            cloud.close()
        for host in hosts:
            host.stop()
        sandbox.sweep(prefix)
    assert sandbox.leftovers(prefix) == []


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, guest_image: Path, watchdog: Watchdog) -> Iterator[Cloud]:
    """One KVM cloud with two hosts for all tests of a module."""
    with cloud_of(2, tmp_path_factory.mktemp("cloud"), guest_image, watchdog) as made:
        yield made


@pytest.fixture(scope="module")
def tagged_cloud(tmp_path_factory: pytest.TempPathFactory, guest_image: Path, watchdog: Watchdog) -> Iterator[Cloud]:
    """One KVM cloud with two hosts that tag frames, for all tests of a module."""
    with cloud_of(2, tmp_path_factory.mktemp("cloud"), guest_image, watchdog, vlans=True) as made:
        yield made


@pytest.fixture(scope="module")
def cloud_of_one(tmp_path_factory: pytest.TempPathFactory, guest_image: Path, watchdog: Watchdog) -> Iterator[Cloud]:
    """One KVM cloud with one host for all tests of a module."""
    with cloud_of(1, tmp_path_factory.mktemp("cloud"), guest_image, watchdog) as made:
        yield made


@pytest.fixture(scope="session")
def simulated_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud on loopback whose one host is simulated; everything else is real."""
    directory = tmp_path_factory.mktemp("simulated")
    image = directory / "image" / "small.qcow2"
    image.parent.mkdir()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"], check=True)
    cloud = Cloud(
        directory / "cloud",
        address="127.0.0.1",
        subnet=IPv4Network("127.0.0.0/24"),
        places=[Place("sim1", "127.0.0.1")],
        backend="simulator",
    )
    try:
        cloud.start_server()
        cloud.lay_out(image)
        yield cloud
    finally:
        cloud.close()
