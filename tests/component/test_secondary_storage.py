"""What secondary storage takes in and what it refuses: real HTTP sources, real images."""

import asyncio
import bz2
import gzip
import hashlib
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_httpserver import HTTPServer
from storage_setup import (
    MIB,
    Authority,
    Trickle,
    authority,
    downloaded,
    files,
    image,
    order,
    refusal,
    settings,
    with_options,
)
from werkzeug import Request, Response

from pileus.agent.backend import HostSettings
from pileus.appliance.storage import create
from pileus.wire.operations import ImageFormat, Reason, Refused

__all__ = ["authority", "image", "settings"]

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


def test_a_source_that_is_refused_is_hung_up_on_at_once(settings: HostSettings) -> None:
    with Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nQFI\xfb") as source:
        refused = refusal(settings, order(source.url))
        assert source.left.wait(20)  # Nothing waits for the exception to be forgotten.
    assert refused.reason is Reason.REJECTED


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
