"""Asks an address for an echo fifty times a second, and says how long the longest silence was.

`python -m pileus.testing.prober ADDRESS` says "ready" after the first answer; when its input ends, it says the seconds.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import time

EVERY_SECONDS = 0.02


def main() -> None:
    """See the module's docstring."""
    address = sys.argv[1]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as line:
        heard = longest = 0.0
        number, next_at = 0, time.monotonic()
        while True:
            pause = max(0.0, next_at - time.monotonic())
            ready, _, _ = select.select([line, sys.stdin], [], [], pause)
            now = time.monotonic()
            if line in ready and line.recv(2048)[20] == 0:
                if not heard:
                    _say("ready")
                longest, heard = max(longest, now - heard if heard else 0.0), now
            if sys.stdin in ready:
                _say(max(longest, now - heard))
                return
            if now >= next_at:
                next_at = now + EVERY_SECONDS
                number = (number + 1) % 65536
                # When no neighbour answers for the address, sending fails; that is silence too.
                with contextlib.suppress(OSError):
                    line.sendto(echo(number), (address, 0))


def _say(what: str | float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def echo(number: int) -> bytes:
    """An echo request (RFC 792)."""
    body = struct.pack("!HH", 1, number)
    total = 0x0800 + 1 + number
    checksum = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    return struct.pack("!BBH", 8, 0, checksum) + body


if __name__ == "__main__":
    main()
