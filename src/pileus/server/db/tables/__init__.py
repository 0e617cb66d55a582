"""All tables, one module per noun. Importing this package fills `metadata`."""

from pileus.server.db.tables import (
    account,
    control,
    event,
    host,
    job,
    network,
    offering,
    place,
    row_change,
    rule,
    setting,
    ssh_key,
    template,
    vm,
    volume,
    vpn,
    zone_detail,
)
from pileus.server.db.tables.column import metadata

__all__ = [
    "account",
    "control",
    "event",
    "host",
    "job",
    "metadata",
    "network",
    "offering",
    "place",
    "row_change",
    "rule",
    "setting",
    "ssh_key",
    "template",
    "vm",
    "volume",
    "vpn",
    "zone_detail",
]
