"""Access ports of an Open vSwitch bridge, which adds and removes the VLAN tag. The bridge and its trunk are the
administrator's; ours are the ports called `vl<id>`."""

import re
from collections.abc import Callable

import structlog

from pileus.agent.backends.kvm import programs

TIMEOUT_SECONDS = 20
"""How long the switch may take to do what its database says; a dead one would let `ovs-vsctl` wait for ever."""

log = structlog.get_logger()

_OURS = re.compile(r"vl[0-9]{1,4}")


async def add_port(switch: str, port: str, *, tag: int, mtu: int) -> None:
    """A device of the host on this VLAN; nothing when it is there. Raises programs.Failed when the switch cannot."""
    kind = ["--", "set", "interface", port, "type=internal", f"mtu_request={mtu}"]
    await programs.run(_control("--may-exist", "add-port", switch, port, f"tag={tag}", *kind))


async def remove_port(switch: str, port: str) -> None:
    """Make sure that the switch has no such port. Raises programs.Failed when the switch cannot be asked."""
    await programs.run(_control("--if-exists", "del-port", switch, port))


async def forget(switch: str, is_stale: Callable[[str], bool]) -> None:
    """Remove those of our ports that are stale: the switch remembers them over a crash of the host.

    A switch that is not there keeps nobody from the other networks of the host: it is told in the log only.
    """
    try:
        for port in (await programs.run(_control("list-ports", switch))).split():
            if _OURS.fullmatch(port) and is_stale(port):
                await remove_port(switch, port)
    except programs.Failed as error:
        log.warning("the switch of VLANs cannot be asked", switch=switch, error=str(error))


def _control(*words: str) -> list[str]:
    return ["ovs-vsctl", f"--timeout={TIMEOUT_SECONDS}", *words]
