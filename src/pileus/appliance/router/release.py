"""Ends a DHCP lease in the name of a guest that is gone, so that its address may go to another.

dnsmasq gives a fixed address to nobody while it remembers a lease of it, and these leases never end by
themselves. A DHCPRELEASE (RFC 2131 section 4.4.6) is what a guest would say; saying it here spares a restart.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from pileus.appliance.router.errors import StepFailed

_BOOTP = struct.Struct("!BBBB 4sHH 4s4s4s4s 16s 64s128s 4s")
_MAGIC = b"\x63\x82\x53\x63"
_RELEASE = b"\x35\x01\x07"


@dataclass(frozen=True)
class Held:
    """A line of dnsmasq's lease file; `client_id` as hex with colons, "*" for none."""

    mac: str
    ip: str
    client_id: str


def held(lease_file: str) -> list[Held]:
    """Leases in the text of dnsmasq's lease file: expiry, MAC, address, hostname, client id."""
    lines = (line.split() for line in lease_file.splitlines())
    return [Held(words[1].lower(), words[2], words[4]) for words in lines if len(words) == 5]


def release(lease: Held, *, server: str, device: str) -> None:
    """Say DHCPRELEASE to the DHCP server at `server`, as if it came in through `device`."""
    body = _message(lease, server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            # dnsmasq takes what comes through "lo" for the interface it was sent on; see its IP_PKTINFO.
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
            out.sendto(body, (server, 67))
        except OSError as error:
            raise StepFailed(f"releasing the lease of {lease.ip}: {error.strerror}") from error


def _message(lease: Held, server: str) -> bytes:
    hardware = bytes.fromhex(lease.mac.replace(":", ""))
    nothing = b"\0" * 4
    address = IPv4Address(lease.ip).packed
    head = (1, 1, len(hardware), 0, nothing, 0, 0, address, nothing, nothing, nothing, hardware, b"", b"", _MAGIC)
    options = _RELEASE + b"\x36\x04" + IPv4Address(server).packed
    if lease.client_id != "*":
        client_id = bytes.fromhex(lease.client_id.replace(":", ""))
        options += bytes([61, len(client_id)]) + client_id
    return _BOOTP.pack(*head) + options + b"\xff"
