"""Peers that mean no good hold up nobody: half handshakes, silence, crowds, floods and frames that are too large."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hosts_setup import Site, agent_of, heard, hello, raw_line, site_in, until
from websockets.exceptions import ConnectionClosed

from pileus.agent.identity import pinned_context
from pileus.server.domain.host import HostState
from pileus.server.hosts import first_bytes
from pileus.server.hosts import listener as listener_module
from pileus.server.hosts.delivery import SHARE, Inbound, Line
from pileus.server.hosts.pulse import Pulse
from pileus.wire.messages import Happened, Heartbeat, Progress, Report, VmChange, Welcome, encode
from pileus.wire.operations import AttachPool, PoolFacts
from pileus.wire.places import PoolKind, PoolRef

pytestmark = pytest.mark.anyio

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


async def with_settings(site: Site, **changes: object) -> None:
    await site.stop()
    site.settings = replace(site.settings, port=0, **changes)  # type: ignore[arg-type]
    await site.start()


async def is_served(site: Site, agent_host: int, name: str) -> None:
    site.request(agent_host, name, AttachPool(POOL))
    assert isinstance((await site.answered(name)).result, PoolFacts)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


async def test_half_handshakes_end_and_hold_up_nobody_meanwhile(site: Site) -> None:
    await with_settings(site, handshake_seconds=1.0)
    host_id, identity = await site.enrolled()
    open_ = [await asyncio.open_connection("127.0.0.1", site.endpoint.port) for _ in range(100)]
    for number, (_, writer) in enumerate(open_):
        # Nothing at all, the beginning of a ClientHello, or what is no TLS.
        writer.write((b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n")[number % 3])
    async with agent_of(site, identity):
        await is_served(site, host_id, "meanwhile")
        for reader, _ in open_:
            await ended(reader)
    for _, writer in open_:
        writer.close()


async def test_a_crowd_of_strangers_in_the_door_does_not_keep_hosts_out(site: Site) -> None:
    await with_settings(site, most_in_the_door=16)
    host_id, identity = await site.enrolled()
    context = pinned_context(site.authority.ca_pem)
    crowd = [await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context) for _ in range(20)]
    async with agent_of(site, identity):
        await is_served(site, host_id, "meanwhile")
    for _, writer in crowd:
        writer.close()


async def test_who_says_nothing_after_the_handshake_is_shown_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_bytes, "FIRST_BYTES_SECONDS", 0.2)
    monkeypatch.setattr(listener_module, "HELLO_SECONDS", 0.2)
    _, identity = await site.enrolled()
    context = identity.client_context()
    silent, writer = await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context)
    slow, slow_writer = await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context)
    slow_writer.write(b"POST /enrol HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
    assert (await ended(silent), await ended(slow)) == (b"", b"")
    async with raw_line(site, identity) as line:
        with pytest.raises(ConnectionClosed):
            await line.recv()  # It never said Hello.
    for each in (writer, slow_writer):
        each.close()


async def test_a_first_frame_that_is_too_large_ends_its_own_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "LARGEST_FRAME", 100_000)
    await with_settings(site)
    host_id, identity = await site.enrolled("good")
    _, hostile = await site.enrolled("hostile")
    async with agent_of(site, identity):
        async with raw_line(site, hostile) as line:
            with contextlib.suppress(ConnectionClosed):
                await line.send(b"\x00" * 1_000_000)
            with pytest.raises(ConnectionClosed) as told:
                await line.recv()
            assert told.value.rcvd is None or told.value.rcvd.code == 1009
        await is_served(site, host_id, "after")


async def test_a_flood_of_messages_slows_down_its_own_line_and_no_other(site: Site) -> None:
    host_id, identity = await site.enrolled("good")
    _, hostile = await site.enrolled("hostile")
    uuid = hostile.hosts()[0].uuid
    flood = [
        encode(Happened(uuid, "v", "u", 1, VmChange.CRASHED)),
        encode(Progress("op", uuid, 1)),
        encode(Report(())),
        encode(Heartbeat(("nobody",))),
    ]
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP)
        async with raw_line(site, hostile) as line:
            assert isinstance(await hello(line, uuid), Welcome)

            async def pour() -> None:
                while True:
                    for frame in flood:
                        await line.send(frame)

            pouring = asyncio.create_task(pour())
            for number in range(3):
                await is_served(site, host_id, f"meanwhile-{number}")
            pouring.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await pouring
    assert HostState.DISCONNECTED not in [state for known, state in site.heard.states[:-2] if known == host_id]


# ---- heartbeats that wake nobody


class Counted:
    """How often each way was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fast = self.slow = 0
        fast, slow = Pulse.beat_whole, Pulse.beat

        def beat_whole(pulse: Pulse) -> bool:
            self.fast += 1
            return fast(pulse)

        def beat(pulse: Pulse, silent: list[int], *, now: float) -> set[int]:
            self.slow += 1
            return slow(pulse, silent, now=now)

        monkeypatch.setattr(Pulse, "beat_whole", beat_whole)
        monkeypatch.setattr(Pulse, "beat", beat)


