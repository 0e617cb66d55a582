"""Secondary storage as a host sees it: real HTTP sources, real images, real TLS."""

import asyncio
import bz2
import gzip
import hashlib
import http.client
import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pileus.agent.backend import Credentials, HostSettings
from pileus.appliance.storage import DirectoryStore, create
from pileus.wire.operations import DownloadTemplate, ImageFacts, ImageFormat, Reason, Refused

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


# ---- what works


@pytest.mark.parametrize(
    ("path", "pack"), [("/a.qcow2", bytes), ("/a.qcow2.gz", gzip.compress), ("/a.QCOW2.bz2", bz2.compress)]
)
def test_an_image_arrives_unchanged_however_it_is_packed(
    settings: HostSettings, httpserver: HTTPServer, image: bytes, path: str, pack: Callable[[bytes], bytes]
) -> None:
    httpserver.expect_request(path).respond_with_data(pack(image))
    told: list[tuple[int, str]] = []
    facts = asyncio.run(downloaded(settings, order(httpserver.url_for(path)), told))
    assert (Path(settings.state_dir) / "images/template-1").read_bytes() == image
    assert facts.virtual_bytes == 4 * MIB
    assert facts.physical_bytes == len(image)
    assert facts.sha256 == hashlib.sha256(image).hexdigest()
    assert urlsplit(facts.url).path == "/images/template-1"
    percents = [percent for percent, _ in told]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert files(settings) == ["facts/template-1", "images/template-1"]


def test_a_raw_image_becomes_qcow2_with_the_same_content(
    settings: HostSettings, httpserver: HTTPServer, tmp_path: Path
) -> None:
    raw = os.urandom(100_000) + bytes(2 * MIB) + os.urandom(512 * 3)
    raw += bytes(-len(raw) % 512)
    httpserver.expect_request("/a.img.gz").respond_with_data(gzip.compress(raw))
    facts = asyncio.run(downloaded(settings, order(httpserver.url_for("/a.img.gz"), format=ImageFormat.RAW)))
    assert facts.virtual_bytes == len(raw)
    back = tmp_path / "back.raw"
    stored = Path(settings.state_dir) / "images/template-1"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", stored, back], check=True, timeout=60)
    assert back.read_bytes() == raw


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_checksum_is_that_of_what_the_url_serves(
    settings: HostSettings, httpserver: HTTPServer, image: bytes, kind: str
) -> None:
    packed = gzip.compress(image)
    httpserver.expect_request("/a.gz").respond_with_data(packed)
    checksum = hashlib.new(kind, packed).hexdigest().upper()
    facts = asyncio.run(downloaded(settings, order(httpserver.url_for("/a.gz"), checksum=checksum)))
    assert facts.virtual_bytes == 4 * MIB


def test_redirects_are_followed_relative_ones_too(settings: HostSettings, httpserver: HTTPServer, image: bytes) -> None:
    httpserver.expect_request("/1").respond_with_data(status=302, headers={"Location": "/2?x=y"})
    httpserver.expect_request("/2").respond_with_data(status=307, headers={"Location": httpserver.url_for("/3")})
    httpserver.expect_request("/3").respond_with_data(image)
    assert asyncio.run(downloaded(settings, order(httpserver.url_for("/1")))).virtual_bytes == 4 * MIB


def test_a_complete_image_is_not_fetched_again(settings: HostSettings, httpserver: HTTPServer, image: bytes) -> None:
    httpserver.expect_ordered_request("/a").respond_with_data(image)
    first = asyncio.run(downloaded(settings, order(httpserver.url_for("/a"))))
    again = asyncio.run(downloaded(settings, order(httpserver.url_for("/a"))))
    assert (first.sha256, first.virtual_bytes) == (again.sha256, again.virtual_bytes)
    assert len(httpserver.log) == 1


def test_what_a_killed_download_left_is_thrown_away_and_fetched_anew(
    settings: HostSettings, httpserver: HTTPServer, image: bytes
) -> None:
    state = Path(settings.state_dir)
    for path in ("images/template-1", "partial/template-1.download", "facts/other"):
        (state / path).parent.mkdir(exist_ok=True)
        (state / path).write_bytes(b"half")
    httpserver.expect_request("/a").respond_with_data(image)
    asyncio.run(downloaded(settings, order(httpserver.url_for("/a"))))
    assert (state / "images/template-1").read_bytes() == image
    assert files(settings) == ["facts/template-1", "images/template-1"]


