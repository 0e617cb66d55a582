"""The agent's certificate is renewed long before it ends: a new key, and a certificate for what the old one counts for.

The old pair stays in use until the new one is on the disk, whole; it stays good until its own end in any case. When no
server answers, or the disk is full, it is tried again, ever more often towards the end.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from cryptography import x509

from pileus.agent.enrolment import Endpoint, EnrolmentRefused, ServerUnreachable, addresses_of, ask, ca_sha256
from pileus.agent.identity import Identity
from pileus.wire.messages import Renew, Renewed

log = structlog.get_logger(__name__)

BEGIN, SPREAD = 2 / 3, 1 / 12
"""A certificate is renewed when this share of its life has gone, or up to SPREAD of its life later: not all at once."""

LONGEST_PAUSE_SECONDS = 3600.0
SHORTEST_PAUSE_SECONDS = 5.0
AGAIN_SHARE = 0.05
"""The share of the time left after which a failed renewal is tried again."""


class Renewal:
    """Renews one agent's certificate for as long as it runs.

    `wall_clock` gives seconds since the epoch; `sleep` waits at most an hour at a time, so that a machine that slept or
    whose clock was set right finds out. `spread` is between 0 and 1.
    """

    def __init__(
        self,
        identity: Identity,
        servers: Sequence[Endpoint],
        *,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Callable[[], float] = secrets.SystemRandom().random,
    ) -> None:
        self._identity = identity
        self._servers = tuple(servers)
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._spread = spread

    async def run(self, renewed: Callable[[], Awaitable[None]]) -> None:
        """Never ends. `renewed` is called when another pair is in use from now on."""
        while True:
            certificate = await asyncio.to_thread(self._identity.certificate)
            await self._until(self._due_at(certificate))
            if await self._try():
                await renewed()
                continue
            left = certificate.not_valid_after_utc.timestamp() - self._wall_clock()
            pause = min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, AGAIN_SHARE * left))
            # Full jitter: a thousand agents that found no server do not come back as one.
            await self._sleep(SHORTEST_PAUSE_SECONDS + self._spread() * (pause - SHORTEST_PAUSE_SECONDS))

    def _due_at(self, certificate: x509.Certificate) -> float:
        begins, ends = (at.timestamp() for at in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
        return begins + (ends - begins) * (BEGIN + SPREAD * self._spread())

    async def _until(self, at: float) -> None:
        while (left := at - self._wall_clock()) > 0:
            await self._sleep(min(left, LONGEST_PAUSE_SECONDS))

    async def _try(self) -> bool:
        first = int(self._spread() * len(self._servers))
        for turn in range(len(self._servers)):
            server = self._servers[(first + turn) % len(self._servers)]
            try:
                await renew(self._identity, server)
            except ServerUnreachable as error:
                log.warning("certificate.renewal_unanswered", server=server.host, reason=str(error))
                continue
            except EnrolmentRefused as error:
                log.error("certificate.renewal_refused", server=server.host, reason=str(error))
                return False
            except OSError as error:
                log.error("certificate.not_kept", reason=str(error))
                return False
            log.info("certificate.renewed")
            return True
        return False


async def renew(identity: Identity, server: Endpoint) -> None:
    """Ask for a certificate for a new key, check it, keep both.

    Raises `EnrolmentRefused`, `ServerUnreachable` and OSError; then the old pair is as it was.
    """
    key = identity.new_key()
    request = Renew(identity.request(key=key, addresses=addresses_of(identity.hosts())))
    context = await asyncio.to_thread(identity.client_context)
    status, body = await ask(server, context, "POST", "/renew", msgspec.json.encode(request))
    if status == 429 or status >= 500:
        raise ServerUnreachable(f"{server.host}: HTTP {status}")
    if status != 200:
        raise EnrolmentRefused(f"{server.host} does not renew our certificate: HTTP {status}")
    try:
        answer = msgspec.json.decode(body, type=Renewed)
        certificate = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
        ca = x509.load_pem_x509_certificate(identity.ca_pem().encode())
        ca_changed = ca_sha256(answer.ca_pem) != ca_sha256(identity.ca_pem())
        certificate.verify_directly_issued_by(ca)
    except Exception as error:
        raise EnrolmentRefused(f"{server.host} answered with what is no certificate of ours") from error
    if ca_changed or certificate.public_key() != key.public_key():
        raise EnrolmentRefused(f"{server.host} answered with a certificate of another authority or key")
    await asyncio.to_thread(identity.renewed, key, answer.certificate_pem)
