"""The KVM backend's entry in the conformance suite: real guests on a host in namespaces, images over real TLS."""

import asyncio
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trustme
from conformance_bench import Bench

from pileus import sandbox
from pileus.agent.backend import Backend, Credentials, HostSettings
from pileus.sandbox import SandboxHost
from pileus.sandbox.remote import RemoteObject
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.operations import FetchTemplate
from pileus.wire.places import Isolation, NetworkRef, PoolKind, PoolRef, Traffic

BRIDGE = "brvx"


def can_run() -> bool:
    """True where hosts in namespaces can be made."""
    return os.geteuid() == 0 and not sandbox.missing()


@dataclass
class KvmLand:
    """One host for the whole session, and a store with the template."""

    host: SandboxHost
    directory: Path
    url: str
    sha256: str
    credentials: Credentials
    served: dict[str, Path]
    """What the store has, by the name at the end of the URL."""

    def serve(self, image: Path) -> str:
        """Put an image into the store; its URL."""
        self.served[image.name] = image
        return f"{self.url.rpartition('/')[0]}/{image.name}"


@pytest.fixture(scope="session")
def kvm_land(tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[KvmLand]:
    """Leaves nothing on the machine, and fails if it does."""
    sandbox.check()
    directory = tmp_path_factory.mktemp("kvm")
    image = directory / "small.qcow2"
    subprocess.run([sys.executable, "-m", "pileus.appliance.image.guest", str(image)], check=True, capture_output=True)
    prefix = f"c{os.getpid() % 1000000}"
    watchdog.sandbox(prefix)
    try:
        switch = sandbox.create_somewhere(prefix)
        switch.connect_root()
        host = SandboxHost("h1", 1, switch, directory / "hosts")
        host.start()
        served = {image.name: image}
        with _store(str(switch.gateway), served, directory / "tls") as (url, credentials):
            sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
            yield KvmLand(host, directory, f"{url}/{image.name}", sha256, credentials, served)
        host.stop()
        switch.destroy()
    finally:
        left = sandbox.leftovers(prefix)
        sandbox.sweep(prefix)
    assert left == []
    assert sandbox.leftovers(prefix) == []


@contextmanager
def _store(address: str, served: dict[str, Path], place: Path) -> Iterator[tuple[str, Credentials]]:
    """A secondary storage on the switch that serves images to hosts with a certificate."""
    place.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "ca.pem")
    host = authority.issue_cert("host.cloud.internal")
    host.cert_chain_pems[0].write_to_path(place / "host.pem")
    host.private_key_pem.write_to_path(place / "host.key")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = served[self.path.removeprefix("/")].read_bytes()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(address).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        credentials = Credentials(str(place / "host.pem"), str(place / "host.key"), str(place / "ca.pem"))
        yield f"https://{address}:{server.server_port}", credentials
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class KvmBench(Bench):
    """A KVM backend that runs inside the host, and the host's own tools as hands."""

    def __init__(self, land: KvmLand, state: Path, backend: Backend) -> None:
        super().__init__()
        self._host = land.host
        self._state = state
        self.backend = backend
        self.pool = PoolRef("0d8e6c8c-5e0a-4d43-9be3-1f5f3f1c7a10", PoolKind.FILESYSTEM, str(state / "pool"))
        self.template = FetchTemplate(self.pool, "small", land.url, land.sha256)
        self.bad_template = FetchTemplate(self.pool, "other", land.url, "00" * 32)
        self.networks = (_network(1001), _network(1002))
        self.patience_seconds = 120.0

    async def bridges(self) -> set[NetworkRef]:
        return set(map(_network, self.tags()))

    async def booted(self, name: str) -> None:
        await self.until(lambda: "login:" in self._said(name))

    async def shut_down_inside(self, name: str) -> None:
        # QEMU looks for a terminal once a second, so it stays open for the whole talk.
        keyboard = os.open(self._virsh("ttyconsole", name).strip(), os.O_WRONLY | os.O_NOCTTY)
        try:
            for line, then in (("root", "assword:"), ("password", "#"), ("poweroff", "poweroff")):
                before = len(self._said(name))
                os.write(keyboard, f"{line}\n".encode())
                await self.until(_says(lambda: self._said(name), before, then))
        finally:
            os.close(keyboard)

    async def crash(self, name: str) -> None:
        self._host.run(["pkill", "-9", "-f", f"guest={name},"])

    def ignores_requests(self, name: str) -> None:
        """Nothing to prepare: on a blank disk there is nobody to obey."""

    def tags(self) -> list[int]:
        """Tags of the networks that have a bridge."""
        links = msgspec.json.decode(self._host.run(["ip", "-j", "link", "show"]))
        names = [link["ifname"] for link in links]
        return [int(name.removeprefix(BRIDGE)) for name in names if name.startswith(BRIDGE)]

    def guests(self) -> list[str]:
        """Every domain that libvirt holds, off ones included."""
        return self._virsh("list", "--all", "--name").split()

    def _said(self, name: str) -> str:
        log = self._state / "console" / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _virsh(self, *words: str) -> str:
        return self._host.run(["virsh", "-q", "-c", "qemu:///system", *words])


def _says(said: Callable[[], str], before: int, wanted: str) -> Callable[[], bool]:
    return lambda: wanted in said()[before:]


def _network(tag: int) -> NetworkRef:
    return NetworkRef(Traffic.GUEST, Isolation.VXLAN, tag)


@asynccontextmanager
async def open_kvm(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """The KVM backend's entry in `BENCHES`."""
    land: KvmLand = request.getfixturevalue("kvm_land")
    state = land.directory / "state"
    state.mkdir()
    settings = HostSettings(land.host.uuid, str(state), str(land.host.address), land.credentials)
    try:
        async with RemoteObject(land.host, "pileus.agent.backends.kvm:create", settings) as remote:
            bench = KvmBench(land, state, cast(Backend, remote))
            await bench.backend.open(bench.notice)
            try:
                yield bench
            finally:
                await _clear(bench)
                await bench.backend.close()
    finally:
        await asyncio.to_thread(shutil.rmtree, state)


async def _clear(bench: KvmBench) -> None:
    """What the test left, and nothing else, is taken away through the backend; then there must be nothing."""
    for there in await bench.backend.inventory():
        remove = bench.backend.remove_router if there.router else bench.backend.remove_domain
        await remove(there.name)
    for tag in bench.tags():
        await bench.backend.unplug_network(_network(tag))
    assert bench.tags() == []
    assert bench.guests() == []