def test_a_download_that_is_called_off_ends_at_once_and_leaves_nothing(settings: HostSettings) -> None:
    with Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nQFI\xfb") as source:

        async def called_off() -> None:
            store = create(settings)
            await store.open()
            task = asyncio.create_task(store.download(order(source.url), lambda percent, text: None))
            await asyncio.to_thread(source.sent.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await store.close()

        asyncio.run(asyncio.wait_for(called_off(), 25))
    assert files(settings) == []


def test_deleting_is_right_whether_or_not_the_image_is_there(
    settings: HostSettings, httpserver: HTTPServer, image: bytes
) -> None:
    httpserver.expect_request("/a").respond_with_data(image)

    async def story() -> None:
        store = create(settings)
        await store.open()
        await store.delete("template-1")
        await store.download(order(httpserver.url_for("/a")), lambda percent, text: None)
        await store.delete("template-1")
        await store.delete("template-1")
        with pytest.raises(Refused):
            await store.delete("../facts")
        await store.close()

    asyncio.run(story())
    assert files(settings) == []


# ---- sources that are refused


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2:1/x", "http://169.254.169.254/latest", "http://[::1]/", "http://0.0.0.0/", "http://10.0.0.1/"],
)
def test_a_redirect_to_an_internal_address_is_refused(
    settings: HostSettings, httpserver: HTTPServer, location: str
) -> None:
    httpserver.expect_request("/a").respond_with_data(status=302, headers={"Location": location})
    refused = refusal(settings, order(httpserver.url_for("/a"), allowed_cidrs=("127.0.0.1/32",)))
    assert refused.reason is Reason.REJECTED


def test_a_name_is_resolved_once_and_the_checked_address_is_what_is_connected_to(
    settings: HostSettings, httpserver: HTTPServer, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    resolve = socket.getaddrinfo

    def noting(host: str, *rest: Any, **named: Any) -> Any:
        looked_up.append(host)
        return resolve("127.0.0.1" if host == "images.example" else host, *rest, **named)

    httpserver.expect_request("/a").respond_with_data(image)
    monkeypatch.setattr(socket, "getaddrinfo", noting)
    url = httpserver.url_for("/a").replace("localhost", "images.example").replace("127.0.0.1", "images.example")
    asyncio.run(downloaded(settings, order(url)))
    assert [host for host in looked_up if not host.replace(".", "").isdigit()] == ["images.example"]
    assert httpserver.log[0][0].host.split(":")[0] == "images.example"


def test_loopback_is_refused_unless_it_is_allowed(settings: HostSettings, httpserver: HTTPServer) -> None:
    refused = refusal(settings, order(httpserver.url_for("/a"), allowed_cidrs=()))
    assert refused.reason is Reason.REJECTED
    assert httpserver.log == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "http://",
        "http://user:secret@127.0.0.1/x",
        "http://127.0.0.1:0/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nX: y",
    ],
)
def test_a_url_that_is_not_plain_http_is_refused(settings: HostSettings, url: str) -> None:
    assert refusal(settings, order(url)).reason is Reason.REJECTED


