"""The frames on the agent's WebSocket: msgpack, tagged, one connection for all hosts of an agent process."""

from enum import StrEnum

import msgspec
from msgspec import Struct

from pileus.wire.operations import AnyOperation, AnyResult, Refusal


class HostKind(StrEnum):
    """What a host in the cloud's sense does."""

    ROUTING = "Routing"
    SECONDARY_STORAGE = "SecondaryStorage"


class VmSeen(Struct, frozen=True):
    """A guest or router that a host holds, as it is there: `running` is False for one that is defined but off."""

    name: str
    uuid: str
    epoch: int
    running: bool
    router: bool = False


class HostFacts(Struct, frozen=True):
    """What a host is. `cpu_mhz` is the speed of one core; sizes in bytes."""

    hypervisor: str
    version: str
    address: str
    cpus: int
    cpu_mhz: int
    memory_bytes: int
    capabilities: str = "hvm"
    accelerated: bool = False


class HostIntro(Struct, frozen=True):
    """A host at the beginning of a connection, with everything that lives on it.

    `pools` are the UUIDs of primary storage that it certainly has attached; others are attached anew.
    """

    uuid: str
    kind: HostKind
    facts: HostFacts
    holds: tuple[VmSeen, ...] = ()
    pools: tuple[str, ...] = ()


class VmStats(Struct, frozen=True):
    """Counters of one guest since its start; `cpu_seconds` is CPU time used."""

    name: str
    cpu_seconds: float
    received_bytes: int
    sent_bytes: int


class HostStats(Struct, frozen=True):
    """Load of one host. `cpu_used` is a share of all cores, 0 to 1; secondary storage tells its space in bytes."""

    uuid: str
    cpu_used: float
    memory_used_bytes: int
    load_average: float
    received_bytes: int
    sent_bytes: int
    vms: tuple[VmStats, ...] = ()
    storage_total_bytes: int = 0
    storage_used_bytes: int = 0


class VmChange(StrEnum):
    """What happened to a guest without being asked for by an operation."""

    STARTED = "started"
    STOPPED = "stopped"
    CRASHED = "crashed"
    REBOOTED = "rebooted"


MOST_INTRODUCED = 500
"""So many hosts go into one frame and one transaction: a fleet of thousands holds up nobody."""

# ---- agent to server


class FromAgent(Struct, frozen=True, tag_field="m"):
    """Base of what an agent says."""


class Hello(FromAgent, frozen=True, tag=True):
    """First frame. The peer certificate must name every host listed, or speak for the fleet they belong to.

    At most `MOST_INTRODUCED` hosts: more of them follow in `Introduce` frames.
    """

    protocol: int
    version: str
    hosts: tuple[HostIntro, ...]


class Introduce(FromAgent, frozen=True, tag=True):
    """More hosts join this line, at most `MOST_INTRODUCED`. Answered by `Introduced`, before which no other is sent."""

    hosts: tuple[HostIntro, ...]


class Ask(FromAgent, frozen=True, tag=True):
    """A fleet has room for so many hosts more. Answered by `Wanted`, at once or when somebody adds a host."""

    room: int


class Heartbeat(FromAgent, frozen=True, tag=True):
    """All hosts of this connection are alive, except `silent` ones."""

    silent: tuple[str, ...] = ()


class Begun(Struct, frozen=True):
    """A life of a guest or router that an operation has begun."""

    name: str
    epoch: int


class Answer(FromAgent, frozen=True, tag=True):
    """Outcome of a delivered operation: exactly one of `result` and `refusal`. Sent until a `Forget` names it.

    The agent keeps with it which life was `begun`: once that has ended, it does not say again that it runs.
    """

    operation_id: str
    host: str
    result: AnyResult | None = None
    refusal: Refusal | None = None
    begun: Begun | None = None


class Progress(FromAgent, frozen=True, tag=True):
    """A long operation is at `percent` (0 to 100)."""

    operation_id: str
    host: str
    percent: int
    text: str = ""


