"""Guest networks: states, kinds and address arithmetic. Guide: "Guest Virtual Networks"."""

from enum import StrEnum

from pileus.server.domain.transitions import Transitions


class NetworkState(StrEnum):
    """Wire states of a network."""

    ALLOCATED = "Allocated"
    SETUP = "Setup"
    IMPLEMENTING = "Implementing"
    IMPLEMENTED = "Implemented"
    SHUTDOWN = "Shutdown"
    DESTROY = "Destroy"


NETWORK = Transitions[NetworkState](
    {
        NetworkState.ALLOCATED: (NetworkState.IMPLEMENTING, NetworkState.DESTROY),
        NetworkState.SETUP: (NetworkState.IMPLEMENTING, NetworkState.DESTROY),
        NetworkState.IMPLEMENTING: (NetworkState.IMPLEMENTED, NetworkState.SHUTDOWN),
        NetworkState.IMPLEMENTED: (NetworkState.SHUTDOWN, NetworkState.DESTROY),
        NetworkState.SHUTDOWN: (
            NetworkState.ALLOCATED,
            NetworkState.SETUP,
            NetworkState.IMPLEMENTED,
            NetworkState.DESTROY,
        ),
        NetworkState.DESTROY: (),
    }
)


class NetworkType(StrEnum):
    """The guide's networking of a zone."""

    BASIC = "Basic"
    ADVANCED = "Advanced"


class GuestIpType(StrEnum):
    """How guests of a network get to the outside."""

    VIRTUAL = "Virtual"
    DIRECT = "Direct"


class Availability(StrEnum):
    """Whether users must, may or cannot choose a network of the offering."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"
    UNAVAILABLE = "Unavailable"


class IpState(StrEnum):
    """Wire states of a public address."""

    FREE = "Free"
    ALLOCATING = "Allocating"
    ALLOCATED = "Allocated"
    RELEASING = "Releasing"


IP = Transitions[IpState](
    {
        IpState.FREE: (IpState.ALLOCATING, IpState.ALLOCATED),
        IpState.ALLOCATING: (IpState.ALLOCATED, IpState.FREE),
        IpState.ALLOCATED: (IpState.RELEASING, IpState.FREE),
        IpState.RELEASING: (IpState.FREE, IpState.ALLOCATED),
    }
)


class RuleState(StrEnum):
    """Wire states of everything a router does at a public address."""

    ADD = "Add"
    ACTIVE = "Active"
    REVOKE = "Revoke"


RULE = Transitions[RuleState](
    {
        RuleState.ADD: (RuleState.ACTIVE, RuleState.REVOKE),
        RuleState.ACTIVE: (RuleState.REVOKE,),
        RuleState.REVOKE: (RuleState.ACTIVE,),
    }
)


class Protocol(StrEnum):
    """What rules at public addresses tell apart."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Algorithm(StrEnum):
    """How a load balancer chooses a guest for a connection. Guide: "Load Balancing"."""

    ROUND_ROBIN = "roundrobin"
    LEAST_CONNECTIONS = "leastconn"
    SOURCE = "source"
