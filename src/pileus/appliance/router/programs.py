"""Runs a program to its end: arguments as a list, no shell, a fixed environment, a deadline."""

import asyncio
import shutil
from collections.abc import Mapping

from pileus.appliance.router.errors import StepFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}
DEADLINE_SECONDS = 30.0


def find(program: str) -> str:
    """Where the program is; raises StepFailed when it is not installed."""
    path = shutil.which(program, path=PATH)
    if path is None:
        raise StepFailed(f"{program} is not installed")
    return path


async def run(program: str, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
    """What the program wrote; raises StepFailed with its complaint when it fails or does not end in time."""
    process = await asyncio.create_subprocess_exec(
        find(program),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**ENVIRONMENT, **(environment or {})},
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            written, complaint = await process.communicate(stdin.encode())
    except TimeoutError:
        raise StepFailed(f"{program} did not end in {DEADLINE_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        text = complaint.decode(errors="replace").strip() or written.decode(errors="replace").strip()
        raise StepFailed(f"{program}: {text}")
    return written.decode(errors="replace")
