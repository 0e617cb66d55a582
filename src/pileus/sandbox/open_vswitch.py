"""Open vSwitch inside a host: a bridge that tags frames, for kernels that cannot. Its trunk is the host's second cable.

It switches in user space (`datapath_type=netdev`), so it needs no kernel module.
"""

import os
from pathlib import Path

from pileus.sandbox.commands import call

BRIDGE = "vlan0"
TRUNK = "eth1"

_RUN = Path("/run/openvswitch")
_SOCKET = _RUN / "db.sock"
_DATABASE = _RUN / "conf.db"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_QUIET = ("-vsyslog:off", "-vconsole:warn")


def prepare() -> None:
    """An empty database, before the daemons start: a host forgets its ports when it is powered off."""
    os.makedirs(_RUN, exist_ok=True)
    if not _DATABASE.exists():
        call(["ovsdb-tool", "create", str(_DATABASE), _SCHEMA])


def daemons() -> list[list[str]]:
    """What must run, in the order of starting."""
    return [
        ["ovsdb-server", str(_DATABASE), f"--remote=punix:{_SOCKET}", *_QUIET],
        ["ovs-vswitchd", f"unix:{_SOCKET}", *_QUIET],
    ]


def lay() -> None:
    """The bridge with its trunk; waits until the daemons have it."""
    control = ["ovs-vsctl", "--timeout=20", "--retry"]
    call([*control, "--no-wait", "init"])
    bridge = ["--may-exist", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"]
    call([*control, *bridge, "--", "--may-exist", "add-port", BRIDGE, TRUNK])
