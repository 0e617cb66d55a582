"""Pools, templates and volumes of a KVM host: real files, the real qemu-img, a real TLS server on loopback."""

import asyncio
import hashlib
import http.server
import os
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from pileus.agent.backend import Credentials, Refused
from pileus.agent.backends.kvm import images
from pileus.agent.backends.kvm.pools import Pools
from pileus.wire.operations import FetchTemplate, ImageFacts, Reason
from pileus.wire.places import PoolKind, PoolRef

MIB = 1 << 20
HOST = "6c1f6b8e-55a4-45a2-9a43-5d6f6f6b5a01"
NOBODY = Credentials("", "", "")


@dataclass
class Store:
    """A secondary storage: files by path, over TLS, for hosts with a certificate."""

    url: str
    credentials: Credentials
    stranger: Credentials
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    declared: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    authority, other = trustme.CA(), trustme.CA()
    place = tmp_path / "tls"
    place.mkdir()

    def credentials(name: str, ca: trustme.CA) -> Credentials:
        certificate = ca.issue_cert("host.cloud.internal")
        certificate.cert_chain_pems[0].write_to_path(place / f"{name}.pem")
        certificate.private_key_pem.write_to_path(place / f"{name}.key")
        authority.cert_pem.write_to_path(place / "ca.pem")
        return Credentials(str(place / f"{name}.pem"), str(place / f"{name}.key"), str(place / "ca.pem"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            if self.path == "/broken":
                self.send_error(503)
                return
            content = made.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("content-length", str(made.declared.get(self.path, len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    made = Store(
        f"https://127.0.0.1:{server.server_port}", credentials("host", authority), credentials("stranger", other)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def pools(tmp_path: Path, credentials: Credentials = NOBODY, host: str = HOST, max_image_bytes: int = 1 << 40) -> Pools:
    return Pools(host_uuid=host, mounts=tmp_path / "mnt", credentials=credentials, max_image_bytes=max_image_bytes)


def pool(tmp_path: Path) -> PoolRef:
    return PoolRef("0d8e6c8c-5e0a-4d43-9be3-1f5f3f1c7a10", PoolKind.FILESYSTEM, str(tmp_path / "pool"))


def qemu_img(*argv: str) -> None:
    subprocess.run(["qemu-img", *argv], check=True, capture_output=True)


def image(tmp_path: Path, *options: str, size: str = "10M") -> Path:
    made = tmp_path / "made.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", *options, str(made), size)
    return made


def fetch(made: Pools, where: PoolRef, url: str, content: bytes, name: str = "tmpl") -> ImageFacts:
    seen: list[int] = []

    async def attach_and_fetch() -> ImageFacts:
        await made.attach(where)
        order = FetchTemplate(where, name, url, hashlib.sha256(content).hexdigest())
        return await made.fetch_template(order, lambda percent, text: seen.append(percent))

    facts = asyncio.run(attach_and_fetch())
    assert seen == sorted(seen) and all(0 <= percent <= 100 for percent in seen)
    return facts


def files_in(where: PoolRef) -> list[str]:
    return sorted(
        str(path.relative_to(where.path)) for path in Path(where.path).rglob("*") if path.is_file()
    )  # fmt: skip


def refusal(reason: Reason, work: object) -> str:
    with pytest.raises(Refused) as refused:
        asyncio.run(work)  # type: ignore[arg-type]
    assert refused.value.reason is reason, refused.value.text
    return refused.value.text


# ---- pools


def test_attaching_makes_room_and_measures_it(tmp_path: Path) -> None:
    facts = asyncio.run(pools(tmp_path).attach(pool(tmp_path)))
    room = os.statvfs(tmp_path)
    assert facts.capacity_bytes == room.f_blocks * room.f_frsize
    assert 0 < facts.available_bytes <= facts.capacity_bytes
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == ["templates", "volumes"]


def test_a_shared_mount_point_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    where = PoolRef("u", PoolKind.SHARED_MOUNT_POINT, str(tmp_path / "not-mounted"))
    refusal(Reason.MISSING, pools(tmp_path).attach(where))
    assert not (tmp_path / "not-mounted").exists()


@pytest.mark.parametrize("path", ["relative", "", "/a/../b"])
def test_a_pool_has_an_absolute_path(tmp_path: Path, path: str) -> None:
    refusal(Reason.REJECTED, pools(tmp_path).attach(PoolRef("u", PoolKind.FILESYSTEM, path)))


@pytest.mark.parametrize(("server", "path"), [("-o", "/x"), ("", "/x"), ("a b", "/x"), ("nfs.example", "x")])
def test_a_strange_export_is_refused_before_anything_is_mounted(tmp_path: Path, server: str, path: str) -> None:
    refusal(Reason.REJECTED, pools(tmp_path).attach(PoolRef("u", PoolKind.NETWORK_FILESYSTEM, path, server)))
    assert not (tmp_path / "mnt").exists()


def test_an_export_that_cannot_be_mounted_is_refused_and_leaves_no_directory(tmp_path: Path) -> None:
    where = PoolRef("u", PoolKind.NETWORK_FILESYSTEM, "/export", "127.0.0.1")
    text = refusal(Reason.FAILED, pools(tmp_path).attach(where))
    assert "127.0.0.1:/export" in text
    assert not (tmp_path / "mnt" / "u").exists()
    asyncio.run(pools(tmp_path).detach(where))


def test_attaching_after_a_crash_clears_our_own_half_files_only(tmp_path: Path) -> None:
    where = pool(tmp_path)
    asyncio.run(pools(tmp_path).attach(where))
    (tmp_path / "pool" / "volumes" / f".v.{HOST}.part").write_bytes(b"ours")
    (tmp_path / "pool" / "volumes" / ".v.another-host.part").write_bytes(b"theirs")
    asyncio.run(pools(tmp_path).attach(where))
    assert files_in(where) == ["volumes/.v.another-host.part"]


# ---- volumes


def test_a_volume_clones_its_template_and_can_be_bigger(tmp_path: Path) -> None:
    where, made = pool(tmp_path), pools(tmp_path)

    async def work() -> list[ImageFacts]:
        await made.attach(where)
        image(tmp_path).rename(made.template(where, "tmpl"))
        return [await made.create_volume(where, f"v{size}", size, "tmpl") for size in (0, MIB, 20 * MIB, 20 * MIB + 1)]

    sizes = [facts.virtual_bytes for facts in asyncio.run(work())]
    assert sizes == [10 * MIB, 10 * MIB, 20 * MIB, 20 * MIB + 512]
    subprocess.run(["qemu-img", "check", "-q", str(made.volume(where, "v0"))], check=True)


def test_a_clone_finds_its_template_wherever_the_pool_is_mounted(tmp_path: Path) -> None:
    where, made = pool(tmp_path), pools(tmp_path)

    async def work() -> None:
        await made.attach(where)
        image(tmp_path).rename(made.template(where, "tmpl"))
        await made.create_volume(where, "v", 0, "tmpl")

    asyncio.run(work())
    (tmp_path / "pool").rename(tmp_path / "elsewhere")
    subprocess.run(
        ["qemu-img", "convert", "-O", "raw", str(tmp_path / "elsewhere" / "volumes" / "v"), str(tmp_path / "out")],
        check=True,
    )


def test_creating_twice_keeps_the_first_and_deleting_twice_is_fine(tmp_path: Path) -> None:
    where, made = pool(tmp_path), pools(tmp_path)

    async def work() -> None:
        await made.attach(where)
        first = await made.create_volume(where, "v", MIB, "")
        inode = made.volume(where, "v").stat().st_ino
        assert await made.create_volume(where, "v", MIB, "") == first
        assert made.volume(where, "v").stat().st_ino == inode
        await made.delete_volume(where, "v")
        await made.delete_volume(where, "v")

    asyncio.run(work())
    assert files_in(where) == []


def test_one_name_at_the_same_time_from_two_hosts_is_one_volume(tmp_path: Path) -> None:
    where = pool(tmp_path)
    one, two = pools(tmp_path), pools(tmp_path, host="another")

    async def work() -> list[ImageFacts]:
        await one.attach(where)
        await two.attach(where)
        return await asyncio.gather(*(made.create_volume(where, "v", MIB, "") for made in (one, two, one, two)))

    assert {facts.virtual_bytes for facts in asyncio.run(work())} == {MIB}
    assert files_in(where) == ["volumes/v"]


def test_a_volume_without_its_template_or_its_pool_is_refused(tmp_path: Path) -> None:
    where, made = pool(tmp_path), pools(tmp_path)
    refusal(Reason.MISSING, made.create_volume(where, "v", MIB, ""))
    asyncio.run(made.attach(where))
    refusal(Reason.MISSING, made.create_volume(where, "v", MIB, "nothing"))
    assert files_in(where) == []


@pytest.mark.parametrize("size", [0, -1, (1 << 40) + 1])
def test_a_blank_volume_has_a_sane_size(tmp_path: Path, size: int) -> None:
    where, made = pool(tmp_path), pools(tmp_path)
    asyncio.run(made.attach(where))
    refusal(Reason.REJECTED, made.create_volume(where, "v", size, ""))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-o", "a\nb", "x" * 201])
def test_a_name_that_is_no_file_name_is_refused_everywhere(tmp_path: Path, name: str) -> None:
    where, made = pool(tmp_path), pools(tmp_path)
    asyncio.run(made.attach(where))
    for work in (
        made.create_volume(where, name, MIB, ""),
        made.delete_volume(where, name),
        made.remove_template(where, name),
        made.fetch_template(FetchTemplate(where, name, "https://127.0.0.1/x", "0" * 64), lambda percent, text: None),
    ):
        refusal(Reason.REJECTED, work)


# ---- templates


@pytest.mark.parametrize("options", [["-f", "qcow2"], ["-f", "qcow2", "-o", "compat=0.10"], ["-f", "raw"]])
def test_a_template_arrives_as_a_plain_qcow2(tmp_path: Path, store: Store, options: list[str]) -> None:
    source = tmp_path / "source"
    qemu_img("create", "-q", *options, str(source), "10M")
    content = store.files["/t"] = source.read_bytes()
    where = pool(tmp_path)
    facts = fetch(pools(tmp_path, store.credentials), where, f"{store.url}/t", content)
    assert facts.virtual_bytes == 10 * MIB
    assert facts.sha256 == hashlib.sha256(content).hexdigest()
    assert images.read_header(Path(where.path) / "templates" / "tmpl") == images.Header("qcow2", 10 * MIB)
    assert files_in(where) == ["templates/tmpl"]
    assert (Path(where.path) / "templates" / "tmpl").stat().st_mode & 0o777 == 0o600


def test_a_template_that_is_there_is_not_fetched_again(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()
    made = pools(tmp_path, store.credentials)
    for _ in range(2):
        fetch(made, pool(tmp_path), f"{store.url}/t", content)
    assert store.asked == ["/t"]


def test_a_template_wanted_many_times_at_once_is_fetched_once(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()
    where, made = pool(tmp_path), pools(tmp_path, store.credentials)
    order = FetchTemplate(where, "tmpl", f"{store.url}/t", hashlib.sha256(content).hexdigest())

    async def work() -> None:
        await made.attach(where)
        await asyncio.gather(*(made.fetch_template(order, lambda percent, text: None) for _ in range(4)))

    asyncio.run(work())
    assert store.asked == ["/t"]


def refused_fetch(tmp_path: Path, store: Store, path: str, reason: Reason, content: bytes = b"", **limits: int) -> None:
    """Nothing of a refused image stays in the pool, not even half."""
    where = pool(tmp_path)
    made = pools(tmp_path, store.credentials, **limits)
    with pytest.raises(Refused) as refused:
        fetch(made, where, f"{store.url}{path}", content)
    assert refused.value.reason is reason, refused.value.text
    assert files_in(where) == []


def test_an_image_with_a_backing_file_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "base").write_bytes(b"\0" * MIB)
    content = store.files["/t"] = image(tmp_path, "-b", str(tmp_path / "base"), "-F", "raw").read_bytes()
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, content)


def test_an_image_with_an_external_data_file_is_refused(tmp_path: Path, store: Store) -> None:
    options = ["-o", f"data_file={tmp_path / 'data'},data_file_raw=on"]
    content = store.files["/t"] = image(tmp_path, *options).read_bytes()
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, content)


def test_an_image_with_an_absurd_size_is_refused(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path, size="1T").read_bytes()
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, content, max_image_bytes=1 << 30)


@pytest.mark.parametrize("size", [4, 24, 60, 76])
def test_an_image_that_is_cut_short_is_refused(tmp_path: Path, store: Store, size: int) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()[:size]
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, content)


@pytest.mark.parametrize(("at", "value"), [(4, struct.pack(">I", 9)), (72, struct.pack(">Q", 1 << 60))])
def test_an_image_from_the_future_is_refused(tmp_path: Path, store: Store, at: int, value: bytes) -> None:
    content = bytearray(image(tmp_path).read_bytes())
    content[at : at + len(value)] = value
    store.files["/t"] = bytes(content)
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, bytes(content))


def test_a_wrong_checksum_is_refused(tmp_path: Path, store: Store) -> None:
    store.files["/t"] = image(tmp_path).read_bytes()
    refused_fetch(tmp_path, store, "/t", Reason.REJECTED, b"something else")


def test_an_image_bigger_than_the_pool_is_refused_before_it_is_loaded(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()
    store.declared["/t"] = 1 << 60
    refused_fetch(tmp_path, store, "/t", Reason.NO_ROOM, content)


def test_an_answer_that_breaks_off_is_refused(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()
    store.declared["/t"] = len(content) + 1
    refused_fetch(tmp_path, store, "/t", Reason.UNREACHABLE, content)


@pytest.mark.parametrize(("path", "reason"), [("/nothing", Reason.MISSING), ("/broken", Reason.UNREACHABLE)])
def test_a_store_without_the_image_is_told_from_a_broken_one(
    tmp_path: Path, store: Store, path: str, reason: Reason
) -> None:
    refused_fetch(tmp_path, store, path, reason)


def test_a_store_that_does_not_know_us_gives_nothing(tmp_path: Path, store: Store) -> None:
    store.files["/t"] = image(tmp_path).read_bytes()
    store.credentials = store.stranger
    refused_fetch(tmp_path, store, "/t", Reason.UNREACHABLE, store.files["/t"])
    assert store.asked == []


def test_templates_come_by_https_only(tmp_path: Path) -> None:
    where, made = pool(tmp_path), pools(tmp_path)
    asyncio.run(made.attach(where))
    for url in ("http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"):
        refusal(Reason.REJECTED, made.fetch_template(FetchTemplate(where, "t", url, "0" * 64), lambda *_: None))


def test_a_removed_template_is_gone_and_removing_again_is_fine(tmp_path: Path, store: Store) -> None:
    content = store.files["/t"] = image(tmp_path).read_bytes()
    where, made = pool(tmp_path), pools(tmp_path, store.credentials)
    fetch(made, where, f"{store.url}/t", content)
    for _ in range(2):
        asyncio.run(made.remove_template(where, "tmpl"))
    assert files_in(where) == []
