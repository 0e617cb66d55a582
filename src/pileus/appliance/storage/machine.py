"""What the kernel says about this machine."""

from pathlib import Path


def memory_bytes() -> int:
    """All memory."""
    return _meminfo("MemTotal")


def available_bytes() -> int:
    """Memory that programs could still get."""
    return _meminfo("MemAvailable")


def cpu_mhz() -> int:
    """Speed of the first core; 0 when the kernel does not say."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            return int(float(value))
    return 0


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        label, _, value = line.partition(":")
        if label == name:
            return int(value.split()[0]) * 1024
    return 0
