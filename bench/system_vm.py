"""How long a router's machine takes from power-on until its control channel answers, and what that costs.

Boots the template of `make systemvm` under emulation as the agent boots it (its kernel at once) and as any other
hypervisor would (from the disk). Processor time of the emulator stands beside the wall clock: other work on the
machine does not show in it. Ends everything it started; needs no root.
"""

import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pileus.agent.backends.kvm.router_image import BOOT_OFFSET, command_line, unpack
from pileus.wire.appliance import CONTROL_PORT, Status, encode

IMAGE = Path(__file__).parents[1] / "build/systemvm.qcow2"
ROUNDS = 3
RAM_MIB = 128
PATIENCE_SECONDS = 120.0
GOAL_SECONDS = 10.0


def main() -> int:
    """Measure both ways; the last line is the claim."""
    if not IMAGE.exists():
        print(f"{IMAGE} is not there: make systemvm", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="pileus-bench-") as name:
        work = Path(name)
        disk = work / "disk.qcow2"
        _run("qemu-img", "convert", "-O", "qcow2", str(IMAGE), str(disk))
        direct = _kernel(work, disk)
        ways = {"kernel": direct, "disk": []}
        found = {way: [_boot(work, disk, options) for _ in range(ROUNDS)] for way, options in ways.items()}
    for way, rounds in found.items():
        wall, processor = (statistics.median(each[index] for each in rounds) for index in (0, 1))
        print(json.dumps({"way": way, "wall_seconds": round(wall, 1), "processor_seconds": round(processor, 1)}))
    wall, processor = (statistics.median(each[index] for each in found["kernel"]) for index in (0, 1))
    # The emulator has one processor to itself on a quiet machine, so it is ready no later than that.
    claim = {"name": "system_vm_ready_processor", "value": round(processor, 1), "unit": "s", "goal": GOAL_SECONDS}
    print(json.dumps({**claim, "wall": round(wall, 1), "load": os.getloadavg()[0], "ok": processor <= GOAL_SECONDS}))
    return 0


def _kernel(work: Path, disk: Path) -> list[str]:
    """Options that boot the template's kernel as the agent does."""
    raw = work / "raw"
    _run("qemu-img", "convert", "-O", "raw", str(disk), str(raw))
    for name in ("vmlinuz", "initrd", "syslinux.cfg"):
        _run("mcopy", "-n", "-i", f"{raw}@@{BOOT_OFFSET}", f"::{name}", str(work / name))
    raw.unlink()
    (work / "vmlinux").write_bytes(unpack((work / "vmlinuz").read_bytes()))
    line = command_line((work / "syslinux.cfg").read_text())
    return ["-kernel", str(work / "vmlinux"), "-initrd", str(work / "initrd"), "-append", line]


def _boot(work: Path, disk: Path, options: list[str]) -> tuple[float, float]:
    """One boot: wall and processor seconds until the router answers."""
    overlay, channel = work / "overlay.qcow2", work / "channel"
    for path in (overlay, channel):
        path.unlink(missing_ok=True)
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "qcow2", str(overlay))
    macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
    told = f"type=11,value=pileus.name=r-1-VM,value=pileus.guest={macs[0]},value=pileus.public={macs[1]}"
    machine = ["-machine", "q35,accel=tcg", "-cpu", "qemu64", "-m", str(RAM_MIB), "-nodefaults", "-display", "none"]
    devices = ["-drive", f"file={overlay},if=virtio,cache=none", "-device", "virtio-serial"]
    for number, mac in enumerate(macs):
        devices += ["-netdev", f"hubport,id=n{number},hubid={number}"]
        devices += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
    port = ["-chardev", f"socket,id=c,path={channel},server=on,wait=off"]
    port += ["-device", f"virtserialport,chardev=c,name={CONTROL_PORT}", "-device", "virtio-rng-pci"]
    began = time.monotonic()
    emulator = subprocess.Popen(
        ["qemu-system-x86_64", *machine, *options, "-smbios", told, *devices, *port], stderr=subprocess.DEVNULL
    )
    try:
        _answered(channel, began + PATIENCE_SECONDS)
        return time.monotonic() - began, _processor_seconds(emulator.pid)
    finally:
        emulator.kill()
        emulator.wait()


def _answered(channel: Path, until: float) -> None:
    mark = secrets.token_hex(8).encode()
    while True:
        if time.monotonic() > until:
            raise TimeoutError("the router does not answer")
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(channel))
                line.settimeout(until - time.monotonic())
                line.sendall(b"\n" + mark + b" " + encode(Status()) + b"\n")
                heard = b""
                while mark + b" " not in heard:
                    heard += line.recv(65536)
                return
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.02)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
