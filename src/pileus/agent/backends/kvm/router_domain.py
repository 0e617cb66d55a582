"""libvirt's side of a router that is a virtual machine: blocking calls, for libvirt's threads."""

from dataclasses import dataclass
from typing import Any

import libvirt

from pileus.agent.backends.kvm.router_xml import NAMESPACE, channel_path

_ALREADY = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})


@dataclass(frozen=True)
class Found:
    """A domain under a router's name. `ours` is False for one that somebody else made; `channel` "" when it is off."""

    running: bool
    ours: bool
    channel: str


def look(connection: Any, name: str) -> Found | None:
    """What is there under the name."""
    try:
        domain = connection.lookupByName(name)
        ours = _is_ours(domain)
        running = bool(domain.isActive())
        return Found(running, ours, channel_path(domain.XMLDesc(0)) if running and ours else "")
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def define(connection: Any, xml: str) -> None:
    """Make the domain known, or known anew."""
    connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def start(connection: Any, name: str) -> None:
    """Power it on; nothing when it is."""
    try:
        connection.lookupByName(name).create()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def power_off(connection: Any, name: str) -> None:
    """Pull the power; nothing when it is off or not there."""
    _whatever(connection, name, lambda domain: domain.destroy())


def remove(connection: Any, name: str) -> None:
    """Pull the power and forget it. A domain that is not ours is left alone."""
    found = look(connection, name)
    if found is not None and found.ours:
        power_off(connection, name)
        _whatever(connection, name, lambda domain: domain.undefine())


def _whatever(connection: Any, name: str, act: Any) -> None:
    try:
        act(connection.lookupByName(name))
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _ALREADY:
            raise


def _is_ours(domain: Any) -> bool:
    try:
        domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return False
        raise
    return True