class Happened(FromAgent, frozen=True, tag=True):
    """A guest changed by itself."""

    host: str
    name: str
    uuid: str
    epoch: int
    change: VmChange


class Report(FromAgent, frozen=True, tag=True):
    """Statistics, sent every few minutes."""

    hosts: tuple[HostStats, ...]


class Returning(FromAgent, frozen=True, tag=True):
    """The last frame of a line that its agent ends to make another at once: nothing is wrong with its hosts."""


AnyFromAgent = Hello | Introduce | Ask | Heartbeat | Answer | Progress | Happened | Report | Returning


# ---- server to agent


class FromServer(Struct, frozen=True, tag_field="m"):
    """Base of what a server says."""


class Welcome(FromServer, frozen=True, tag=True):
    """The hosts are ours; send a heartbeat every `heartbeat_seconds` and statistics every `report_seconds`.

    `refused` hosts are not (removed, or not in the certificate): the agent lets go of them.
    """

    protocol: int
    server: str
    heartbeat_seconds: float
    report_seconds: float
    refused: tuple[str, ...] = ()


class Introduced(FromServer, frozen=True, tag=True):
    """The hosts of the last `Introduce` are on this line, except `refused` ones: the agent lets go of them."""

    refused: tuple[str, ...] = ()


class WantedHost(Struct, frozen=True):
    """A host of hypervisor Simulator that somebody added, for a fleet to make.

    `settings` say how it behaves (`pileus.wire.simulated`), as the query of a URL.
    """

    uuid: str
    name: str
    settings: str = ""


class Wanted(FromServer, frozen=True, tag=True):
    """These hosts are the fleet's from now on: it makes them and introduces them."""

    hosts: tuple[WantedHost, ...]


class LetGo(FromServer, frozen=True, tag=True):
    """These hosts are not on this line any more (removed): the agent forgets them."""

    hosts: tuple[str, ...]


class Anew(FromServer, frozen=True, tag=True):
    """The fleet is to introduce these hosts once more, as if each had connected anew.

    A fleet that does not know this frame ends its line and comes back, which introduces them too.
    """

    hosts: tuple[str, ...]


class GoAway(FromServer, frozen=True, tag=True):
    """The connection ends, and `text` says why. `retry` is False when trying again cannot help."""

    text: str
    retry: bool = True


class Deliver(FromServer, frozen=True, tag=True):
    """Do this. Operations with the same host and `queue` run in the order of delivery, others side by side."""

    operation_id: str
    host: str
    queue: str
    operation: AnyOperation


class Forget(FromServer, frozen=True, tag=True):
    """The answers of these operations are stored: their journal entries may go."""

    operation_ids: tuple[str, ...]


AnyFromServer = Welcome | Introduced | Wanted | LetGo | Anew | GoAway | Deliver | Forget

_encoder = msgspec.msgpack.Encoder()
_from_agent = msgspec.msgpack.Decoder(AnyFromAgent)
_from_server = msgspec.msgpack.Decoder(AnyFromServer)

encode = _encoder.encode
decode_from_agent = _from_agent.decode
decode_from_server = _from_server.decode


# ---- enrolment (HTTPS on the same port, before there is a client certificate)


class Enrol(Struct, frozen=True):
    """POST /enrol: a one-time token and a certificate request (PEM) whose subject the server ignores."""

    token: str
    csr_pem: str


class Renew(Struct, frozen=True):
    """POST /renew with the present certificate shown: a request (PEM) for a new key, its subject is ignored."""

    csr_pem: str


class Renewed(Struct, frozen=True):
    """A certificate for all that the one shown still counts for, and the CA (PEM). The old one counts until its end."""

    certificate_pem: str
    ca_pem: str


class Enrolled(Struct, frozen=True):
    """The host's identity: certificate and CA (PEM), and the UUID it must present; with `fleet`, those of a fleet."""

    host: str
    kind: HostKind
    certificate_pem: str
    ca_pem: str
    fleet: bool = False
