"""The first process of a host: mounts what must be its own, keeps virtlogd and libvirtd running, reaps orphans.

`python -m pileus.sandbox.host_init outside PLAN` enters the host's control groups and makes the namespaces;
`… inside PLAN` is then number 1 in them. PLAN is a HostPlan as JSON. It dies with nothing to clean up: all it mounts
is private to its mount namespace.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from pileus.sandbox import cgroups, open_vswitch
from pileus.sandbox.commands import SandboxError, call
from pileus.sandbox.plan import HOSTS_FILE, READY, STATE, HostPlan
from pileus.sandbox.requirements import SYSTEM_PATH

LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
LIBVIRT_SECONDS = 25.0


def outside(plan: HostPlan) -> None:
    """Enter the control groups and the network, and become `unshare`, which makes the rest."""
    cgroups.enter(plan.cgroup)
    inside_argv = [sys.executable, "-I", "-m", "pileus.sandbox.host_init", "inside", json.dumps(plan.__dict__)]
    spaces = ["--mount", "--uts", "--pid", "--ipc", "--cgroup", "--fork", "--kill-child"]
    os.execvp("nsenter", ["nsenter", f"--net={plan.netns}", "unshare", *spaces, *inside_argv])  # noqa: S606 no shell is wanted


def inside(plan: HostPlan) -> None:
    """Build the host and keep it; returns never."""
    ready = os.fdopen(plan.ready_fd, "w")
    os.set_inheritable(plan.ready_fd, False)
    # Number 1 gets only the signals it handles; an untaught one would ignore a polite end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.environ.clear()
    os.environ.update({"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8"})
    try:
        _mount(plan)
        socket.sethostname(plan.hostname)
        services = [Service(["virtlogd"]), Service(["libvirtd"])]
        if plan.vlans:
            open_vswitch.prepare()
            services += [Service(argv) for argv in open_vswitch.daemons()]
        for service in services:
            service.start()
        if plan.vlans:
            open_vswitch.lay()
        _await_libvirt()
    except (SandboxError, OSError) as error:
        ready.write(f"{error}\n")
        ready.close()
        sys.exit(1)
    ready.write(f"{READY}\n")
    ready.close()
    _keep(services)


class Service:
    """A daemon that is started again when it ends; at most once a second."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start it; a restart waits for the rest of the second."""
        time.sleep(max(0.0, self._started + 1.0 - time.monotonic()))
        self._started = time.monotonic()
        self._process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, start_new_session=True)

    def ended(self, pid: int) -> bool:
        """True when the process that ended is this one."""
        return self._process is not None and self._process.pid == pid


def _mount(plan: HostPlan) -> None:
    call(["mount", "--make-rprivate", "/"])
    # Read while the old trees are still mounted: the new ones go to the same places.
    found = cgroups.present()
    call(["mount", "-t", "proc", "proc", "/proc"])
    call(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"])
    for path in ("/run/lock", "/run/libvirt", "/run/netns"):
        os.makedirs(path, exist_ok=True)
    # libvirt believes the list of mounts: a hierarchy that is only covered would still count.
    call(["umount", "--recursive", "--lazy", "/sys"])
    call(["mount", "-t", "sysfs", "sysfs", "/sys"])
    if found and found[0].unified:
        _mount_unified()
    else:
        _mount_classic([tree.options for tree in found])
    for part, target in STATE.items():
        if target:
            os.makedirs(target, exist_ok=True)
            call(["mount", "--bind", f"{plan.directory}/{part}", target])
    call(["mount", "--bind", f"{plan.directory}/{HOSTS_FILE}", "/etc/hosts"])
    for part in ("qemu", "images", "boot", "dnsmasq"):
        os.makedirs(f"/var/lib/libvirt/{part}", exist_ok=True)


def _mount_classic(controllers: list[str]) -> None:
    call(["mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", "/sys/fs/cgroup"])
    for options in controllers:
        os.makedirs(f"/sys/fs/cgroup/{options}")
        call(["mount", "-t", "cgroup", "-o", options, "cgroup", f"/sys/fs/cgroup/{options}"])


def _mount_unified() -> None:
    call(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])
    # A group that holds processes may not hand controllers down, so the daemons move into a leaf.
    leaf = Path("/sys/fs/cgroup/init")
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text(str(os.getpid()))
    cgroups.hand_down(Path("/sys/fs/cgroup"))


def _await_libvirt() -> None:
    """Wait until libvirtd takes connections."""
    deadline = time.monotonic() + LIBVIRT_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(LIBVIRT_SOCKET)
            return
        if time.monotonic() > deadline:
            raise SandboxError(f"libvirtd did not answer within {LIBVIRT_SECONDS:.0f} s; see its log")
        time.sleep(0.02)


def _keep(services: list[Service]) -> None:
    """Reap whoever ends, and start the daemons again when they do."""
    while True:
        pid, _ = os.wait()
        for service in services:
            if service.ended(pid):
                service.start()


def main(argv: list[str]) -> None:
    plan = HostPlan(**json.loads(argv[1]))
    {"outside": outside, "inside": inside}[argv[0]](plan)


if __name__ == "__main__":
    main(sys.argv[1:])