def test_a_redirect_to_another_scheme_is_refused(settings: HostSettings, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(status=302, headers={"Location": "file:///etc/passwd"})
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


def test_endless_redirects_are_refused(settings: HostSettings, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(status=302, headers={"Location": "/a"})
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED
    assert len(httpserver.log) == 6


@pytest.mark.parametrize(
    ("status", "reason"), [(404, Reason.REJECTED), (403, Reason.REJECTED), (503, Reason.UNREACHABLE)]
)
def test_a_server_that_says_no_is_told_apart_from_one_in_trouble(
    settings: HostSettings, httpserver: HTTPServer, status: int, reason: Reason
) -> None:
    httpserver.expect_request("/a").respond_with_data(b"no", status=status)
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is reason


def test_a_port_nobody_listens_on_is_unreachable(settings: HostSettings) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        assert refusal(settings, order(url)).reason is Reason.UNREACHABLE


def test_a_silent_server_is_given_up(settings: HostSettings) -> None:
    impatient = with_options(settings, stall_seconds=0.3)
    with Trickle(b"") as source:
        assert refusal(impatient, order(source.url)).reason is Reason.UNREACHABLE


def test_a_server_that_stops_in_the_middle_is_given_up(settings: HostSettings) -> None:
    impatient = with_options(settings, stall_seconds=0.3)
    with Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nQFI\xfb") as source:
        assert refusal(impatient, order(source.url)).reason is Reason.UNREACHABLE


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nQFI\xfb", b"HTTP/1.1 200 OK\r\n\r\nQFI\xfb"]
)
def test_a_download_that_takes_too_long_in_all_is_given_up(settings: HostSettings, head: bytes) -> None:
    with Trickle(head) as source:
        refused = refusal(with_options(settings, total_seconds=0.5), order(source.url))
    assert refused.reason is Reason.UNREACHABLE


def test_a_body_shorter_than_promised_is_no_image(settings: HostSettings, image: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(image) + 1}\r\n\r\n".encode()
    with Trickle(head + image, hang_up=True) as source:
        assert refusal(settings, order(source.url)).reason is Reason.UNREACHABLE


def test_an_https_source_with_an_unknown_ca_is_refused_and_with_a_known_one_is_used(
    settings: HostSettings, authority: Authority, image: bytes
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("127.0.0.1").configure_cert(context)
    with HTTPServer(host="127.0.0.1", ssl_context=context) as server:
        server.expect_request("/a").respond_with_data(image)
        server.expect_request("/b").respond_with_data(status=302, headers={"Location": "http://127.0.0.1/a"})
        url = server.url_for("/a")
        assert refusal(settings, order(url)).reason is Reason.REJECTED
        trusting = with_options(settings, source_ca=settings.credentials.ca)
        assert refusal(trusting, order(server.url_for("/b"))).reason is Reason.REJECTED
        assert asyncio.run(downloaded(trusting, order(url))).virtual_bytes == 4 * MIB


# ---- images that are refused


def test_an_image_bigger_than_allowed_is_refused_before_it_is_fetched(
    settings: HostSettings, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/a").respond_with_data(bytes(2000))
    assert refusal(settings, order(httpserver.url_for("/a"), max_bytes=1999)).reason is Reason.REJECTED


def test_an_image_that_hides_its_size_is_refused_on_the_way(settings: HostSettings, httpserver: HTTPServer) -> None:
    def endless() -> Iterator[bytes]:
        yield b"QFI\xfb"
        while True:
            yield bytes(65536)

    def answer(request: Request) -> Response:
        return Response(endless(), direct_passthrough=True)

    httpserver.expect_request("/a").respond_with_handler(answer)
    assert refusal(settings, order(httpserver.url_for("/a"), max_bytes=MIB)).reason is Reason.REJECTED


@pytest.mark.parametrize(("end", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress)])
@pytest.mark.parametrize("image_format", [ImageFormat.RAW, ImageFormat.QCOW2])
def test_a_decompression_bomb_is_refused(
    settings: HostSettings,
    httpserver: HTTPServer,
    end: str,
    pack: Callable[[bytes], bytes],
    image_format: ImageFormat,
) -> None:
    bomb = pack(b"QFI\xfb" + bytes(100 * MIB) if image_format is ImageFormat.QCOW2 else bytes(100 * MIB))
    assert len(bomb) < MIB
    httpserver.expect_request(f"/a.{end}").respond_with_data(bomb)
    wanted = order(httpserver.url_for(f"/a.{end}"), format=image_format, max_bytes=10 * MIB)
    assert refusal(settings, wanted).reason is Reason.REJECTED


@pytest.mark.parametrize("checksum", ["0" * 32, "0" * 64, "abc"])
def test_a_wrong_checksum_is_refused(
    settings: HostSettings, httpserver: HTTPServer, image: bytes, checksum: str
) -> None:
    httpserver.expect_request("/a").respond_with_data(image)
    assert refusal(settings, order(httpserver.url_for("/a"), checksum=checksum)).reason is Reason.REJECTED


def test_gzip_data_cut_short_is_refused(settings: HostSettings, httpserver: HTTPServer, image: bytes) -> None:
    httpserver.expect_request("/a.gz").respond_with_data(gzip.compress(image)[:-9])
    assert refusal(settings, order(httpserver.url_for("/a.gz"))).reason is Reason.REJECTED


@pytest.mark.parametrize("content", [b"", b"x", b"QFI\xfb", b"<html>not found</html>", b"QFI\xfb" + bytes(2000)])
def test_what_is_no_qcow2_is_refused(settings: HostSettings, httpserver: HTTPServer, content: bytes) -> None:
    httpserver.expect_request("/a").respond_with_data(content)
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


def test_qcow2_registered_as_raw_is_refused(settings: HostSettings, httpserver: HTTPServer, image: bytes) -> None:
    httpserver.expect_request("/a").respond_with_data(image)
    wanted = order(httpserver.url_for("/a"), format=ImageFormat.RAW)
    assert refusal(settings, wanted).reason is Reason.REJECTED


@pytest.mark.parametrize("image_format", [ImageFormat.VHD, ImageFormat.OVA, ImageFormat.ISO])
def test_other_formats_are_refused(settings: HostSettings, httpserver: HTTPServer, image_format: ImageFormat) -> None:
    assert refusal(settings, order(httpserver.url_for("/a"), format=image_format)).reason is Reason.REJECTED


@pytest.mark.parametrize(
    "options",
    [
        ["-b", "{secret}", "-F", "raw"],
        ["-o", "data_file={secret}.data"],
        ["-o", "data_file={secret}.data,data_file_raw=on"],
    ],
)
def test_an_image_that_refers_to_another_file_is_refused(
    settings: HostSettings, httpserver: HTTPServer, tmp_path: Path, options: list[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    evil = tmp_path / "evil.qcow2"
    filled = [option.format(secret=secret) for option in options]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *filled, evil, "1M"], check=True, timeout=60)
    httpserver.expect_request("/a").respond_with_data(evil.read_bytes())
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


def test_an_encrypted_image_is_refused(settings: HostSettings, httpserver: HTTPServer, tmp_path: Path) -> None:
    made = tmp_path / "encrypted.qcow2"
    secret = ["--object", "secret,id=s,data=0123456789"]
    how = ["-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
    subprocess.run(["qemu-img", "create", "-q", *secret, "-f", "qcow2", *how, made, "1M"], check=True, timeout=120)
    httpserver.expect_request("/a").respond_with_data(made.read_bytes())
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


def test_an_image_whose_disk_would_be_huge_is_refused(
    settings: HostSettings, httpserver: HTTPServer, tmp_path: Path
) -> None:
    made = tmp_path / "huge.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", made, "500G"], check=True, timeout=60)
    httpserver.expect_request("/a").respond_with_data(made.read_bytes())
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (4, struct.pack(">I", 9)),
        (20, struct.pack(">I", 60)),
        (32, struct.pack(">I", 1)),
        (72, struct.pack(">Q", 2)),
        (72, struct.pack(">Q", 1 << 40)),
    ],
    ids=["version", "clusters", "encrypted", "corrupt", "unknown feature"],
)
def test_a_header_that_is_odd_is_refused(
    settings: HostSettings, httpserver: HTTPServer, image: bytes, at: int, value: bytes
) -> None:
    odd = bytearray(image)
    odd[at : at + len(value)] = value
    httpserver.expect_request("/a").respond_with_data(bytes(odd))
    assert refusal(settings, order(httpserver.url_for("/a"))).reason is Reason.REJECTED


