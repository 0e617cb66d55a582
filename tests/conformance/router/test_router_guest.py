"""The small guest template, really booted behind a real router: lease, data, password, ways out and in, its disk."""

import base64
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from router_world import (
    DOMAIN,
    INTERNET_IP,
    PUBLIC_IP,
    ROUTER_IP,
    TO_WEB,
    WEB_DATA,
    RunningRouter,
    World,
    config,
    connected,
    listening,
    name_server,
    run,
    until,
)

from pileus.appliance.image.guest import build

pytestmark = [pytest.mark.kvm, pytest.mark.slow]

BOOT_SECONDS = 120
USER_DATA = base64.b64decode(WEB_DATA.user_data)
TELNET = msgspec.structs.replace(TO_WEB, id="telnet", public_start=8023, public_end=8023, guest_start=23, guest_end=23)
FORWARDS = (TO_WEB, TELNET)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("template") / "guest.qcow2"
    build(out)
    return out


class Machine:
    """A guest in QEMU, with one card on the guest bridge. Power it on as often as needed on the same disk."""

    def __init__(self, world: World, disk: Path) -> None:
        self.world = world
        self.disk = disk
        self.console = disk.with_suffix(".log")
        self.monitor = disk.with_suffix(".mon")

    @contextmanager
    def on(self) -> Iterator[None]:
        tap = f"tt{self.world.tag}"
        run("ip", "tuntap", "add", tap, "mode", "tap")
        run("ip", "link", "set", tap, "master", self.world.bridges[0], "up")
        self.console.write_text("")
        card = ["-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no"]
        card += ["-device", "virtio-net-pci,netdev=n,mac=02:00:00:00:00:05,romfile="]
        rest = ["-machine", "pc,accel=tcg", "-m", "128", "-display", "none", "-serial", f"file:{self.console}"]
        disk = ["-drive", f"file={self.disk},if=virtio", "-monitor", f"unix:{self.monitor},server,nowait"]
        qemu = subprocess.Popen(["qemu-system-x86_64", *rest, *disk, *card], stdin=subprocess.DEVNULL)
        try:
            until(lambda: self.said("ready eth0"), "the guest is not ready", BOOT_SECONDS)
            yield
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(str(self.monitor))
                monitor.sendall(b"system_powerdown\n")
                assert qemu.wait(BOOT_SECONDS) == 0
            assert self.said("power button pressed")
        finally:
            qemu.kill()
            qemu.wait()
            run("ip", "link", "del", tap, check=False)

    def said(self, text: str) -> bool:
        return f"PILEUS-GUEST {text}" in self.console.read_text(errors="replace")


@pytest.fixture
def machine(world: World, template: Path, tmp_path: Path) -> Machine:
    disk = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(template), str(disk))
    return Machine(world, disk)


def page(world: World, path: str) -> str:
    """GET from the guest, from outside by its port forward."""
    with connected(world.outside, PUBLIC_IP, 8001, 30) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return body_from(client)


def status(world: World) -> dict[str, str]:
    return dict(line.split("=", 1) for line in page(world, "/cgi-bin/status").splitlines())


def logs_in(world: World, password: str) -> bool:
    """Log in as root by telnet, from outside by the port forward."""
    with connected(world.outside, PUBLIC_IP, 8023, 30) as client:

        def read_until(*words: bytes) -> bytes:
            seen = b""
            while not any(word in seen for word in words):
                data = client.recv(4096)
                assert data, seen
                seen += data
            return seen

        read_until(b"login: ")
        client.sendall(b"root\r\n")
        read_until(b"assword: ")
        client.sendall(password.encode() + b"\r\n")
        return b"# " in read_until(b"# ", b"incorrect")


def fetched_from_inside(world: World) -> str:
    """Have the guest get a page from outside; what it says of it."""
    with (
        listening(world.outside, 80, INTERNET_IP) as server,
        connected(world.outside, PUBLIC_IP, 8001, 30) as asking,
    ):
        url = quote("http://www.example.test/", safe="")
        asking.sendall(f"GET /cgi-bin/fetch?url={url} HTTP/1.0\r\n\r\n".encode())
        accepted, peer = server.accept()
        with accepted:
            assert peer[0] == PUBLIC_IP
            accepted.recv(4096)
            accepted.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nworld")
        return body_from(asking)


def body_from(client: socket.socket) -> str:
    """The body of the answer, to its end."""
    answer = b""
    while data := client.recv(65536):
        answer += data
    return answer.partition(b"\r\n\r\n")[2].decode()


def test_a_guest_lives_behind_its_router(router: RunningRouter, world: World, machine: Machine) -> None:
    with name_server(world):
        router.start(config(port_forwards=FORWARDS))
        with machine.on():
            now = status(world)
            assert now["hostname"] == "web"
            assert now["ip.eth0"] == "10.1.1.5/24"
            assert now["gateway"] == now["dns"] == ROUTER_IP
            assert now["domain"] == DOMAIN
            assert base64.b64decode(now["user_data_base64"]) == USER_DATA
            assert {key: now[f"metadata.{key}"] for key in WEB_DATA.metadata} == WEB_DATA.metadata
            assert (now["boots"], now["passwords_set"]) == ("1", "1")
            assert "Hello from web" in page(world, "/")
            assert logs_in(world, "s3cret:Pw")
            assert not logs_in(world, "password")

            assert page(world, f"/cgi-bin/resolve?name=web.{DOMAIN}").startswith("exit=0\n")
            assert page(world, "/cgi-bin/resolve?name=nobody.example.test").startswith("exit=1\n")
            assert page(world, f"/cgi-bin/ping?host={INTERNET_IP}").startswith("exit=0\n")
            assert page(world, "/cgi-bin/ping?host=-f").startswith("exit=2\n")
            assert fetched_from_inside(world) == "exit=0\nworld"

        reset = msgspec.structs.replace(WEB_DATA, password="n3w;$(x)'\"", password_id="p2")
        router.configure(config(2, port_forwards=FORWARDS, guests=(reset,)))
        with machine.on():
            now = status(world)
            assert (now["boots"], now["passwords_set"], now["ip.eth0"]) == ("2", "2", "10.1.1.5/24")
            assert logs_in(world, "n3w;$(x)'\"")
            assert not logs_in(world, "s3cret:Pw")
