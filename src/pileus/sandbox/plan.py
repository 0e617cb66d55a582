"""What a host is told when it is powered on, and the files of its own libvirt."""

from dataclasses import dataclass
from pathlib import Path

READY = "ready"
STATE = {
    "etc-libvirt": "/etc/libvirt",
    "var-lib-libvirt": "/var/lib/libvirt",
    "var-log-libvirt": "/var/log/libvirt",
    "var-cache-libvirt": "/var/cache/libvirt",
    "log": "",
}
"""Directories of the host → where they appear inside ("" = nowhere)."""

HOSTS_FILE = "hosts"
"""Appears as /etc/hosts."""


@dataclass(frozen=True)
class HostPlan:
    """What the first process must know. `ready_fd` is where it says READY, or what went wrong; with `vlans` it keeps a
    switch that tags frames."""

    hostname: str
    netns: str
    cgroup: str
    directory: str
    ready_fd: int
    vlans: bool = False


def write_config(directory: Path, hostname: str, host_uuid: str, address: str) -> None:
    """Write libvirt's own files for a host. Its sockets are local ones only: nothing of it listens on the network."""
    # libvirt looks its host's name up at every start of a guest, and a name server may be out of reach.
    (directory / HOSTS_FILE).write_text(f"127.0.0.1 localhost\n::1 localhost\n{address} {hostname}\n")
    etc = directory / "etc-libvirt"
    (etc / "libvirtd.conf").write_text(
        f'host_uuid = "{host_uuid}"\n'
        'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0700"\n'
        "keepalive_interval = 5\nkeepalive_count = 3\n"
        'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n'
    )
    (etc / "virtlogd.conf").write_text('log_outputs = "3:file:/var/log/libvirt/virtlogd.log"\n')
    (etc / "qemu.conf").write_text(
        'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
        'security_driver = "none"\nnamespaces = []\n'
        f'vnc_listen = "{address}"\nmigration_address = "{address}"\nmigration_host = "{address}"\n'
    )
