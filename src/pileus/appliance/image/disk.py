"""What the recipes share: programs of the distribution, run with a fixed clock, and a bootable disk made of partitions.

Without root, loop devices or mounts. Equal inputs give equal bytes: every file and file system bears one time.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
SECTOR = 512
BOOT_TIME = 1_600_000_000
"""Seconds since the epoch that every file of an image bears, so that two builds are equal."""

FAT, LINUX = 6, 83
"""Types of partitions."""

PACKAGES = {
    "apt-get": "apt",
    "busybox": "busybox-static",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "modprobe": "kmod",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
}
"""Programs of the builds, and the packages they come in."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildError(Exception):
    """The image cannot be built; the text says what is missing or what failed."""


@dataclass(frozen=True)
class Partition:
    """A file system in a file. Its size is the file's, a whole number of MiB."""

    file: Path
    type: int
    bootable: bool = False


def require_programs(names: Iterable[str]) -> None:
    """Raise BuildError naming every package that lacks, all at once."""
    lacking = {PACKAGES[name] for name in names if shutil.which(name, path=SYSTEM_PATH) is None}
    if _boot_record() is None:
        lacking.add("syslinux-common")
    if lacking:
        raise BuildError(f"programs lack here: apt-get install {' '.join(sorted(lacking))}")


def boot_partition(work: Path, kernel: Path, initrd: Path, *, command_line: str, size_mib: int) -> Path:
    """A FAT file system from which syslinux boots the kernel at once."""
    boot = work / "boot.fat"
    config = work / "syslinux.cfg"
    config.write_text(
        f"DEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n KERNEL vmlinuz\n INITRD initrd\n APPEND {command_line}\n",
        encoding="ascii",
    )
    run(["mkfs.vfat", "--invariant", "-F16", "-n", "BOOT", "-C", str(boot), str(size_mib * 1024)])
    for source, name in ((kernel, "vmlinuz"), (initrd, "initrd"), (config, "syslinux.cfg")):
        copy = work / name
        if copy != source:
            shutil.copyfile(source, copy)
        os.utime(copy, (BOOT_TIME, BOOT_TIME))
        run(["mcopy", "-m", "-i", str(boot), str(copy), f"::{name}"])
    run(["syslinux", "--install", str(boot)])
    return boot


def assemble(work: Path, partitions: Sequence[Partition]) -> Path:
    """Put boot record, partition table and partitions together."""
    record = _boot_record()
    if record is None:
        raise BuildError("programs lack here: apt-get install syslinux-common")
    disk = work / "disk.raw"
    lines = ["label: dos", "label-id: 0x70696c65"]
    starts = []
    end = MIB // SECTOR
    for part in partitions:
        size = part.file.stat().st_size // SECTOR
        lines.append(f"start={end},size={size},type={part.type}{',bootable' if part.bootable else ''}")
        starts.append(end)
        end += size
    with disk.open("wb") as file:
        file.truncate(end * SECTOR)
    run(["sfdisk", "-q", str(disk)], "\n".join(lines) + "\n")
    with disk.open("r+b") as file:
        file.write(record.read_bytes()[:440])
        for start, part in zip(starts, partitions, strict=True):
            file.seek(start * SECTOR)
            file.write(part.file.read_bytes())
    return disk


def finish(work: Path, disk: Path, out: Path, *, image_format: str) -> None:
    """Move the image to its name in one step, as "qcow2" (compressed) or "raw": a half one is never seen there."""
    finished = work / "finished"
    compress = ["-c"] if image_format == "qcow2" else []
    run(["qemu-img", "convert", *compress, "-f", "raw", "-O", image_format, str(disk), str(finished)])
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copyfile(finished, beside)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def program(name: str) -> str:
    """Where a program is. Raises BuildError with the package that lacks."""
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise BuildError(f"{name} lacks here: apt-get install {PACKAGES[name]}")
    return path


def run(command: Sequence[str], stdin: str = "", *, banner: str | None = None) -> str:
    """Run a program with fixed clock and language; its output. Raises BuildError with what it said.

    With a `banner`, any line of error that does not begin so is a failure too: some programs go on after one.
    """
    environment = {
        "PATH": SYSTEM_PATH,
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": str(BOOT_TIME),
        "E2FSPROGS_FAKE_TIME": str(BOOT_TIME),
        "MTOOLS_SKIP_CHECK": "1",
    }
    done = subprocess.run(
        [program(command[0]), *command[1:]], input=stdin, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    if banner is not None:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(banner)]
        if said:
            raise BuildError(f"{command[0]}: {said[0]}")
    return done.stdout


def _boot_record() -> Path | None:
    path = Path("/usr/lib/syslinux/mbr/mbr.bin")
    return path if path.exists() else None
