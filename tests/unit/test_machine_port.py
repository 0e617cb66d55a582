"""The control channel over a port: a socket pair plays the port, its other end the host."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pileus.agent.backends.kvm import router_control
from pileus.agent.backends.kvm.router_control import Port, Unreachable
from pileus.appliance.machine.port import Conversation, device
from pileus.wire.appliance import RouterReply, Status, encode
from pileus.wire.operations import RouterFacts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Host:
    """The other end of a port that shouts what it hears."""

    def __init__(self) -> None:
        self.here, there = socket.socketpair()
        self.there = there
        for end in (self.here, there):
            end.setblocking(False)
        self.stirred = asyncio.Event()
        self.times = 1
        self.asked: list[bytes] = []
        self.running = asyncio.create_task(Conversation(there.fileno(), self.answer, self.stirred).run())

    async def answer(self, message: bytes) -> bytes:
        self.asked.append(message)
        return message.upper() * self.times

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.here, data)
        self.stirred.set()

    async def hear(self, *ends: bytes) -> bytes:
        heard = b""
        async with asyncio.timeout(10):
            while not all(end in heard for end in ends):
                heard += await asyncio.get_running_loop().sock_recv(self.here, 1 << 16)
        return heard


@pytest.fixture
async def host(anyio_backend: str) -> AsyncIterator[Host]:
    made = Host()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)
    made.here.close()
    made.there.close()


async def test_each_answer_bears_the_mark_of_its_question(host: Host) -> None:
    await host.say(b"\nm1 one\nm2 two words\n")
    assert await host.hear(b"m2 TWO WORDS\n") == b"\nm1 ONE\n\nm2 TWO WORDS\n"


async def test_a_line_may_come_in_pieces(host: Host) -> None:
    for piece in (b"m1 he", b"llo", b"\nm2 x"):
        await host.say(piece)
    assert await host.hear(b"HELLO\n") == b"\nm1 HELLO\n"
    await host.say(b"yz\n")
    assert await host.hear(b"XYZ\n") == b"\nm2 XYZ\n"


async def test_what_bears_no_mark_is_the_rest_of_something_and_passed_over(host: Host) -> None:
    await host.say(b'}}}\n\n{"half":\n' + b"x" * 65 + b" too long a mark\nm1 ok\n")
    assert await host.hear(b"OK\n") == b"\nm1 OK\n"
    assert host.asked == [b"ok"]


async def test_an_answer_longer_than_the_port_takes_at_once_is_whole(host: Host) -> None:
    text = b"y" * 2000
    host.times = 500
    await host.say(b"m1 " + text + b"\n")
    assert len(await host.hear(b"Y\n")) == len(b"\nm1 \n") + 500 * len(text)


async def test_an_answer_that_nobody_takes_is_let_go(host: Host) -> None:
    host.here.close()
    host.there.setblocking(False)
    conversation = Conversation(host.there.fileno(), host.answer, asyncio.Event())
    async with asyncio.timeout(10):
        await conversation._write(b"z" * (1 << 20))


def test_a_port_is_found_by_its_name(tmp_path: Path) -> None:
    for number, name in ((1, "org.other"), (2, "pileus.control")):
        (tmp_path / f"vport1p{number}").mkdir()
        (tmp_path / f"vport1p{number}/name").write_text(f"{name}\n")
    assert device("pileus.control", tmp_path, Path("/dev")) == Path("/dev/vport1p2")
    with pytest.raises(FileNotFoundError):
        device("pileus.other", tmp_path)


async def serving(path: Path, *answers: bytes) -> asyncio.Server:
    """A port's host end that answers the first line with a mark by `answers`, in which MARK stands for the mark."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if b" " in line:
                mark = line.split(b" ")[0]
                writer.write(b"".join(answers).replace(b"MARK", mark))
                await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(greet, path)


async def test_the_agent_passes_over_answers_to_others(tmp_path: Path) -> None:
    facts = RouterFacts(7, "f")
    reply = encode(RouterReply(facts=facts))
    old = encode(RouterReply(facts=RouterFacts(6, "old")))
    path = tmp_path / "port"
    async with await serving(path, b'f":1}\n', b"\nabcdef " + old + b"\n", b"\nMARK " + reply + b"\n"):
        assert (await router_control.ask(Port(path), Status(), 10)).facts == facts


async def test_a_port_at_which_nobody_answers_is_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "port"
    async with await serving(path, b"\n"):
        with pytest.raises(Unreachable):
            await router_control.ask(Port(path), Status(), 0.05)
    with pytest.raises(Unreachable):
        await router_control.ask(Port(Path("")), Status(), 10)
