"""What the host is and how busy it is, from libvirt and the kernel."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from pileus.agent.backends.kvm.options import KvmOptions
from pileus.wire.messages import HostFacts, HostStats, VmStats

HYPERVISOR = "KVM"
MIB = 1 << 20

_FLAGS = re.compile(r"^flags\s*:.*\b(?:vmx|svm)\b", re.MULTILINE)
_MHZ = re.compile(r"^cpu MHz\s*:\s*([0-9.]+)", re.MULTILINE)
_BOGOMIPS = re.compile(r"^bogomips\s*:\s*([0-9.]+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class CpuSample:
    """CPU time of the whole host since its boot, in nanoseconds."""

    busy: int
    idle: int


def can_accelerate(cpuinfo: str) -> bool:
    """True when guests may run on the hardware. /dev/kvm alone proves nothing: without the CPU's flag guests hang."""
    return bool(_FLAGS.search(cpuinfo)) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def core_mhz(reported: int, cpuinfo: str) -> int:
    """Speed of a core: what libvirt says, else the kernel's measure, else half its BogoMIPS (two per cycle)."""
    if reported > 0:
        return reported
    if speeds := _MHZ.findall(cpuinfo):
        return round(max(float(speed) for speed in speeds))
    if measures := _BOGOMIPS.findall(cpuinfo):
        return max(1, round(max(float(measure) for measure in measures) / 2))
    return 1


def read_cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()


def facts(connection: Any, options: KvmOptions, address: str) -> HostFacts:
    """Size and kind of the host. Memory is asked by its statistics: libvirt's node info is wrong on some machines."""
    info = connection.getInfo()
    cpuinfo = read_cpuinfo()
    memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"] * 1024
    return HostFacts(
        hypervisor=HYPERVISOR,
        version=f"QEMU {_dotted(connection.getVersion())}, libvirt {_dotted(connection.getLibVersion())}",
        address=address,
        cpus=options.cpus or info[2],
        cpu_mhz=options.cpu_mhz or core_mhz(info[3], cpuinfo),
        memory_bytes=min(memory, options.memory_mib * MIB) if options.memory_mib else memory,
        accelerated=can_accelerate(cpuinfo),
    )


def cpu_sample(connection: Any) -> CpuSample:
    times = connection.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
    idle = times.get("idle", 0) + times.get("iowait", 0)
    return CpuSample(busy=times.get("kernel", 0) + times.get("user", 0), idle=idle)


def cpu_used(before: CpuSample, now: CpuSample) -> float:
    """The busy share of the time between two samples, 0 to 1."""
    busy, idle = max(0, now.busy - before.busy), max(0, now.idle - before.idle)
    return busy / (busy + idle) if busy + idle else 0.0


def stats(
    connection: Any, host_uuid: str, used: float, devices: list[str], guests: dict[str, str]
) -> HostStats:  # fmt: skip
    """Load of the host; `devices` are its ways out, `guests` UUID → name of ours."""
    memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    free = memory.get("free", 0) + memory.get("buffers", 0) + memory.get("cached", 0)
    wanted = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_INTERFACE
    found = connection.getAllDomainStats(wanted, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE)
    return HostStats(
        uuid=host_uuid,
        cpu_used=used,
        memory_used_bytes=(memory["total"] - free) * 1024,
        load_average=os.getloadavg()[0],
        received_bytes=sum(_counter(device, "rx_bytes") for device in devices),
        sent_bytes=sum(_counter(device, "tx_bytes") for device in devices),
        vms=tuple(
            _vm_stats(guests[domain.UUIDString()], values) for domain, values in found if domain.UUIDString() in guests
        ),
    )


def available_memory_bytes() -> int:
    """Memory the host can still give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0


def _vm_stats(name: str, values: dict[str, Any]) -> VmStats:
    """libvirt counts a NIC as the guest sees it: what the guest received is rx."""
    nics = range(int(values.get("net.count", 0)))
    return VmStats(
        name=name,
        cpu_seconds=values.get("cpu.time", 0) / 1e9,
        received_bytes=sum(int(values.get(f"net.{nic}.rx.bytes", 0)) for nic in nics),
        sent_bytes=sum(int(values.get(f"net.{nic}.tx.bytes", 0)) for nic in nics),
    )


def _counter(device: str, name: str) -> int:
    path = Path("/sys/class/net") / device / "statistics" / name
    return int(path.read_text()) if path.exists() else 0


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
