"""What tests of networks share: Direct networks through the API, and keys of what it names."""

from sqlalchemy import select

from pileus.server.db.seed import DIRECT_NETWORK_OFFERING
from pileus.server.db.tables.network import network
from pileus.server.db.tables.place import zone
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client


def offering(admin: Client, name: str) -> str:
    return str(next(o["id"] for o in admin.call("listNetworkOfferings")["networkoffering"] if o["name"] == name))


def direct(admin: Client, world: World, cloud: Cloud, **wishes: object) -> dict[str, object]:
    return admin.one(
        "createNetwork",
        **{
            "name": "lan",
            "displaytext": "A direct network",
            "networkofferingid": offering(admin, DIRECT_NETWORK_OFFERING),
            "zoneid": world.uuid(zone, cloud.zone),
            "gateway": "192.0.2.1",
            "netmask": "255.255.255.0",
            "startip": "192.0.2.10",
            "endip": "192.0.2.12",
            "vlan": "77",
            **wishes,
        },
    )


def key_of(world: World, uuid: object) -> int:
    with world.reading() as tx:
        return int(tx.scalar(select(network.c.id).where(network.c.uuid == uuid)))
