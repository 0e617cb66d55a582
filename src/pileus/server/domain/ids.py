"""Typed ids: `Id[Zone]` is the integer key of a zone. Outside the database every entity is known by its UUID."""

from typing import Generic, TypeVar


class Entity:
    """A kind of thing that an id can name. Never instantiated."""


class Domain(Entity): ...


class Account(Entity): ...


class User(Entity): ...


class Zone(Entity): ...


class Pod(Entity): ...


class Cluster(Entity): ...


class Host(Entity): ...


class Fleet(Entity): ...


class StoragePool(Entity): ...


class VlanIpRange(Entity): ...


class PublicIp(Entity): ...


class ServiceOffering(Entity): ...


class DiskOffering(Entity): ...


class NetworkOffering(Entity): ...


class Network(Entity): ...


class Nic(Entity): ...


class PortForwardingRule(Entity): ...


class FirewallRule(Entity): ...


class IpForwardingRule(Entity): ...


class LoadBalancerRule(Entity): ...


class RemoteAccessVpn(Entity): ...


class VpnUser(Entity): ...


class Template(Entity): ...


class OsType(Entity): ...


class OsCategory(Entity): ...


class Volume(Entity): ...


class InstanceGroup(Entity): ...


class SshKeyPair(Entity): ...


class Alert(Entity): ...


class Vm(Entity):
    """A guest of a user."""


class Router(Entity):
    """A virtual router: a row of the same table as guests."""


class Job(Entity): ...


class Event(Entity): ...


K = TypeVar("K", bound=Entity, covariant=True)


class Id(int, Generic[K]):
    """An internal key that names an existing entity of kind K."""
