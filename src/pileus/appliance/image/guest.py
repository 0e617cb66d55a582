"""Builds the small guest: a demonstration and test template, `python -m pileus.appliance.image.guest OUT.qcow2`.

Made of the distribution's busybox and cloud kernel, in seconds, without root, loop devices or mounts. A FAT
partition boots it with syslinux, an ext4 partition holds its state. Equal packages give an equal disk.
Not for production: it answers CGI requests as root, and its root password is the guide's "password" until the
virtual router gives another. See README.md beside this file for what it can do.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pileus.appliance.image import disk
from pileus.appliance.image.disk import BOOT_TIME, FAT, LINUX, MIB, BuildError, Partition, program, run
from pileus.appliance.image.initramfs import Entry, archive

BOOT_MIB = 24
ROOT_MIB = 40

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi"),
    *("sd_mod", "ata_piix", "sr_mod", "isofs", "evdev", "button"),
)
"""Drivers the guest needs; `evdev` and `button` make the power button work."""

COMMAND_LINE = (
    "console=tty0 console=ttyS0,115200 quiet mitigations=off tsc=reliable no_timer_check panic=5 net.ifnames=0"
)

DEFAULT_LOGIN = "$6$pileusguest$yV50mOE/.90RJjEui4v/7y17bn5cKc/wqzsO3knSyGEk1ZIRcURU.ymiNvm1Mmclq0P0ZUxaUum72D6snyg480"
"""Hash of "password", the guide's password of the default template."""

PROGRAMS = ("busybox", "modprobe", "mkfs.vfat", "mcopy", "syslinux", "mke2fs", "debugfs", "sfdisk", "qemu-img")

FILES = Path(__file__).with_name("guest")


def build(out: Path, *, image_format: str = "qcow2", say: Callable[[str], None] = lambda text: None) -> None:
    """Write the template to `out`, as "qcow2" (compressed) or "raw"; an old file is replaced at the end.

    Raises BuildError, with the names of the packages to install when something lacks.
    """
    kernel, version = find_kernel(Path("/boot"), Path("/lib/modules"))
    require_programs()
    say(f"kernel {version}")
    with tempfile.TemporaryDirectory(prefix="pileus-guest-") as name:
        work = Path(name)
        initrd = work / "initrd"
        initrd.write_bytes(archive(_initial_files(version)))
        boot = disk.boot_partition(work, kernel, initrd, command_line=COMMAND_LINE, size_mib=BOOT_MIB)
        parts = (Partition(boot, FAT, bootable=True), Partition(_root_partition(work), LINUX))
        whole = disk.assemble(work, parts)
        say("converting")
        disk.finish(work, whole, out, image_format=image_format)
    say(f"{out}: {out.stat().st_size / MIB:.1f} MiB")


def find_kernel(boot: Path, modules: Path) -> tuple[Path, str]:
    """The newest cloud kernel that has its modules: its file and its version."""
    found = [
        (path, path.name.removeprefix("vmlinuz-"))
        for path in boot.glob("vmlinuz-*-cloud-*")
        if (modules / path.name.removeprefix("vmlinuz-") / "modules.dep").exists()
    ]
    if not found:
        raise BuildError("no cloud kernel here: apt-get install linux-image-cloud-amd64")
    return max(found, key=lambda pair: _version_key(pair[1]))


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def require_programs() -> None:
    """Raise BuildError naming every package that lacks, all at once."""
    disk.require_programs(PROGRAMS)
    busybox = program("busybox")
    if b"/ld-linux" in Path(busybox).read_bytes()[:4096]:
        raise BuildError(f"{busybox} is not static: apt-get install busybox-static")


