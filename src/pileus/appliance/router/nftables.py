"""Runs nftables commands as one transaction: in process by libnftables, or by the `nft` program where that lacks."""

import asyncio
import ctypes
import ctypes.util
from typing import Protocol

from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.programs import run


class Nftables(Protocol):
    """Something that loads nftables commands in the network namespace of this process."""

    async def load(self, commands: str) -> None:
        """All of `commands`, or nothing; raises StepFailed with what nftables said."""


def nftables() -> Nftables:
    """The quickest that works here."""
    name = ctypes.util.find_library("nftables") or "libnftables.so.1"
    try:
        return Library(ctypes.CDLL(name))
    except (OSError, AttributeError):
        return Program()


class Library:
    """libnftables, by ctypes: about a hundred times quicker than starting `nft`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        self._library = library
        self._lock = asyncio.Lock()

    async def load(self, commands: str) -> None:
        # Many elements take a while in the kernel, and guests' requests are answered meanwhile.
        async with self._lock:
            await asyncio.to_thread(self._load, commands)

    def _load(self, commands: str) -> None:
        # A context keeps what it knows of the ruleset; a new one cannot know a ruleset that is gone.
        context = self._library.nft_ctx_new(0)
        if not context:
            raise StepFailed("nftables: no context")
        try:
            self._library.nft_ctx_buffer_error(context)
            self._library.nft_ctx_buffer_output(context)
            if self._library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
                said = self._library.nft_ctx_get_error_buffer(context) or b""
                raise StepFailed(f"nftables: {said.decode(errors='replace').strip()}")
        finally:
            self._library.nft_ctx_free(context)


class Program:
    """The `nft` program."""

    async def load(self, commands: str) -> None:
        await run("nft", "-f", "-", stdin=commands)
