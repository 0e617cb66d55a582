"""Turns a checked config's balancers into haproxy's configuration: pure, no I/O."""

from dataclasses import dataclass

from pileus.wire.router import LoadBalancer, RouterConfig

SOCKET = "admin"
STATES = "states"
NO_STATES = "1\n"
"""A file of servers' states, of this version of haproxy's, without any."""

CHECKS = "check inter 2s fastinter 500ms downinter 2s fall 2 rise 1"
"""Two connections in a row that fail, the second soon after the first, take a member out; one that succeeds, in."""

_ALGORITHMS = {
    "roundrobin": "roundrobin",
    "leastconn": "leastconn",
    # Consistent, so that a member that comes or goes moves few clients, and may come at run time at all.
    "source": "source\n    hash-type consistent",
}

_HEAD = """global
    user nobody
    group nogroup
    nbthread 1
    maxconn {connections}
    mworker-max-reloads 16
    stats socket unix@{socket} mode 600 level admin expose-fd listeners
    server-state-file {states}
defaults
    mode tcp
    timeout connect 3s
    timeout client 1h
    timeout server 1h
    option clitcpka
    option srvtcpka
    option redispatch 1
    retries 3
    load-server-state-from-file global
    default-server {checks} on-marked-down shutdown-sessions
"""


@dataclass(frozen=True)
class Plan:
    """The balancers that have members: one without has nobody to listen for it, and is refused by the kernel.

    `connections` is the most they may have at once, 0 for as many as the router can.
    """

    balancers: tuple[LoadBalancer, ...]
    connections: int = 0

    def shape(self) -> tuple[tuple[object, ...], ...]:
        """Everything but the members: what cannot change without a reload."""
        doors = ((one.id, one.ip, one.port, one.guest_port, one.algorithm) for one in self.balancers)
        return ((self.connections,), *doors)

    def servers(self) -> dict[str, str]:
        """Name and address of each member of each balancer."""
        return {
            f"{backend(one)}/{member}": f"{member}:{one.guest_port}" for one in self.balancers for member in one.members
        }


def plan(config: RouterConfig | None) -> Plan:
    """What haproxy must do for `config`: nothing for None."""
    served = tuple(one for one in config.load_balancers if one.members) if config else ()
    return Plan(served, config.max_connections) if config and served else Plan(())


def backend(balancer: LoadBalancer) -> str:
    """What haproxy calls it."""
    return f"b-{balancer.id}"


def rendered(wanted: Plan, *, connections: int) -> str:
    """The configuration file, for at most so many connections at once, or fewer if the plan says so."""
    most = min(connections, wanted.connections) if wanted.connections > 0 else connections
    text = _HEAD.format(connections=most, socket=SOCKET, states=STATES, checks=CHECKS)
    return text + "".join(map(_section, wanted.balancers))


def _section(balancer: LoadBalancer) -> str:
    name = backend(balancer)
    lines = [
        f"frontend f-{balancer.id}",
        f"    bind {balancer.ip}:{balancer.port}",
        f"    default_backend {name}",
        f"backend {name}",
        f"    balance {_ALGORITHMS[balancer.algorithm]}",
        *(f"    server {member} {member}:{balancer.guest_port}" for member in balancer.members),
    ]
    return "".join(f"{line}\n" for line in lines)
