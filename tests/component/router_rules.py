"""A running network with a guest and a second address, for tests of rules at public addresses."""

from dataclasses import dataclass
from typing import Any

from pileus.server.db.tables.network import public_ip
from pileus.server.db.tables.vm import vm
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused
from pileus.testing.networks import guest, router_of, running_network
from pileus.wire.router import RouterConfig


@dataclass(frozen=True)
class Site:
    """An account's network; `source` is its source NAT address, `extra` another one."""

    world: World
    cloud: Cloud
    user: Caller
    client: Client
    network: int
    web: str
    source: str
    extra: str
    extra_ip: str

    @property
    def config(self) -> RouterConfig:
        """What the router runs."""
        name = router_of(self.world, self.network).name
        found = next(found.config for _, found in self.world.hosts.world.guests() if found.name == name)
        assert found is not None
        return found

    def guest(self, name: str) -> str:
        """Another guest on the network."""
        return self.world.uuid(vm, guest(self.world, self.user, self.cloud, self.network, name=name))

    def done(self, command: str, /, **parameters: Any) -> Any:
        """Call an asynchronous command and return its result, which must be good."""
        started = self.client.call(command, **parameters)
        self.world.settle()
        ended = self.client.call("queryAsyncJobResult", jobid=started["jobid"])
        assert ended["jobstatus"] == 1, ended
        (inside,) = ended["jobresult"].values()
        if "id" in started:
            assert inside["id"] == started["id"]
        return inside

    def code(self, command: str, /, **parameters: Any) -> int:
        """The code a call is refused with."""
        try:
            told = self.client.call(command, **parameters)
        except Refused as refused:
            return refused.code
        raise AssertionError(f"not refused: {told}")


def settled(world: World, cloud: Cloud | None = None) -> Site:
    """Everything runs, in the cloud given or one of its own."""
    cloud, user = cloud or world.cloud(), world.account()
    network = running_network(world, user, cloud.zone)
    web = world.uuid(vm, guest(world, user, cloud, network))
    client = Client(world.db, user)
    started = client.call("associateIpAddress", zoneid=cloud.zone)
    world.result(started["jobid"])
    (shown,) = client.call("listPublicIpAddresses", id=started["id"])["publicipaddress"]
    return Site(world, cloud, user, client, network, web, world.uuid(public_ip, 1), started["id"], shown["ipaddress"])
