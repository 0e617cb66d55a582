"""Names of everything a sandbox makes: all begin with its prefix, and interface names fit into 15 characters."""

import re

from pileus.sandbox.commands import SandboxError

_PREFIX = re.compile(r"[a-z][a-z0-9]{0,7}")
_HOST = re.compile(r"[a-z][a-z0-9]{0,14}")


def check_prefix(prefix: str) -> str:
    """`prefix`, or SandboxError when it is not one to eight lower-case letters and digits."""
    if not _PREFIX.fullmatch(prefix):
        raise SandboxError(f"a sandbox is named by 1 to 8 lower-case letters and digits, not by {prefix!r}")
    return prefix


def check_host(name: str) -> str:
    """`name`, or SandboxError when a host cannot be called so."""
    if not _HOST.fullmatch(name) or name == "switch":
        raise SandboxError(f"a host is named by 1 to 15 lower-case letters and digits, not by {name!r}")
    return name


def switch_netns(prefix: str) -> str:
    return f"{prefix}-switch"


def root_device(prefix: str) -> str:
    return f"{prefix}-root"


def nat_table(prefix: str) -> str:
    return f"{prefix}-nat"


def host_netns(prefix: str, name: str) -> str:
    return f"{prefix}-{name}"


def cgroup(prefix: str, name: str = "") -> str:
    """The control group of a host, or how those of all hosts begin."""
    return f"pileus-{prefix}-{name}"
