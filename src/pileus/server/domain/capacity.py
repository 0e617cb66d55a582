"""What a cloud can run out of. Guide: "Capacity"; the numbers are those of the API."""

from dataclasses import dataclass
from enum import IntEnum


class CapacityType(IntEnum):
    """Wire values of `type` in listCapacity."""

    MEMORY = 0
    CPU = 1
    STORAGE = 2
    STORAGE_ALLOCATED = 3
    PUBLIC_IP = 4
    PRIVATE_IP = 5
    SECONDARY_STORAGE = 6
    VLAN = 7
    DIRECT_PUBLIC_IP = 8


@dataclass(frozen=True)
class Capacity:
    """How much of something is there and in use, in one place. Bytes, MHz, or a number of addresses or VLANs.

    `pod_id` and `cluster_id` are None where it belongs to the whole zone or pod.
    """

    type: CapacityType
    zone_id: int
    pod_id: int | None
    cluster_id: int | None
    used: int
    total: int

    @property
    def share(self) -> float:
        """The share in use, 0 when there is nothing at all."""
        return self.used / self.total if self.total else 0.0


def summed(found: list[Capacity], *, clusters: bool, pods: bool = True) -> list[Capacity]:
    """The same in larger places: per pod without `clusters`, per zone without `pods`; in a fixed order."""
    sums: dict[tuple[int, int, int, int], list[Capacity]] = {}
    for each in found:
        pod_id = each.pod_id if pods else None
        cluster_id = each.cluster_id if pods and clusters else None
        sums.setdefault((each.zone_id, pod_id or 0, cluster_id or 0, int(each.type)), []).append(each)
    return [
        Capacity(
            CapacityType(type_number),
            zone_id,
            pod_id or None,
            cluster_id or None,
            sum(each.used for each in parts),
            sum(each.total for each in parts),
        )
        for (zone_id, pod_id, cluster_id, type_number), parts in sorted(sums.items())
    ]
