"""KVM hosts by libvirt: qcow2 clones, VXLAN networks as bridges made on use, routers in network namespaces."""

from pathlib import Path

from pileus.agent.backend import Backend, HostSettings
from pileus.agent.backends.kvm.backend import KvmBackend
from pileus.agent.backends.kvm.options import KvmOptions, parse
from pileus.agent.backends.kvm.router_namespace import NamespaceRouters

__all__ = ["KvmBackend", "KvmOptions", "create"]

ROUTERS = "routers"
"""Directory of the routers' state, below the host's state directory."""


def create(settings: HostSettings) -> Backend:
    """The KVM host this process runs on. Options: the fields of `KvmOptions`.

    Raises ValueError for an option of another name or kind.
    """
    return KvmBackend(settings, parse(settings.options), NamespaceRouters(Path(settings.state_dir) / ROUTERS))
