"""The control groups of a host, on version 1 (one tree per controller) and version 2 (one tree).

On version 1 the memory controller is left alone: the processes stay in the memory group of whoever started the
sandbox, so its limit holds for them too; libvirt works without.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pileus.sandbox.commands import SandboxError

V1_CONTROLLERS = frozenset({"cpu", "cpuacct", "cpuset", "blkio", "devices", "freezer", "pids"})
V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


@dataclass(frozen=True)
class Tree:
    """One mounted hierarchy. `options` are the controllers it carries on version 1, empty on version 2."""

    mount: Path
    base: Path
    options: str

    @property
    def unified(self) -> bool:
        return not self.options


def trees(mountinfo: str, membership: str) -> list[Tree]:
    """The hierarchies that carry controllers, from the text of /proc/self/mountinfo and /proc/self/cgroup.

    `base` is the directory below which a sandbox makes its groups: our own group on version 1, the top on version 2
    (where a group that holds processes may not hand controllers down).
    """
    own = dict(_memberships(membership))
    classic = []
    unified = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            unified = Tree(Path(mount), Path(mount), "")
        elif kind == "cgroup":
            controllers = [name for name in options.split(",") if name in V1_CONTROLLERS]
            if controllers:
                inside = os.path.relpath(own.get(controllers[0], "/"), root)
                base = Path(mount) if inside.startswith("..") else Path(mount) / inside
                classic.append(Tree(Path(mount), base, ",".join(controllers)))
    if classic:
        return classic
    return [unified] if unified else []


def _memberships(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found += [(name, path) for name in controllers.split(",")]
    return found


def present() -> list[Tree]:
    """The hierarchies of this machine, as this process sees them."""
    return trees(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())


def create(name: str) -> None:
    """Make the group `name` in every hierarchy; fine when it is there."""
    for tree in present():
        group = tree.base / name
        try:
            if tree.unified:
                hand_down(tree.mount)
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise SandboxError(f"cannot make the control group {group}: {error.strerror}") from error
        if "cpuset" in tree.options.split(","):
            # A new version 1 cpuset is empty, and an empty one accepts no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((tree.base / file).read_text())


def hand_down(group: Path) -> None:
    """Let the children of a version 2 group use the controllers that the group has itself."""
    available = (group / "cgroup.controllers").read_text().split()
    for controller in V2_CONTROLLERS:
        if controller in available:
            # Refused where processes live in the group; libvirt then goes without this controller.
            with contextlib.suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def enter(name: str) -> None:
    """Move this process into the group `name` of every hierarchy."""
    for tree in present():
        (tree.base / name / "cgroup.procs").write_text(str(os.getpid()))


def named(beginning: str) -> list[Path]:
    """Every group in every hierarchy whose name begins so."""
    return [path for tree in present() for path in sorted(tree.base.glob(f"{beginning}*")) if path.is_dir()]


def remove(name: str) -> None:
    """Remove the group `name` and those below it; its processes must be dead."""
    for tree in present():
        prune(tree.base / name)


def prune(group: Path, seconds: float = 5.0) -> None:
    """Remove one group with all below it, waiting for its last process to leave."""
    deadline = time.monotonic() + seconds
    for directory, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SandboxError(f"cannot remove the control group {directory}: {error.strerror}") from error
                time.sleep(0.02)
