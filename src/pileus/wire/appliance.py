"""What is said on an appliance's control channel: JSON, one message a line, one reply to each message, in order."""

import msgspec
from msgspec import Struct

from pileus.wire.operations import Refusal, RouterFacts
from pileus.wire.router import RouterConfig

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest message either side takes."""
CONTROL_PORT = "pileus.control"
"""Name of the virtio-serial port of a system VM. There each line is a mark, a space and the message or reply."""
MAX_MARK_BYTES = 64


class ToRouter(Struct, frozen=True, tag_field="m"):
    """Base of what is asked of a router."""


class Configure(ToRouter, frozen=True, tag="configure"):
    """Apply the whole desired config. Replied with facts, or with a refusal and nothing changed."""

    config: RouterConfig


class Status(ToRouter, frozen=True, tag="status"):
    """Replied with counters, and facts when a config is applied. Without `traffic` nothing is counted by address and
    rule, which costs nothing then: enough for who only asks whether anybody answers."""

    traffic: bool = True


class AddressTraffic(Struct, frozen=True):
    """Bytes from and to the outside by public `ip`, whatever rule they used."""

    ip: str
    received_bytes: int
    sent_bytes: int


class RuleTraffic(Struct, frozen=True):
    """Bytes of connections that came in by the rule with this id: a firewall rule, a forward or a balancer."""

    id: str
    received_bytes: int
    sent_bytes: int


class RouterCounters(Struct, frozen=True):
    """Since the appliance started: bytes on the public side, and what the services did."""

    uptime_seconds: float
    public_received_bytes: int
    public_sent_bytes: int
    guest_received_bytes: int
    guest_sent_bytes: int
    pages_served: int
    passwords_served: int
    dnsmasq_starts: int
    addresses: tuple[AddressTraffic, ...] = ()
    rules: tuple[RuleTraffic, ...] = ()


class RouterReply(Struct, frozen=True):
    """A router's answer: `refusal` says no, else it did what was asked."""

    facts: RouterFacts | None = None
    counters: RouterCounters | None = None
    refusal: Refusal | None = None


AnyToRouter = Configure | Status

encode = msgspec.json.Encoder().encode
decode_to_router = msgspec.json.Decoder(AnyToRouter).decode
decode_reply = msgspec.json.Decoder(RouterReply).decode
