"""What a guest or router needs of a place, and what a place is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiskDemand:
    """A volume that needs a pool. `pool_id` is set when its file lies somewhere already: then nothing is claimed."""

    volume_id: int
    size_bytes: int
    tags: frozenset[str] = frozenset()
    pool_id: int | None = None


@dataclass(frozen=True)
class Demand:
    """What is to be placed. `cpu_mhz` is the speed of one core; `hypervisor` None takes any.

    `host_id` asks for one host, `rather` prefers one. `any_allocation_state` is the right of root administrators to
    use zones, pods, clusters and hosts that are disabled for others. `name` is told in errors. `os_type_id` and
    `account_id` are what preferences of hosts and the dispersal of an account's guests go by.
    """

    name: str
    zone_id: int
    cpus: int
    cpu_mhz: int
    ram_mib: int
    hypervisor: str | None = None
    host_tag: str | None = None
    pod_id: int | None = None
    host_id: int | None = None
    rather: int | None = None
    disks: tuple[DiskDemand, ...] = ()
    any_allocation_state: bool = False
    os_type_id: int | None = None
    account_id: int | None = None

    @property
    def claim_mhz(self) -> int:
        """CPU claimed of the host, in MHz over all cores."""
        return self.cpus * self.cpu_mhz


@dataclass(frozen=True)
class Place:
    """A host with room, claimed. `pools` gives each volume's pool by volume id."""

    host_id: int
    cluster_id: int
    pod_id: int
    pools: dict[int, int]


def tags_of(text: str | None) -> frozenset[str]:
    """The tags of an offering (comma-separated)."""
    return frozenset(tag.strip() for tag in (text or "").split(",") if tag.strip())
