"""Physical hosts on one machine: namespaces with a libvirtd each, joined by a switch in a namespace of its own.

Used by `pileus up` and by the end-to-end tests. Needs root. Everything is named with the sandbox's prefix, so that
`sweep(prefix)` finds what a crashed run left behind.
"""

from pileus.sandbox.commands import SandboxError
from pileus.sandbox.host import HostProcess, SandboxHost
from pileus.sandbox.requirements import check, missing
from pileus.sandbox.sweep import leftovers, sweep
from pileus.sandbox.switch import SubnetTaken, Switch, create_somewhere, free_subnet

__all__ = [
    "HostProcess",
    "SandboxError",
    "SandboxHost",
    "SubnetTaken",
    "Switch",
    "check",
    "create_somewhere",
    "free_subnet",
    "leftovers",
    "missing",
    "sweep",
]
