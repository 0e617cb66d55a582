"""Messages read with the one before in mind are what they are without."""

import msgspec
import pytest

from pileus.appliance.router.reading import Reader
from pileus.wire.appliance import Configure, Status, decode_to_router, encode
from pileus.wire.router import FirewallRule, GuestData, Lease, LoadBalancer, PublicAddress, RouterConfig

RULES = tuple(FirewallRule(f"r{number}", "203.0.113.10", "tcp", number, number) for number in range(1, 50))
FULL = RouterConfig(
    "n",
    7,
    "10.1.1.1",
    24,
    "x",
    leases=(Lease("02:00:00:00:00:05", "10.1.1.5", "web"),),
    guests=(GuestData("10.1.1.5", {"a": "b"}),),
    public=(PublicAddress("203.0.113.10", 24, "203.0.113.1", source_nat=True),),
    firewall=RULES,
    load_balancers=(LoadBalancer("l", "203.0.113.10", 80, 80, "source", ("10.1.1.5",)),),
)


def test_whatever_came_before_a_message_is_read_as_it_is() -> None:
    reader = Reader()
    changed = msgspec.structs.replace(FULL, generation=8, firewall=(*RULES[5:20], RULES[0]), leases=())
    for config in (FULL, changed, FULL, msgspec.structs.replace(FULL, domain="y", vpn=None), changed):
        assert reader.read(encode(Configure(config))) == Configure(config)
        assert reader.read(encode(Status(traffic=False))) == Status(traffic=False)


def test_what_came_before_is_the_same_object() -> None:
    reader = Reader()
    first = reader.read(encode(Configure(FULL)))
    second = reader.read(encode(Configure(msgspec.structs.replace(FULL, firewall=(RULES[1], RULES[0])))))
    assert isinstance(first, Configure)
    assert isinstance(second, Configure)
    assert second.config.firewall[0] is first.config.firewall[1]
    assert second.config.leases is first.config.leases


def test_fields_that_are_left_out_are_what_a_config_has_without_them() -> None:
    config = b'{"network":"n","generation":1,"guest_ip":"10.1.1.1","guest_prefix":24,"domain":"x"}'
    line = b'{"m":"configure","config":' + config + b"}"
    assert Reader().read(line) == decode_to_router(line) == Configure(RouterConfig("n", 1, "10.1.1.1", 24, "x"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b'{"m":"reboot"}',
        b'{"m":"configure"}',
        encode(Configure(FULL)).replace(b'"start":7', b'"start":"7"'),
        encode(Configure(FULL)).replace(b'"firewall":[', b'"firewall":["'),
        encode(Configure(FULL)).replace(b'"firewall":[', b'"firewall":{}, "x":['),
        encode(Configure(FULL)).replace(b'"guest_prefix":24', b'"guest_prefix":[]'),
    ],
)
def test_what_is_wrong_is_said_as_without_a_memory(line: bytes) -> None:
    reader = Reader()
    reader.read(encode(Configure(FULL)))
    with pytest.raises(msgspec.DecodeError) as expected:
        decode_to_router(line)
    with pytest.raises(msgspec.DecodeError) as said:
        reader.read(line)
    assert str(said.value) == str(expected.value)
    assert reader.read(encode(Configure(FULL))) == Configure(FULL)