async def test_a_heartbeat_of_all_hosts_is_heard_without_waking_anybody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_settings(site, heartbeat_seconds=60.0)
    counted = Counted(monkeypatch)
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with raw_line(site, identity) as line:
        assert isinstance(await hello(line, uuid), Welcome)
        assert site.listener is not None
        (there,) = site.listener.delivery.lines
        there.pulse.heard_at = 0.0
        await line.send(encode(Heartbeat()))
        await until(lambda: there.pulse.heard_at > 0)
        assert (counted.fast, counted.slow) == (1, 0)

        await line.send(encode(Heartbeat((uuid,))))
        await until(lambda: bool(there.pulse.silent))
        assert (counted.fast, counted.slow) == (1, 1)
        assert list(there.pulse.silent) == [host_id]

        # The next whole one ends the silence, so it goes the long way; the one after it does not.
        await line.send(encode(Heartbeat()))
        await until(lambda: not there.pulse.silent)
        assert (counted.fast, counted.slow) == (2, 2)
        await line.send(encode(Heartbeat()))
        await until(lambda: counted.fast == 3)
        assert counted.slow == 2


async def test_a_host_that_was_called_down_is_called_up_by_a_whole_heartbeat(site: Site) -> None:
    await with_settings(site, heartbeat_seconds=60.0, down_after_seconds=0.0)
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with raw_line(site, identity) as line:
        assert isinstance(await hello(line, uuid), Welcome)
        assert site.listener is not None
        (there,) = site.listener.delivery.lines
        await line.send(encode(Heartbeat((uuid,))))
        await until(lambda: bool(there.pulse.silent))
        await site.listener.sweep()
        assert site.state(host_id) is HostState.DOWN
        await line.send(encode(Heartbeat()))
        await until(lambda: site.state(host_id) is HostState.UP)


@pytest.mark.parametrize("disguise", ["text", "pieces"])
async def test_what_only_looks_like_a_heartbeat_does_not_take_the_short_way(
    site: Site, monkeypatch: pytest.MonkeyPatch, disguise: str
) -> None:
    await with_settings(site, heartbeat_seconds=60.0)
    counted = Counted(monkeypatch)
    _, identity = await site.enrolled()
    beat = encode(Heartbeat())
    async with raw_line(site, identity) as line:
        assert isinstance(await hello(line, identity.hosts()[0].uuid), Welcome)
        if disguise == "text":
            await line.send(beat, text=True)
            with pytest.raises(ConnectionClosed):
                await line.recv()
        else:
            await line.send([beat[:2], beat[2:]])
            await until(lambda: counted.slow == 1)
        assert counted.fast == 0


async def test_of_one_line_only_so_much_waits_to_be_stored(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with raw_line(site, identity) as line:
        assert isinstance(await hello(line, uuid), Welcome)
        assert site.listener is not None
        (there,) = site.listener.delivery.lines
        delivery = site.listener.delivery
        gate = asyncio.Event()
        store = delivery._store

        async def held_up(batch: list[tuple[Line, Inbound]]) -> None:
            await gate.wait()
            await store(batch)

        delivery._store = held_up  # type: ignore[method-assign]
        news = Happened(uuid, "v", "u", 1, VmChange.CRASHED)
        pouring = [asyncio.create_task(delivery.received(there, news)) for _ in range(3 * SHARE)]
        await until(lambda: there.share.locked())
        assert sum(task.done() for task in pouring) == SHARE
        gate.set()
        await asyncio.gather(*pouring)
        await until(lambda: len(site.heard.happened) == 3 * SHARE)
        assert {known for known, _ in site.heard.happened} == {host_id}


async def test_before_the_hello_a_heartbeat_is_no_sign_of_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    _, identity = await site.enrolled()
    async with raw_line(site, identity) as line:
        await line.send(encode(Heartbeat()))
        assert "Hello is expected" in str(await heard(line))
    assert (counted.fast, counted.slow) == (0, 0)
