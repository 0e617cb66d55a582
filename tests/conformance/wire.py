"""What goes over a wire: frames with a text of ours, sent and heard inside namespaces by packet sockets.

`python wire.py hear DEVICE` says "ready", then one JSON object per frame of ours until its input ends: its text, and
the VLAN or VXLAN tag it bore on this device. `python wire.py send DEVICE TEXT` broadcasts one.
"""

import json
import select
import socket
import struct
import sys
from collections.abc import Iterator

ETHERTYPE = 0x88B5
"""For local experiments (IEEE 802)."""

_EVERYTHING = 3
_SOL_PACKET, _AUXDATA, _TAGGED = 263, 8, 1 << 4
_VXLAN_HEADERS = 14 + 20 + 8 + 8


def send(device: str, text: str) -> None:
    """Broadcast one frame."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((device, 0))
        header = b"\xff" * 6 + bytes.fromhex("020000000001") + struct.pack(">H", ETHERTYPE)
        out.send(header + text.encode().ljust(50, b"\0"))


def hear(device: str) -> Iterator[tuple[str, int]]:
    """Text and tag of every frame of ours that comes in on the device, until nobody listens any more."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING)) as ear:
        ear.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        ear.bind((device, _EVERYTHING))
        print(json.dumps("ready"), flush=True)
        while True:
            ready, _, _ = select.select([ear, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            frame, ancillary, _, _ = ear.recvmsg(2048, 256)
            tag = 0
            for level, kind, data in ancillary:
                if (level, kind) == (_SOL_PACKET, _AUXDATA):
                    status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                    tag = tci & 0xFFF if status & _TAGGED else 0
            yield from _ours(frame, tag)


def _ours(frame: bytes, tag: int) -> Iterator[tuple[str, int]]:
    kind = int.from_bytes(frame[12:14], "big")
    if kind == 0x8100:
        yield from _ours(frame[:12] + frame[16:], int.from_bytes(frame[14:16], "big") & 0xFFF)
    elif kind == 0x0800 and frame[23] == socket.IPPROTO_UDP and int.from_bytes(frame[36:38], "big") == 4789:
        yield from _ours(frame[_VXLAN_HEADERS:], int.from_bytes(frame[46:49], "big"))
    elif kind == ETHERTYPE:
        yield frame[14:].rstrip(b"\0").decode(), tag


def main() -> None:
    """See the module's docstring."""
    if sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3])
        return
    for text, tag in hear(sys.argv[2]):
        print(json.dumps({"text": text, "tag": tag}), flush=True)


if __name__ == "__main__":
    main()