def _initial_files(version: str) -> Iterator[Entry]:
    """The initial RAM disk: busybox, the drivers in the order they load, and `init`."""
    for directory in ("bin", "dev", "mnt", "modules", "proc", "sys"):
        yield Entry.directory(directory)
    yield Entry.file("bin/busybox", Path(program("busybox")).read_bytes(), 0o755)
    yield Entry.file("init", (FILES / "init").read_bytes(), 0o755)
    # The kernel opens the console before anything can mount devtmpfs.
    yield Entry.character_device("dev/console", 5, 1)
    order = module_order(version, MODULES)
    for module in order:
        yield Entry.file(f"modules/{module.name}", module.read_bytes(), 0o644)
    yield Entry.file("modules/order", "".join(f"{module.name}\n" for module in order).encode(), 0o644)


def module_order(version: str, names: Sequence[str]) -> list[Path]:
    """Module files with every one after those it depends on; what is built into the kernel is left out."""
    order: dict[Path, None] = {}
    for name in names:
        for line in run(["modprobe", "-S", version, "-D", name]).splitlines():
            words = line.split()
            if words and words[0] == "insmod":
                order[Path(words[1])] = None
    return list(order)


def _root_partition(work: Path) -> Path:
    tree = work / "root"
    _fill_root(tree)
    root = work / "root.ext4"
    options = ["-q", "-t", "ext4", "-m", "0", "-L", "root", "-U", "70696c65-7573-4777-8565-737400000001"]
    hashing = "hash_seed=70696c65-7573-4777-8565-737400000002,lazy_itable_init=0,root_owner=0:0"
    run(["mke2fs", *options, "-E", hashing, "-d", str(tree), str(root), f"{ROOT_MIB}M"])
    _own_by_root(tree, root, work / "ownership")
    return root


def _fill_root(tree: Path) -> None:
    """Lay out the guest's root: busybox under all its names, then our own files over it."""
    for name in ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib/cloud", "etc/init.d"):
        (tree / name).mkdir(parents=True)
    (tree / "bin").mkdir()
    shutil.copyfile(program("busybox"), tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for name in run(["busybox", "--list-full"]).split():
        link = tree / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to("/bin/busybox")
    for source in sorted(FILES.joinpath("root").rglob("*")):
        target = tree / source.relative_to(FILES / "root")
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(source, target)
            # Only scripts begin with "#!": a checkout or wheel that lost the bit makes no difference.
            target.chmod(0o755 if source.read_bytes().startswith(b"#!") else 0o644)
    script = tree / "etc/init.d/cloud-set-guest-password"
    shutil.copyfile(FILES / "cloud-set-guest-password", script)
    script.chmod(0o755)
    shadow = tree / "etc/shadow"
    shadow.write_text(f"root:{DEFAULT_LOGIN}:18500:0:99999:7:::\n", encoding="ascii")
    shadow.chmod(0o600)
    (tree / "root").chmod(0o700)


def _own_by_root(tree: Path, root: Path, script: Path) -> None:
    """Give every inode to root and one time, whoever builds and whenever."""
    lines = []
    for path in [tree, *sorted(tree.rglob("*"))]:
        inside = "/" + str(path.relative_to(tree)) if path != tree else "/"
        for field, value in (("uid", "0"), ("gid", "0")):
            lines.append(f"set_inode_field {inside} {field} {value}")
        for field in ("atime", "ctime", "mtime", "crtime"):
            lines.append(f"set_inode_field {inside} {field} @{BOOT_TIME}")
            lines.append(f"set_inode_field {inside} {field}_extra 0")
    script.write_text("\n".join(lines) + "\n", encoding="ascii")
    run(["debugfs", "-w", "-f", str(script), str(root)])


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="pileus.appliance.image.guest", description="Build the small guest template.")
    parser.add_argument("out", type=Path, help="the image to write")
    parser.add_argument("--format", choices=("qcow2", "raw"), default="qcow2", help="compressed qcow2, or raw")
    chosen = parser.parse_args(arguments)
    try:
        build(chosen.out, image_format=chosen.format, say=lambda text: print(text, file=sys.stderr))  # noqa: T201
    except BuildError as error:
        print(f"guest template: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
