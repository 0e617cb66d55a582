"""Values that commands accept for their parameters, so that a test reaches what lies behind the parser.

By command and parameter where it matters, else by the parameter's name, else by its type.
"""

from collections.abc import Mapping

from pileus.server.api.parse import Field
from pileus.server.domain.ids import Entity

_BY_COMMAND: Mapping[tuple[str, str], str] = {
    ("createNetwork", "gateway"): "10.9.1.1",
    ("createNetwork", "startip"): "10.9.1.10",
    ("createNetwork", "endip"): "10.9.1.20",
    ("createVlanIpRange", "gateway"): "203.0.113.1",
    ("createVlanIpRange", "startip"): "203.0.113.10",
    ("createVlanIpRange", "endip"): "203.0.113.20",
    ("createVlanIpRange", "vlan"): "untagged",
    ("createStoragePool", "url"): "nfs://192.0.2.9/export/primary",
    ("addSecondaryStorage", "url"): "nfs://192.0.2.9/export/secondary",
    ("addHost", "url"): "http://host.example",
    ("registerTemplate", "url"): "http://images.example/plausible.qcow2",
    ("updateConfiguration", "name"): "expunge.delay",
    ("updateConfiguration", "value"): "600",
    ("updateTemplatePermissions", "op"): "add",
    ("updatePod", "gateway"): "192.168.10.1",
}

_BY_NAME: Mapping[str, str] = {
    "accounttype": "0",
    "allocationstate": "Enabled",
    "cidrlist": "0.0.0.0/0",
    "clustertype": "CloudManaged",
    "disksize": "1",
    "dns1": "192.0.2.53",
    "dns2": "192.0.2.54",
    "email": "someone@example.org",
    "endip": "192.168.20.200",
    "enddate": "2030-01-01",
    "format": "QCOW2",
    "gateway": "192.168.20.1",
    "guestcidraddress": "10.3.0.0/24",
    "hypervisor": "Simulator",
    "internaldns1": "192.0.2.53",
    "internaldns2": "192.0.2.54",
    "ipaddress": "10.1.1.77",
    "level": "1",
    "max": "5",
    "netmask": "255.255.255.0",
    "networkdomain": "plausible.example",
    "networktype": "Advanced",
    "page": "1",
    "pagesize": "20",
    "password": "a plausible password",
    "privateport": "80",
    "protocol": "tcp",
    "publicport": "8080",
    "resourcetype": "0",
    "startdate": "2011-01-01",
    "startip": "192.168.20.100",
    "storagetype": "shared",
    "systemvmtype": "domainrouter",
    "templatefilter": "executable",
    "timezone": "UTC",
    "url": "http://images.example/plausible.qcow2",
    "username": "plausible",
    "vlan": "1200-1209",
}

_BY_TYPE: Mapping[str, str] = {
    "boolean": "true",
    "date": "2020-02-02",
    "float": "1.5",
    "integer": "1",
    "list": "plausible",
    "map": "plausible",
}


def value(command: str, field: Field, things: Mapping[type[Entity], str]) -> str:
    """A value for a parameter; ids name one of `things`."""
    if field.entity is not None:
        return things[field.entity]
    known = _BY_COMMAND.get((command, field.wire)) or _BY_NAME.get(field.wire)
    return known or _BY_TYPE.get(field.wire_type, "plausible")


def name(field: Field) -> str:
    """How the parameter is written; a map by one of its entries."""
    return f"{field.wire}[0].key" if field.is_map else field.wire
