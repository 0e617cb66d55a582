"""The connection to libvirtd: calls in threads, lifecycle events, and a new connection when the daemon went away.

libvirt's event loop is one thread for the whole process and must exist before the first connection is opened, or
keep-alive and close callbacks stay silent.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import libvirt
import structlog

from pileus.agent.backend import Refused
from pileus.wire.operations import Reason

log = structlog.get_logger(__name__)

T = TypeVar("T")

KEEPALIVE_SECONDS = 5
KEEPALIVE_COUNT = 3
RECONNECT_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts; the last one repeats."""
PATIENCE_SECONDS = 15.0
"""How long a call waits for a daemon that is being started again."""

Lifecycle = Callable[[str, int], None]
"""Called on the asyncio loop with a domain's UUID and libvirt's event id, for every lifecycle event."""


@functools.cache
def _event_loop() -> threading.Thread:
    libvirt.virEventRegisterDefaultImpl()
    # The default handler prints to standard error what every caller gets as an exception anyway.
    libvirt.registerErrorHandler(lambda context, error: None, None)

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    thread = threading.Thread(target=turn, name="libvirt-events", daemon=True)
    thread.start()
    return thread


class Libvirt:
    """One host's libvirtd. `back` is awaited after a lost connection is there again: events may have been missed."""

    def __init__(self, uri: str, *, lifecycle: Lifecycle, back: Callable[[], Awaitable[None]]) -> None:
        self._uri = uri
        self._lifecycle = lifecycle
        self._back = back
        self._connection: Any = None
        self._connected = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reconnecting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Raises Refused (FAILED) when the daemon does not answer."""
        self._loop = asyncio.get_running_loop()
        _event_loop()
        try:
            await self._connect()
        except libvirt.libvirtError as error:
            raise Refused(Reason.FAILED, f"libvirtd does not answer at {self._uri}: {error}") from error

    async def close(self) -> None:
        """Let go of the daemon; guests run on."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
            self._reconnecting = None
        connection, self._connection = self._connection, None
        self._connected.clear()
        if connection is not None:
            await asyncio.to_thread(_shut, connection)

    async def call(self, work: Callable[[Any], T]) -> T:
        """Run `work(connection)` in a thread. Raises Refused when libvirt fails or cannot be reached for too long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._connected.wait()
        except TimeoutError as error:
            raise Refused(Reason.FAILED, f"libvirtd does not answer at {self._uri}") from error
        try:
            return await asyncio.to_thread(work, self._connection)
        except libvirt.libvirtError as error:
            raise Refused(Reason.FAILED, f"libvirt: {error.get_error_message()}") from error

    async def _connect(self) -> None:
        connection = await asyncio.to_thread(libvirt.open, self._uri)
        try:
            await asyncio.to_thread(self._watch, connection)
        except libvirt.libvirtError:
            await asyncio.to_thread(_shut, connection)
            raise
        self._connection = connection
        self._connected.set()

    def _watch(self, connection: Any) -> None:
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        connection.registerCloseCallback(self._on_close, None)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)

    # ---- called by libvirt's own thread

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: None) -> None:
        self._hand_over(self._lifecycle, domain.UUIDString(), libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE)

    def _on_reboot(self, connection: Any, domain: Any, opaque: None) -> None:
        self._hand_over(self._lifecycle, domain.UUIDString(), libvirt.VIR_DOMAIN_EVENT_ID_REBOOT)

    def _on_close(self, connection: Any, reason: int, opaque: None) -> None:
        self._hand_over(self._lost, connection, reason)

    def _hand_over(self, function: Callable[..., None], *arguments: Any) -> None:
        # The asyncio loop may have ended before the last event came.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

    # ---- on the asyncio loop

    def _lost(self, connection: Any, reason: int) -> None:
        if connection is not self._connection:
            return
        log.warning("libvirt.lost", uri=self._uri, reason=reason)
        self._connection = None
        self._connected.clear()
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect(connection))

    async def _reconnect(self, lost: Any) -> None:
        await asyncio.to_thread(_shut, lost)
        attempt = 0
        while True:
            try:
                await self._connect()
                break
            except libvirt.libvirtError:
                await asyncio.sleep(RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)])
                attempt += 1
        log.info("libvirt.back", uri=self._uri)
        await self._back()


def _shut(connection: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()
