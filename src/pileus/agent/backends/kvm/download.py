"""Getting an image from the zone's secondary storage: TLS with our own certificate, hashed while it arrives."""

import asyncio
import hashlib
import ssl
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from pileus.agent.backend import Credentials, Progressed, Refused
from pileus.wire.operations import Reason

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0
"""For connecting and for each wait for more bytes; the whole may take as long as it needs."""
SHARE_PERCENT = 75
"""How far the download alone brings the progress."""


async def download(
    url: str, target: Path, sha256: str, free_bytes: int, credentials: Credentials, progressed: Progressed
) -> None:
    """Write what `url` serves to `target`.

    Raises Refused: REJECTED for another scheme, a wrong checksum or an answer that is no file, UNREACHABLE when the
    server does not answer (properly), MISSING when it has no such file, NO_ROOM when it is bigger than `free_bytes`.
    """
    if urlsplit(url).scheme != "https":
        raise Refused(Reason.REJECTED, "templates come from secondary storage by https only")
    if not sha256:
        raise Refused(Reason.REJECTED, "a template without a checksum is not fetched")
    hashed = hashlib.sha256()
    try:
        context = _tls(credentials)
        async with (
            httpx.AsyncClient(verify=context, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as response,
        ):
            _require_file(response)
            expected = int(response.headers.get("content-length", "0"))
            _require_room(expected, free_bytes)
            arrived = 0
            shown = -1
            with target.open("wb") as file:
                async for chunk in response.aiter_raw(CHUNK_BYTES):
                    arrived += len(chunk)
                    _require_room(arrived, free_bytes)
                    # Storage may hang; the agent may not.
                    await asyncio.to_thread(_keep, file, hashed, chunk)
                    percent = arrived * SHARE_PERCENT // expected if expected else 0
                    if percent != shown:
                        progressed(min(percent, SHARE_PERCENT), "downloading")
                        shown = percent
    except (httpx.HTTPError, ssl.SSLError) as error:
        raise Refused(
            Reason.UNREACHABLE, f"secondary storage does not answer: {type(error).__name__} {error}"
        ) from error
    if hashed.hexdigest() != sha256.lower():
        raise Refused(Reason.REJECTED, f"the image has the checksum {hashed.hexdigest()}, not {sha256}")


def _keep(file: BinaryIO, hashed: "hashlib._Hash", chunk: bytes) -> None:
    hashed.update(chunk)
    file.write(chunk)


def _tls(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=credentials.ca)
    context.load_cert_chain(credentials.certificate, credentials.key)
    return context


def _require_file(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.NOT_FOUND:
        raise Refused(Reason.MISSING, "secondary storage has no such image")
    if response.is_server_error:
        raise Refused(Reason.UNREACHABLE, f"secondary storage answers {response.status_code}")
    if response.status_code != httpx.codes.OK:
        raise Refused(Reason.REJECTED, f"secondary storage answers {response.status_code}")


def _require_room(size_bytes: int, free_bytes: int) -> None:
    if size_bytes > free_bytes:
        raise Refused(Reason.NO_ROOM, f"the image needs {size_bytes} bytes, and the pool has {free_bytes}")
