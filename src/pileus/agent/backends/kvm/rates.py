"""Network rates of guests and routers by our own traffic control: libvirt's `<bandwidth>` needs queueing disciplines
that not every kernel has, and its guests then do not start.

A tap limits what goes to the guest. What comes from it is turned round through an `ifb` device, which limits that. Of a
router's pair of devices both are ours: each end limits what it sends.
"""

from pathlib import Path

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import programs
from pileus.agent.backends.kvm.domain_xml import tap_name
from pileus.wire.operations import Reason, VmSpec

BURST_BYTES = 32 * 1024
LATENCY_MILLISECONDS = 100

_NET = Path("/sys/class/net")


def mirror_name(tap: str) -> str:
    """The `ifb` device of a tap."""
    return f"f{tap.removeprefix('t')}"


async def apply(vm: VmSpec) -> None:
    """Limit the NICs of a running guest as its spec says. Raises Refused (FAILED) when the kernel cannot."""
    try:
        for nic in vm.nics:
            if nic.rate_mbps:
                await limit_tap(tap_name(vm.name, nic.device_id), nic.rate_mbps)
    except programs.Failed as error:
        raise Refused(Reason.FAILED, f"the network rate of {vm.name} cannot be set: {error}") from error


async def clear(vm_name: str) -> None:
    """Remove the devices that limited a guest which is gone; its taps went with it."""
    beginning = mirror_name(tap_name(vm_name, 0))[:-1]
    for device in _mirrors(beginning):
        await programs.attempt(["ip", "link", "del", device])


async def limit(device: str, rate_mbps: int, *, namespace: str = "") -> None:
    """Limit what a device sends, in a network namespace if one is named. Raises programs.Failed."""
    where = ["-n", namespace] if namespace else []
    await programs.run(["tc", *where, "qdisc", "replace", "dev", device, "root", *_bucket(rate_mbps)])


async def limit_tap(tap: str, rate_mbps: int) -> None:
    """Limit a tap in both directions; one that is limited already gets the new rate. Raises programs.Failed."""
    mirror = mirror_name(tap)
    if not (_NET / mirror).exists():
        await programs.run(["ip", "link", "add", mirror, "type", "ifb"])
    await programs.run(["ip", "link", "set", mirror, "up"])
    for device in (tap, mirror):
        await limit(device, rate_mbps)
    # Deleting first makes a repeated call end in one filter; there may be nothing to delete.
    await programs.attempt(["tc", "qdisc", "del", "dev", tap, "ingress"])
    await programs.run(["tc", "qdisc", "add", "dev", tap, "ingress"])
    everything = ["protocol", "all", "u32", "match", "u32", "0", "0"]
    turn = ["action", "mirred", "egress", "redirect", "dev", mirror]
    await programs.run(["tc", "filter", "add", "dev", tap, "parent", "ffff:", *everything, *turn])


def _bucket(rate_mbps: int) -> list[str]:
    # A bucket must hold what the rate delivers between two ticks, or fast links never reach their rate.
    burst = max(BURST_BYTES, rate_mbps * 1_000_000 // 8 // 100)
    return ["tbf", "rate", f"{rate_mbps}mbit", "burst", str(burst), "latency", f"{LATENCY_MILLISECONDS}ms"]


def _mirrors(beginning: str) -> list[str]:
    return sorted(path.name for path in _NET.iterdir() if path.name.removeprefix(beginning).isdigit()
                  and path.name.startswith(beginning))  # fmt: skip
