"""What the machine must have for a sandbox, and the Debian packages that bring it."""

import os
import shutil

from pileus.sandbox.commands import SandboxError

TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
}
"""Program → package."""

VLAN_TOOLS = {"ovs-vswitchd": "openvswitch-switch", "ethtool": "ethtool"}
"""What hosts with tagged networks need besides."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(*, vlans: bool = False) -> list[str]:
    """The Debian packages whose programs are not there, sorted; `vlans` for hosts with tagged networks."""
    tools = {**TOOLS, **(VLAN_TOOLS if vlans else {})}
    return sorted({package for tool, package in tools.items() if shutil.which(tool, path=SYSTEM_PATH) is None})


def check(*, vlans: bool = False) -> None:
    """Raise SandboxError, naming the remedy, when this machine cannot hold a sandbox."""
    if os.geteuid() != 0:
        raise SandboxError("hosts in namespaces need root: run this as root")
    if packages := missing(vlans=vlans):
        raise SandboxError(f"programs are missing; install them with: apt-get install -y {' '.join(packages)}")