# ---- serving


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes


def asked(
    store: DirectoryStore, settings: HostSettings, httpserver: HTTPServer, image: bytes, work: Callable[[str], Any]
) -> Any:
    """Have the image in the store and run `work` (with its URL) in a thread while the store serves."""
    httpserver.expect_request("/a").respond_with_data(image)

    async def story() -> Any:
        await store.open()
        try:
            facts = await store.download(order(httpserver.url_for("/a")), lambda percent, text: None)
            return await asyncio.to_thread(work, facts.url)
        finally:
            await store.close()

    return asyncio.run(asyncio.wait_for(story(), 60))


def get(url: str, credentials: Credentials, *, method: str = "GET", target: str = "", **fields: str) -> Answer:
    context = ssl.create_default_context(cafile=credentials.ca)
    if credentials.certificate:
        context.load_cert_chain(credentials.certificate, credentials.key)
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=20)
    with closing(connection):
        connection.putrequest(method, target or parts.path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


def test_a_host_with_a_certificate_gets_the_image_or_part_of_it(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes
) -> None:
    host = authority.issue("host")

    def work(url: str) -> None:
        assert get(url, host).body == image
        head = get(url, host, method="HEAD")
        assert (head.status, head.body, head.fields["Content-Length"]) == (200, b"", str(len(image)))
        middle = get(url, host, Range="bytes=100-199")
        assert (middle.status, middle.body) == (206, image[100:200])
        assert middle.fields["Content-Range"] == f"bytes 100-199/{len(image)}"
        assert get(url, host, Range="bytes=1000-").body == image[1000:]
        assert get(url, host, Range="bytes=-10").body == image[-10:]
        assert get(url, host, Range=f"bytes={len(image)}-").status == 416
        assert get(url, host, Range="lines=1-2").status == 416

    asked(create(settings), settings, httpserver, image, work)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/images",
        "/images/",
        "/images/.",
        "/images/..",
        "/images/../facts/template-1",
        "/images/%2e%2e/facts/template-1",
        "/facts/template-1",
        "/images/template-2",
        "/images//template-1",
        "/images/template-1?x",
        "http://x/images/template-1",
    ],
)
def test_nothing_but_images_by_name_is_served(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes, target: str
) -> None:
    host = authority.issue("host")
    answer = asked(create(settings), settings, httpserver, image, lambda url: get(url, host, target=target))
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_images_can_only_be_read(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes, method: str
) -> None:
    host = authority.issue("host")
    answer = asked(create(settings), settings, httpserver, image, lambda url: get(url, host, method=method))
    assert answer.status == 405


