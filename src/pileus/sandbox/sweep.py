"""Taking away what a crashed run left: found in the ledger and by name, so that a lost ledger hides nothing."""

import contextlib
from pathlib import Path

from pileus.sandbox import cgroups, ledger, processes
from pileus.sandbox.commands import attempt, call
from pileus.sandbox.host import shut
from pileus.sandbox.names import cgroup, check_prefix, nat_table, root_device
from pileus.sandbox.switch import dismantle


def leftovers(prefix: str) -> list[str]:
    """Everything of the sandbox `prefix` that is on this machine now, one text each; empty when all is clean."""
    check_prefix(prefix)
    found = []
    for name in ledger.hosts(prefix):
        record = ledger.read_host(prefix, name)
        if record and processes.alive(record.pid, record.started):
            found.append(f"process {record.pid} (first of host {name})")
        if record and processes.alive(record.shell_pid, record.shell_started):
            found.append(f"process {record.shell_pid} (namespaces of host {name})")
    for path in _namespaces(prefix):
        found.append(f"network namespace {path.name}")
        found += [f"process {pid} in {path.name}" for pid in processes.in_netns(path)]
    if Path(f"/sys/class/net/{root_device(prefix)}").exists():
        found.append(f"device {root_device(prefix)}")
    if attempt(["nft", "list", "table", "ip", nat_table(prefix)]).returncode == 0:
        found.append(f"nftables table {nat_table(prefix)}")
    found += [f"control group {path}" for path in cgroups.named(cgroup(prefix))]
    found += [f"mount {path}" for path in _mounts(prefix)]
    if (ledger.ROOT / prefix).exists():
        found.append(f"record {ledger.ROOT / prefix}")
    return found


def sweep(prefix: str) -> None:
    """Remove everything of the sandbox `prefix`, killing its processes. Files in the hosts' directories stay."""
    check_prefix(prefix)
    for name in ledger.hosts(prefix):
        if record := ledger.read_host(prefix, name):
            shut(prefix, name, record)
    for path in _namespaces(prefix):
        for pid in processes.in_netns(path):
            # Read before the kill and checked again by it, so a number taken over meanwhile is spared.
            processes.kill(pid, processes.start_time(pid))
    for path in _namespaces(prefix):
        call(["ip", "netns", "del", path.name])
    dismantle(prefix)
    for group in cgroups.named(cgroup(prefix)):
        cgroups.prune(group)
    ledger.release(prefix)


def _namespaces(prefix: str) -> list[Path]:
    return sorted(Path("/run/netns").glob(f"{prefix}-*"))


def _mounts(prefix: str) -> list[str]:
    """Mounts of ours in the root namespace; those of the hosts are private to them and end with them."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            where = line.split()[1]
            if where.startswith(f"/run/netns/{prefix}-"):
                found.append(where)
    return found
