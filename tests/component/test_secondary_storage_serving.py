"""Secondary storage as a host sees it: real TLS on both sides."""

import asyncio
import http.client
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_httpserver import HTTPServer
from storage_setup import (
    Authority,
    authority,
    image,
    order,
    settings,
)

from pileus.agent.backend import Credentials, HostSettings
from pileus.appliance.storage import DirectoryStore, create

__all__ = ["authority", "image", "settings"]


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


def test_a_renewed_certificate_is_shown_to_whoever_connects_next(
    settings: HostSettings, authority: Authority, httpserver: HTTPServer, image: bytes
) -> None:
    host, store = authority.issue("host"), create(settings)

    def shown(url: str) -> bytes | None:
        context = ssl.create_default_context(cafile=host.ca)
        context.load_cert_chain(host.certificate, host.key)
        parts = urlsplit(url)
        with (
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as line,
        ):
            return line.getpeercert(binary_form=True)

    def work(url: str) -> None:
        before = shown(url)
        again = authority.issue("store-again")
        for old, new in (("certificate", again.certificate), ("key", again.key)):
            Path(getattr(settings.credentials, old)).write_bytes(Path(new).read_bytes())
        assert shown(url) == before
        asyncio.run(store.renewed())
        assert shown(url) not in (before, None)
        assert get(url, host).body == image

    asked(store, settings, httpserver, image, work)


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
    assert stats.storage_total_bytes > stats.storage_used_bytes > 0


def test_closing_breaks_off_open_connections_without_a_fault(settings: HostSettings, authority: Authority) -> None:
    host = authority.issue("host")
    faults: list[dict[str, Any]] = []

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        store = create(settings)
        await store.open()
        url = urlsplit(store.url_of("none"))
        context = ssl.create_default_context(cafile=host.ca)
        context.load_cert_chain(host.certificate, host.key)
        reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
        writer.write(b"HEAD /images/none HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n")
        second, other = await asyncio.open_connection(url.hostname, url.port, ssl=context)
        other.write(b"HEAD")
        await other.drain()
        await store.close()
        assert await second.read() == b""
        for each in (writer, other):
            each.close()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert faults == []
