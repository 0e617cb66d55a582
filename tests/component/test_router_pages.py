"""The router's HTTP server against rude clients, and its control channel against malformed messages, on loopback."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pileus.appliance.router import http
from pileus.appliance.router.control import listen
from pileus.appliance.router.http import Request, Response, Server
from pileus.appliance.router.router import Router, Sides
from pileus.wire.appliance import RouterReply, decode_reply
from pileus.wire.operations import Reason


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(ask: Callable[[int], Awaitable[None]], answer: Callable[[Request], Response] | None = None) -> None:
    """Run `ask` with the port of a server that answers with the path it was asked for."""

    async def both() -> None:
        port = free_port()
        server = Server(port, answer or (lambda request: Response(200, request.path.encode())))
        await server.listen("127.0.0.1")
        try:
            await ask(port)
        finally:
            await server.listen("")

    asyncio.run(both())


async def say(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET /a HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /a HTTP/1.1\nHost: x\n\n", b"HTTP/1.1 200 OK"),
        (b"POST /a HTTP/1.0\r\n\r\n", b"HTTP/1.1 405 "),
        (b"GET /a\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /a HTTP/1.0\r\nno colon\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /a HTTP/1.0\r\n" + b"a: b\r\n" * 100 + b"\r\n", b"HTTP/1.1 400 "),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.0\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
def test_every_request_has_its_answer(data: bytes, answer: bytes) -> None:
    async def ask(port: int) -> None:
        assert (await say(port, data)).startswith(answer)

    served(ask)


def test_head_has_the_length_and_no_body() -> None:
    async def ask(port: int) -> None:
        head, _, body = (await say(port, b"HEAD /abc?x=y HTTP/1.0\r\n\r\n")).partition(b"\r\n\r\n")
        assert b"Content-Length: 4" in head
        assert body == b""

    served(ask)


def test_a_client_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05)

    async def ask(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HT")
        async with asyncio.timeout(10):
            try:
                said = await reader.read()
            except ConnectionError:
                said = b""
        assert said == b""
        writer.close()

    served(ask)


def test_one_client_cannot_take_every_connection() -> None:
    async def ask(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(http.MAX_CONNECTIONS_OF_ONE)]
        assert (await say(port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        # Each question takes a turn of the event loop, in one of which the server sees that they are gone.
        async with asyncio.timeout(10):
            while (await say(port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 503 "):
                continue

    served(ask)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"{}\n",
        b'{"m":"reboot"}\n',
        b'{"m":"configure","config":{"generation":"canary-secret"}}\n',
        b'{"m":"configure"}\n',
        b"[]\n",
        b"\xff\xfe\n",
    ],
)
def test_a_malformed_message_is_refused_and_the_conversation_goes_on(tmp_path: Path, line: bytes) -> None:
    async def talk() -> tuple[RouterReply, RouterReply]:
        router = Router(Sides(guest="none", public=""), state=tmp_path / "state", files=tmp_path)
        server = await listen(tmp_path / "control", router)
        async with server:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
            writer.write(line + b'{"m":"status"}\n')
            replies = decode_reply(await reader.readline()), decode_reply(await reader.readline())
            writer.close()
            await writer.wait_closed()
            return replies

    refused, status = asyncio.run(talk())
    assert refused.refusal is not None
    assert refused.refusal.reason is Reason.REJECTED
    assert "canary-secret" not in refused.refusal.text
    assert status.refusal is None
    assert status.facts is None
    assert status.counters is not None


def test_only_its_owner_may_open_the_control_socket(tmp_path: Path) -> None:
    async def made() -> int:
        router = Router(Sides(guest="none", public=""), state=tmp_path / "state", files=tmp_path)
        async with await listen(tmp_path / "control", router):
            return (tmp_path / "control").stat().st_mode & 0o777

    assert asyncio.run(made()) == 0o600
