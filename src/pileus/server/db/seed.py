"""Rows that every cloud has from its first minute: ROOT, the built-in accounts, offerings, operating systems.

Running it again adds what is missing and changes nothing else.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Table, insert, select

from pileus.server.db.dialect import pass_given_keys
from pileus.server.db.seed_os import OS_TYPES
from pileus.server.db.tables.account import account, domain, resource_count, users
from pileus.server.db.tables.column import new_uuid
from pileus.server.db.tables.offering import disk_offering, network_offering, service_offering
from pileus.server.db.tables.setting import setting
from pileus.server.db.tables.template import os_category, os_type
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import (
    ADMIN_ACCOUNT,
    ADMIN_USER,
    ROOT_DOMAIN,
    SYSTEM_ACCOUNT,
    SYSTEM_USER,
    UNLIMITED,
    AccountType,
    Resource,
)

ROUTER_OFFERING = "System Offering For Software Router"
VIRTUAL_NETWORK_OFFERING = "DefaultVirtualizedNetwork"
DIRECT_NETWORK_OFFERING = "DefaultDirectNetwork"
UNTAGGED_NETWORK_OFFERING = "DefaultDirectGuestNetwork"
PUBLIC_NETWORK_OFFERING = "System-Public-Network"

_IDENTIFIER = "cloud.identifier"
_GIB = 1024**3


def seed(tx: Tx) -> None:
    """Add every built-in row that is not there yet."""
    _accounts(tx)
    _operating_systems(tx)
    _network_offerings(tx)
    _offerings(tx)
    _identifier(tx)


def _identifier(tx: Tx) -> None:
    """The cloud's name, by which others tell it from all clouds."""
    if tx.scalar(select(setting.c.name).where(setting.c.name == _IDENTIFIER)) is None:
        tx.execute(insert(setting).values(name=_IDENTIFIER, value=new_uuid(), changed_at=tx.now))


def _ensure(tx: Tx, table: Table, key: tuple[str, ...], rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose `key` no row has yet: one look at the table, however many there are."""
    sought = [table.c[name].in_({row[name] for row in rows}) for name in key]
    known = {tuple(row) for row in tx.execute(select(*(table.c[name] for name in key)).where(*sought))}
    missing = [row for row in rows if tuple(row[name] for name in key) not in known]
    # Rows of one statement give values to the same columns; defaults fill the others.
    for _, alike in groupby(missing, key=sorted):
        tx.execute(insert(table), list(alike))
    if missing and "id" in key:
        pass_given_keys(tx.connection, table)


def _accounts(tx: Tx) -> None:
    born = {"created_at": tx.now}
    _ensure(tx, domain, ("id",), [{"id": ROOT_DOMAIN, "name": "ROOT", "path": "/", "level": 0, **born}])
    accounts = [
        {
            "id": account_id,
            "name": name,
            "type": int(AccountType.ADMIN),
            "domain_id": ROOT_DOMAIN,
            "system": int(account_id == SYSTEM_ACCOUNT),
            **born,
        }
        for account_id, name in ((SYSTEM_ACCOUNT, "system"), (ADMIN_ACCOUNT, "admin"))
    ]
    _ensure(tx, account, ("id",), accounts)
    people = [
        {
            "id": user_id,
            "account_id": account_id,
            "domain_id": ROOT_DOMAIN,
            "username": name,
            "firstname": name.capitalize(),
            "lastname": "User",
            **born,
        }
        for user_id, account_id, name in (
            (SYSTEM_USER, SYSTEM_ACCOUNT, "system"),
            (ADMIN_USER, ADMIN_ACCOUNT, "admin"),
        )
    ]
    _ensure(tx, users, ("id",), people)
    counts = [
        {"owner": owner, "owner_id": owner_id, "resource": int(resource), "used": 0, "maximum": UNLIMITED}
        for owner, owner_id in (("domain", ROOT_DOMAIN), ("account", SYSTEM_ACCOUNT), ("account", ADMIN_ACCOUNT))
        for resource in Resource
    ]
    _ensure(tx, resource_count, ("owner", "owner_id", "resource"), counts)


def _operating_systems(tx: Tx) -> None:
    _ensure(tx, os_category, ("name",), [{"name": category} for category in OS_TYPES])
    ids = {row["name"]: row["id"] for row in tx.all(select(os_category.c.name, os_category.c.id))}
    types = [{"category_id": ids[category], "name": name} for category, names in OS_TYPES.items() for name in names]
    _ensure(tx, os_type, ("name",), types)


def _network_offerings(tx: Tx) -> None:
    guest = "Guest"
    router_services = (
        "dhcp,dns,gateway,source-nat,user-data,password,port-forwarding,firewall,static-nat,load-balancing"
    )
    direct_services = "dhcp,dns,user-data,password"
    rows: tuple[dict[str, Any], ...] = (
        {
            "name": VIRTUAL_NETWORK_OFFERING,
            "display_text": "Virtual network with a virtual router of its own",
            "traffic_type": guest,
            "guest_ip_type": "Virtual",
            "availability": "Required",
            "is_default": 1,
            "services": router_services,
        },
        {
            "name": DIRECT_NETWORK_OFFERING,
            "display_text": "Direct tagged network; the router serves DHCP only",
            "traffic_type": guest,
            "guest_ip_type": "Direct",
            "availability": "Optional",
            "specify_vlan": 1,
            "is_shared": 1,
            "services": direct_services,
        },
        {
            "name": UNTAGGED_NETWORK_OFFERING,
            "display_text": "Direct untagged network of a Basic zone",
            "traffic_type": guest,
            "guest_ip_type": "Direct",
            "availability": "Optional",
            "is_system": 1,
            "is_shared": 1,
            "services": direct_services,
        },
        {
            "name": PUBLIC_NETWORK_OFFERING,
            "display_text": "Public traffic of a zone",
            "traffic_type": "Public",
            "is_system": 1,
        },
    )
    _ensure(tx, network_offering, ("name",), [{**row, "created_at": tx.now} for row in rows])


def _offerings(tx: Tx) -> None:
    services = [
        {
            "name": name,
            "is_default": 1,
            "display_text": text,
            "cpus": cpus,
            "cpu_mhz": mhz,
            "ram_mib": ram_mib,
            "is_system": int(system),
            "system_vm_type": "domainrouter" if system else None,
            "created_at": tx.now,
        }
        for name, text, cpus, mhz, ram_mib, system in (
            ("Small Instance", "Small Instance, 1 x 500 MHz, 512 MB", 1, 500, 512, False),
            ("Medium Instance", "Medium Instance, 1 x 1 GHz, 1 GB", 1, 1000, 1024, False),
            (ROUTER_OFFERING, "Virtual router", 1, 100, 64, True),
        )
    ]
    _ensure(tx, service_offering, ("name", "is_default"), services)
    disks = [
        {
            "name": name,
            "live": 1,
            "display_text": f"{name} Disk, {size_gib} GB" if size_gib else "Disk of a size to be chosen",
            "size_bytes": size_gib * _GIB,
            "customized": int(customized),
            "created_at": tx.now,
        }
        for name, size_gib, customized in (
            ("Small", 5, False),
            ("Medium", 20, False),
            ("Large", 100, False),
            ("Custom", 0, True),
        )
    ]
    _ensure(tx, disk_offering, ("name", "live"), disks)
