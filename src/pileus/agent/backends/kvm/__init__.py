"""KVM hosts by libvirt: qcow2 clones, VXLAN networks as bridges made on use, routers in namespaces or machines."""

from pathlib import Path

from pileus.agent.backend import Backend, HostSettings
from pileus.agent.backends.kvm import machine
from pileus.agent.backends.kvm.backend import KvmBackend
from pileus.agent.backends.kvm.domains import Domains
from pileus.agent.backends.kvm.options import KvmOptions, parse
from pileus.agent.backends.kvm.router_image import RouterImages
from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.agent.backends.kvm.router_vm import VmRouters
from pileus.agent.backends.kvm.routers import Routers

__all__ = ["KvmBackend", "KvmOptions", "create"]

ROUTERS, MACHINES, IMAGES = "routers", "router-machines", "system-templates"
"""Directories below the host's: the state of routers in namespaces and in machines, and what the latter boot from."""


def create(settings: HostSettings) -> Backend:
    """The KVM host this process runs on. Options: the fields of `KvmOptions`.

    Raises ValueError for an option of another name or kind.
    """
    options = parse(settings.options)
    state = Path(settings.state_dir)
    domains = Domains(options.libvirt_uri)
    machines = VmRouters(
        state / MACHINES,
        call=domains.call,
        images=RouterImages(
            state / IMAGES, credentials=settings.credentials, max_image_bytes=options.max_image_gib << 30
        ),
        accelerated=lambda: machine.can_accelerate(machine.read_cpuinfo()),
        disk_cache=options.disk_cache,
    )
    return KvmBackend(settings, options, domains, Routers(NamespaceRouters(state / ROUTERS), machines))
