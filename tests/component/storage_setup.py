"""What tests of secondary storage share: a store, its certificates, an image, a server that sends what it is told."""

import asyncio
import os
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from pileus.agent.backend import Credentials, HostSettings
from pileus.appliance.storage import create
from pileus.wire.operations import DownloadTemplate, ImageFacts, ImageFormat, Refused

LOOPBACK = ("127.0.0.0/8",)
MIB = 1 << 20


@dataclass
class Authority:
    """A CA, and what it has given out."""

    directory: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def issue(self, name: str) -> Credentials:
        paths = [self.directory / f"{name}.{end}" for end in ("crt", "key", "ca")]
        leaf = self.ca.issue_cert("127.0.0.1")
        paths[0].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(paths[1]))
        self.ca.cert_pem.write_to_path(str(paths[2]))
        return Credentials(*(str(path) for path in paths))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> HostSettings:
    state = tmp_path / "state"
    state.mkdir()
    return HostSettings("host-1", str(state), "127.0.0.1", authority.issue("store"), {"port": 0})


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    """A QCOW2 image of 4 MiB with something in it."""
    raw, made = tmp_path / "made.raw", tmp_path / "made.qcow2"
    raw.write_bytes(os.urandom(300_000) + bytes(4 * MIB - 300_000))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, made], check=True, timeout=60)
    return made.read_bytes()


def order(url: str, **changes: Any) -> DownloadTemplate:
    values: dict[str, Any] = {
        "name": "template-1",
        "url": url,
        "format": ImageFormat.QCOW2,
        "checksum": "",
        "max_bytes": 64 * MIB,
        "allowed_cidrs": LOOPBACK,
    }
    return DownloadTemplate(**(values | changes))


def files(settings: HostSettings) -> list[str]:
    state = Path(settings.state_dir)
    return sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file())


async def downloaded(
    settings: HostSettings, wanted: DownloadTemplate, told: list[tuple[int, str]] | None = None
) -> ImageFacts:
    store = create(settings)
    await store.open()
    try:
        return await store.download(
            wanted, lambda percent, text: told.append((percent, text)) if told is not None else None
        )
    finally:
        await store.close()


def refusal(settings: HostSettings, wanted: DownloadTemplate) -> Refused:
    """The refusal of a download, which must leave nothing."""
    with pytest.raises(Refused) as caught:
        asyncio.run(asyncio.wait_for(downloaded(settings, wanted), 60))
    assert files(settings) == []
    return caught.value


class Trickle:
    """A server on loopback that sends these bytes to the first who connects and then nothing, or hangs up."""

    def __init__(self, sends: bytes, *, hang_up: bool = False) -> None:
        self._sends = sends
        self._hang_up = hang_up
        self.sent = threading.Event()
        self.left = threading.Event()
        """Set when the peer has hung up."""
        self._end = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/a"

    def __enter__(self) -> "Trickle":
        self._listening.settimeout(20)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(30)
        self._listening.close()

    def _serve(self) -> None:
        with self._listening.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(self._sends)
            self.sent.set()
            if self._hang_up:
                return
            peer.settimeout(0.05)
            while not self._end.is_set():
                try:
                    if not peer.recv(65536):
                        self.left.set()
                        return
                except TimeoutError:
                    continue
                except ConnectionError:
                    self.left.set()
                    return


def with_options(settings: HostSettings, **options: Any) -> HostSettings:
    return HostSettings(
        settings.host_uuid,
        settings.state_dir,
        settings.address,
        settings.credentials,
        {**settings.options, **options},
    )
