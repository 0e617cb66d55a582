"""Decompression of a stream piece by piece, so that a small download can never become a big file unseen."""

import bz2
import zlib
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

from pileus.wire.operations import Reason, Refused

PIECE_BYTES = 1 << 20


class Stream(Protocol):
    """Turns what arrives into what is stored."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most `PIECE_BYTES`, made when asked for. Raises Refused (REJECTED) for broken data."""

    def finish(self) -> None:
        """Nothing more arrives. Raises Refused (REJECTED) when the data is cut short."""


def stream_for(url: str) -> Stream:
    """By the end of the URL's path: .gz, .bz2, or as it is."""
    path = urlsplit(url).path.lower()
    if path.endswith(".gz"):
        return _Gzip()
    if path.endswith(".bz2"):
        return _Bzip2()
    return _Plain()


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        if data:
            yield data

    def finish(self) -> None:
        return None


class _Gzip:
    """Members one after the other, as RFC 1952 allows, and zeros behind the last one, as tape tools leave them."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(wbits=31)
            self._begun = True
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise Refused(Reason.REJECTED, "the gzip data is damaged") from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._begun or not self._member.eof:
            raise Refused(Reason.REJECTED, "the gzip data ends too early")


class _Bzip2:
    def __init__(self) -> None:
        self._member = bz2.BZ2Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or not (self._member.needs_input or self._member.eof):
            if self._member.eof:
                self._member = bz2.BZ2Decompressor()
            self._begun = True
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except (OSError, ValueError) as error:
                raise Refused(Reason.REJECTED, "the bzip2 data is damaged") from error
            data = self._member.unused_data if self._member.eof else b""
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._begun or not self._member.eof:
            raise Refused(Reason.REJECTED, "the bzip2 data ends too early")
