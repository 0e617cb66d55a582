"""HTTP sockets."""

import socket
from typing import Any

import pytest

from pileus.server.doors import Door


async def nobody(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("nothing is served here")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_packets_of_an_answer_do_not_wait_for_each_other(address: str) -> None:
    door = Door(nobody, address, 0)
    try:
        with socket.create_connection((address, door.port)):
            accepted, _ = door._socket.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    finally:
        door.close()