def test_a_symbolic_link_is_not_followed(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes
) -> None:
    host = authority.issue("host")

    def work(url: str) -> Answer:
        (Path(settings.state_dir) / "images/link").symlink_to(settings.credentials.key)
        return get(url, host, target="/images/link")

    assert asked(create(settings), settings, httpserver, image, work).status == 404


def test_without_a_certificate_of_the_cloud_there_is_no_answer(
    settings: HostSettings, tmp_path: Path, httpserver: HTTPServer, image: bytes
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere).issue("stranger")
    ca = settings.credentials.ca

    def work(url: str) -> None:
        for credentials in (Credentials("", "", ca), Credentials(stranger.certificate, stranger.key, ca)):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                get(url, credentials)

    asked(create(settings), settings, httpserver, image, work)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /images/template-1 HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_a_request_that_is_none_is_answered_and_hung_up_on(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes, sent: bytes
) -> None:
    host = authority.issue("host")

    def work(url: str) -> bytes:
        context = ssl.create_default_context(cafile=host.ca)
        context.load_cert_chain(host.certificate, host.key)
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        with (
            closing(socket.create_connection(address, timeout=20)) as plain,
            closing(context.wrap_socket(plain, server_hostname=parts.hostname)) as line,
        ):
            line.sendall(sent)
            answer = b""
            while part := line.recv(4096):
                answer += part
            return answer

    answer = asked(create(settings), settings, httpserver, image, work)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_facts_and_stats_describe_this_machine(settings: HostSettings) -> None:
    store = create(settings)
    facts, stats = asyncio.run(store.facts()), asyncio.run(store.stats("host-1"))
    assert facts.address == "127.0.0.1"
    assert facts.memory_bytes > stats.memory_used_bytes > 0
    assert stats.uuid == "host-1"


class Trickle:
    """A server on loopback that sends these bytes to the first who connects and then nothing, or hangs up."""

    def __init__(self, sends: bytes, *, hang_up: bool = False) -> None:
        self._sends = sends
        self._hang_up = hang_up
        self.sent = threading.Event()
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
            if not self._hang_up:
                self._end.wait(30)


def with_options(settings: HostSettings, **options: Any) -> HostSettings:
    return HostSettings(
        settings.host_uuid,
        settings.state_dir,
        settings.address,
        settings.credentials,
        {**settings.options, **options},
    )
