"""Running the host's tools without a shell, off the event loop's time."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Ended:
    """How a program ended; `said` is its standard error, or its output when it wrote no error."""

    status: int
    out: str
    said: str


class Failed(Exception):
    """A program did not do what it was asked; the text is what it said."""


async def attempt(argv: Sequence[str], *, stdin: str = "", seconds: float = COMMAND_SECONDS) -> Ended:
    """Run a program and say how it ended. It is killed when it takes too long (then `Failed`), or we are cancelled."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Failed(f"{argv[0]} is not installed") from error
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin.encode() if stdin else None)
    except TimeoutError as error:
        raise Failed(f"{argv[0]}: no end after {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    said = (err or out).decode(errors="replace").strip()
    return Ended(process.returncode or 0, out.decode(errors="replace"), said)


async def run(argv: Sequence[str], *, stdin: str = "", seconds: float = COMMAND_SECONDS) -> str:
    """Run a program and return its output; `Failed`, with what it said, when its status is not 0."""
    ended = await attempt(argv, stdin=stdin, seconds=seconds)
    if ended.status != 0:
        raise Failed(f"{argv[0]}: {ended.said or f'ended with status {ended.status}'}")
    return ended.out
