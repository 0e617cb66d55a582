"""Running the machine's own tools: argv only, with what they said in the error."""

import subprocess
from collections.abc import Sequence

COMMAND_SECONDS = 30.0


class SandboxError(Exception):
    """The sandbox could not be built or taken down; the text says what is wrong and, if known, the way out."""


def call(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run `argv` and return its standard output; SandboxError with its standard error when it fails."""
    done = attempt(argv, stdin=stdin)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise SandboxError(f"{' '.join(argv)}: {said or f'ended with status {done.returncode}'}")
    return done.stdout


def attempt(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `argv` and return how it ended, good or bad; SandboxError only when it cannot run or does not end."""
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except FileNotFoundError as error:
        raise SandboxError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"{' '.join(argv)}: no end after {COMMAND_SECONDS:.0f} s") from error


def ip(lines: Sequence[str], *, netns: str = "") -> None:
    """Run several `ip` commands in one process, in `netns` or where we are; stop at the first error."""
    where = ["-n", netns] if netns else []
    call(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n")
