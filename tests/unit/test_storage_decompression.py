"""Decompression never makes more than asked for, and knows when data is cut short or damaged."""

import bz2
import gzip
from collections.abc import Callable

import pytest

from pileus.appliance.storage.decompression import PIECE_BYTES, stream_for
from pileus.wire.operations import Reason, Refused

CONTENT = bytes(range(256)) * 20000
PACK = [("gz", gzip.compress), ("bz2", bz2.compress)]


def unpack(url: str, data: bytes, step: int) -> bytes:
    stream = stream_for(url)
    pieces = [piece for at in range(0, len(data), step) for piece in stream.feed(data[at : at + step])]
    stream.finish()
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces if url.endswith(("gz", "bz2")))
    return b"".join(pieces)


@pytest.mark.parametrize(("end", "pack"), PACK)
@pytest.mark.parametrize("step", [777, 1 << 20])
def test_content_comes_out_whole_however_it_arrives(end: str, pack: Callable[[bytes], bytes], step: int) -> None:
    assert unpack(f"http://a/b.{end}", pack(CONTENT), step) == CONTENT


@pytest.mark.parametrize(("end", "pack"), PACK)
def test_several_members_are_one_content(end: str, pack: Callable[[bytes], bytes]) -> None:
    assert unpack(f"http://a/b.{end}?x=1", pack(b"one") + pack(b"two"), 5) == b"onetwo"


def test_zeros_behind_gzip_data_are_padding() -> None:
    assert unpack("http://a/b.gz", gzip.compress(b"one") + bytes(1000), 64) == b"one"


def test_other_urls_are_taken_as_they_are() -> None:
    assert unpack("http://a/b.qcow2", gzip.compress(b"one"), 64) == gzip.compress(b"one")


@pytest.mark.parametrize(("end", "pack"), PACK)
@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_data_cut_short_is_refused(end: str, pack: Callable[[bytes], bytes], cut: int) -> None:
    with pytest.raises(Refused) as caught:
        unpack(f"http://a/b.{end}", pack(CONTENT)[:cut], 4096)
    assert caught.value.reason is Reason.REJECTED


@pytest.mark.parametrize(("end", "pack"), PACK)
def test_damaged_data_is_refused(end: str, pack: Callable[[bytes], bytes]) -> None:
    data = bytearray(pack(CONTENT))
    data[len(data) // 2] ^= 0xFF
    data[-3] ^= 0xFF
    with pytest.raises(Refused) as caught:
        unpack(f"http://a/b.{end}", bytes(data), 4096)
    assert caught.value.reason is Reason.REJECTED


@pytest.mark.parametrize(("end", "pack"), PACK)
def test_a_bomb_is_unpacked_only_as_far_as_it_is_asked_for(end: str, pack: Callable[[bytes], bytes]) -> None:
    stream = stream_for(f"http://a/b.{end}")
    first = next(iter(stream.feed(pack(bytes(200 << 20)))))
    assert len(first) <= PIECE_BYTES
