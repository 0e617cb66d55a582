"""The physical switch: a bridge in a network namespace of its own, and the root namespace's way to it.

The root namespace holds the last usable address of the subnet and is the gateway of the public network.
"""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pileus.sandbox import ledger
from pileus.sandbox.commands import SandboxError, attempt, call, ip
from pileus.sandbox.names import check_prefix, nat_table, root_device, switch_netns

DEFAULT_SUBNET = IPv4Network("172.30.0.0/24")
JUMBO_MTU = 9000
"""Room for the headers of VXLAN, so that guests keep 1500."""

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class SubnetTaken(SandboxError):
    """Another sandbox has the subnet, or a part of it."""


class Switch:
    """A layer 2 segment named by its prefix. `subnet` carries both management and public traffic."""

    def __init__(self, prefix: str, subnet: IPv4Network = DEFAULT_SUBNET) -> None:
        self.prefix = check_prefix(prefix)
        self.subnet = subnet
        self.netns = switch_netns(prefix)

    @property
    def gateway(self) -> IPv4Address:
        """The root namespace's address on the switch, when connected."""
        return self.subnet.broadcast_address - 1

    def address(self, number: int) -> IPv4Address:
        """The address of host `number`, counted from 1."""
        if not 0 < number < self.subnet.num_addresses - 2:
            raise SandboxError(f"the subnet {self.subnet} has no address for host number {number}")
        return self.subnet.network_address + number

    def create(self) -> None:
        """Make the switch; SandboxError when the prefix is taken, SubnetTaken when the subnet is."""
        with ledger.locked():
            for other in ledger.prefixes():
                record = ledger.read_switch(other)
                if other != self.prefix and record and IPv4Network(record.subnet).overlaps(self.subnet):
                    raise SubnetTaken(f"the subnet {self.subnet} overlaps {record.subnet} of the sandbox {other}")
            ledger.claim(self.prefix)
            ledger.write_switch(self.prefix, ledger.SwitchRecord(subnet=str(self.subnet)))
        ip([f"netns add {self.netns}"])
        ip(
            [
                "link set lo up",
                # Snooping would need a querier, and the multicast groups of VXLAN would fall silent without one.
                "link add br0 type bridge mcast_snooping 0",
                f"link set br0 mtu {JUMBO_MTU} up",
            ],
            netns=self.netns,
        )

    def connect_root(self, *, nat: bool = False) -> None:
        """Join the root namespace to the switch, and let the subnet out to the world through it when `nat`."""
        device = root_device(self.prefix)
        if call(["ip", "-4", "route", "show", "root", str(self.subnet)]).strip():
            raise SandboxError(f"the machine has a route into {self.subnet} already: choose another subnet")
        self._note(root=True, nat=False)
        ip(
            [
                f"link add {device} mtu {JUMBO_MTU} type veth peer name root mtu {JUMBO_MTU} netns {self.netns}",
                f"addr add {self.gateway}/{self.subnet.prefixlen} dev {device}",
                f"link set {device} up",
            ]
        )
        ip(["link set root master br0 up"], netns=self.netns)
        if nat:
            self._note(root=True, nat=True)
            self._translate()

    def port_down(self, number: int) -> None:
        """Pull the cable of host `number`."""
        ip([f"link set h{number} down"], netns=self.netns)

    def port_up(self, number: int) -> None:
        """Put the cable of host `number` back."""
        ip([f"link set h{number} up"], netns=self.netns)

    def destroy(self) -> None:
        """Remove the switch and the root namespace's way to it; its hosts must be stopped. Fine when it is gone."""
        record = ledger.read_switch(self.prefix)
        if record is None:
            return
        if names := ledger.hosts(self.prefix):
            raise SandboxError(f"hosts are still on the switch {self.prefix}: {', '.join(names)}")
        dismantle(self.prefix)
        ledger.release(self.prefix)

    def _note(self, *, root: bool, nat: bool) -> None:
        ledger.write_switch(self.prefix, ledger.SwitchRecord(subnet=str(self.subnet), root=root, nat=nat))

    def _translate(self) -> None:
        device = root_device(self.prefix)
        rules = f"""
table ip {nat_table(self.prefix)} {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {self.subnet} oifname != "{device}" masquerade
    }}
}}
"""
        call(["nft", "-f", "-"], stdin=rules)
        with ledger.locked():
            if ledger.read_forwarding() is None:
                ledger.write_forwarding(_FORWARDING.read_text().strip())
            _FORWARDING.write_text("1")


def create_somewhere(prefix: str) -> Switch:
    """Make a switch on a subnet that is free; several processes may ask at once."""
    while True:
        switch = Switch(prefix, free_subnet())
        try:
            switch.create()
        except SubnetTaken:
            continue
        return switch


def dismantle(prefix: str) -> None:
    """Remove what a switch made on this machine, as far as it is there; namespaces go with all that is in them."""
    attempt(["nft", "delete", "table", "ip", nat_table(prefix)])
    device = root_device(prefix)
    if Path(f"/sys/class/net/{device}").exists():
        call(["ip", "link", "del", device])
    netns = switch_netns(prefix)
    if Path(f"/run/netns/{netns}").exists():
        call(["ip", "netns", "del", netns])
    _restore_forwarding(prefix)


def _restore_forwarding(leaving: str) -> None:
    """Give IP forwarding back as it was found, when the last sandbox that needed it leaves."""
    with ledger.locked():
        before = ledger.read_forwarding()
        if before is None:
            return
        others = (ledger.read_switch(name) for name in ledger.prefixes() if name != leaving)
        if any(record is not None and record.nat for record in others):
            return
        _FORWARDING.write_text(before)
        ledger.write_forwarding(None)


def free_subnet() -> IPv4Network:
    """A /24 below 172.30.0.0/16 that no route of this machine and no sandbox touches; asking reserves nothing."""
    taken = []
    for line in call(["ip", "-4", "route", "show", "table", "all"]).splitlines():
        words = line.split()
        for word in words[:2]:
            if word[:1].isdigit():
                taken.append(IPv4Network(word, strict=False))
                break
    for prefix in ledger.prefixes():
        if record := ledger.read_switch(prefix):
            taken.append(IPv4Network(record.subnet))
    for subnet in IPv4Network("172.30.0.0/16").subnets(new_prefix=24):
        if not any(other.prefixlen and other.overlaps(subnet) for other in taken):
            return subnet
    raise SandboxError("no free /24 is left below 172.30.0.0/16")
