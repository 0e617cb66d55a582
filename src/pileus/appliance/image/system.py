"""Builds the system VM: the template of virtual routers, `python -m pileus.appliance.image.system OUT.qcow2`.

Made of the distribution's packages, without root, loop devices or mounts, and without running a script of any of them:
the generic kernel, busybox as init, Python, and what a router works with. Its root is read-only, a second file system
keeps what the router remembers. No user has a password, nobody can log in, and nothing listens before the router does.
Equal packages and sources give an equal disk; OUT.manifest names them. See README.md beside this file.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pileus
from pileus.appliance.image import disk, filesystem, packages
from pileus.appliance.image.disk import FAT, LINUX, BuildError, Partition, program, run
from pileus.appliance.image.initramfs import Entry, archive

BOOT_MIB = 20
ROOT_MIB = 160
STATE_MIB = 16

WANTED = (
    "linux-image-amd64",
    *("python3-minimal", "python3", "kmod", "iproute2"),
    *("dnsmasq-base", "nftables", "libnftables1", "conntrack", "haproxy"),
    *("charon-systemd", "strongswan-swanctl", "libcharon-extra-plugins", "libstrongswan-standard-plugins"),
    *("xl2tpd", "ppp"),
)
"""What the router works with; what these need comes along."""

NEEDLESS = (
    *("adduser", "coreutils", "cpio", "debconf", "dpkg", "gcc-*-base", "init-system-helpers", "initramfs-tools*"),
    *("klibc-utils", "libklibc", "linux-base", "linux-image-amd64", "logsave", "lsb-base", "media-types", "passwd"),
    *("perl*", "lib*-perl", "libperl*", "libgdbm*", "libpam-modules*", "libpam-runtime", "procps", "libproc2-0"),
    *("readline-common", "libreadline8", "sysvinit-utils", "tar", "udev", "usrmerge", "libsemanage*", "libsepol2"),
    *("libaudit-common", "libcap2-bin", "libncursesw6", "libsqlite3-0", "libkmod2-*", "mawk", "base-*", "bash", "dash"),
    *("python3.*-venv", "sed", "grep", "gzip", "hostname", "login", "mount", "util-linux*", "diffutils", "findutils"),
    *("e2fsprogs", "libext2fs2", "libss2", "debianutils", "ncurses-*", "sysv*", "tzdata", "bsdutils", "openssl"),
)
"""Patterns of packages that serve installation, or a user who logs in."""

LEFT_OUT = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/lintian/*", "usr/share/bug/*"),
    *("usr/share/info/*", "usr/share/pixmaps/*", "usr/share/applications/*", "usr/share/bash-completion/*"),
    *("usr/share/python3/*", "usr/share/binfmts/*", "usr/share/gcc/*", "usr/share/zsh/*", "usr/share/vim/*"),
    *("usr/share/initramfs-tools/*", "usr/share/pkgconfig/*", "usr/share/apport/*", "usr/share/gdb/*"),
    *("usr/lib/x86_64-linux-gnu/gconv/*", "usr/lib/x86_64-linux-gnu/perl*", "usr/lib/systemd/*", "usr/lib/locale/*"),
    *("usr/lib/python3*/test/*", "usr/lib/python3*/idlelib/*", "usr/lib/python3*/lib2to3/*", "usr/lib/udev/*"),
    *("usr/lib/python3*/ensurepip/*", "usr/lib/python3*/pydoc_data/*", "usr/lib/python3*/distutils/*"),
    *("usr/lib/python3*/tkinter/*", "usr/lib/python3*/turtledemo/*", "usr/lib/python3*/unittest/*"),
    *("usr/lib/python3*/lib-dynload/_ssl*", "usr/lib/python3*/lib-dynload/_hashlib*"),
    *("usr/lib/python3*/config-*", "usr/lib/python3*/sqlite3/*", "usr/lib/python3*/curses/*"),
    *("usr/lib/python3/*", "usr/include/*", "usr/games/*", "etc/init.d/*", "etc/cron*", "etc/logrotate.d/*"),
    *("etc/apparmor*", "etc/default/*", "etc/python3*", "etc/rsyslog.d/*", "var/*", "boot/System.map*", "boot/config*"),
    *("usr/lib/modules/*", "boot/*"),
)
"""Patterns of files that nobody reads there. The kernel and its modules are chosen one by one."""

FIRST = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""Drivers of the initial RAM disk."""

EARLY = ("virtio_net", "virtio_console", "virtio_rng", "evdev", "button")
"""Drivers loaded at the start; `evdev` and `button` make the power button work."""

ON_DEMAND = (
    *("nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_nat", "nft_redir", "nft_reject_inet", "nft_limit"),
    *("nft_log", "nft_fib_inet", "nft_fib_ipv4", "nft_hash", "nft_objref", "nft_quota", "nft_connlimit", "nft_numgen"),
    *("nft_xfrm", "nf_conntrack_netlink", "nfnetlink", "nf_nat_ftp", "nf_nat_tftp", "nf_nat_pptp", "nf_log_syslog"),
    *("ifb", "sch_tbf", "sch_htb", "sch_ingress", "act_mirred", "act_police", "cls_u32", "tun"),
    *("ppp_generic", "ppp_async", "ppp_synctty", "ppp_mppe", "l2tp_ppp", "l2tp_netlink", "pppox"),
    *("esp4", "ah4", "xfrm_user", "xfrm4_tunnel", "af_key", "cbc", "hmac", "sha1_generic", "sha256_generic", "md5"),
    *("sha512_generic", "des_generic", "aesni_intel", "gcm", "ctr", "ccm", "authenc", "echainiv", "seqiv", "ecb"),
    # ESP draws its initialisation vectors from them.
    *("drbg", "jitterentropy_rng"),
)
"""Modules that the kernel, or a program of the router, loads when it comes to need them."""

COMMAND_LINE = "console=ttyS0,115200 quiet mitigations=off tsc=reliable no_timer_check panic=5 net.ifnames=0 audit=0"

PROGRAMS = (
    *("apt-get", "dpkg-deb", "busybox", "depmod", "modprobe", "mkfs.vfat", "mcopy", "syslinux", "mke2fs", "debugfs"),
    *("sfdisk", "qemu-img"),
)

MODULES_OF_OURS = ("__init__.py", "appliance/__init__.py", "appliance/router", "appliance/machine", "wire")
LIBRARIES = ("msgspec", "structlog")
FILES = Path(__file__).with_name("system")
SOURCES = "sources"
"""How the line of the manifest begins that says what of ours the image was made from."""


def build(
    out: Path,
    *,
    cache: Path,
    image_format: str = "qcow2",
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Write the template to `out`, as "qcow2" (compressed) or "raw"; an old file is replaced at the end.

    `cache` keeps packages. Raises BuildError, with the names of packages to install when something lacks.
    """
    disk.require_programs(PROGRAMS)
    say("fetching packages")
    fetched = packages.fetch(WANTED, NEEDLESS, cache)
    with tempfile.TemporaryDirectory(prefix="pileus-system-") as name:
        work = Path(name)
        tree = work / "root"
        say(f"laying out {len(fetched)} packages")
        kernel, modules = _lay_out(fetched, tree, work / "kernel")
        _add_drivers(tree, modules)
        _add_own(tree)
        say("compiling")
        _add_python(tree)
        initrd = work / "initrd"
        initrd.write_bytes(archive(_initial_files(modules)))
        boot = disk.boot_partition(work, kernel, initrd, command_line=COMMAND_LINE, size_mib=BOOT_MIB)
        root, state = work / "root.ext4", work / "state.ext4"
        filesystem.make(tree, root, label="root", uuid=_uuid(1), size_mib=ROOT_MIB, journal=False)
        filesystem.make(None, state, label="state", uuid=_uuid(2), size_mib=STATE_MIB, journal=True)
        parts = (Partition(boot, FAT, bootable=True), Partition(root, LINUX), Partition(state, LINUX))
        whole = disk.assemble(work, parts)
        say("converting")
        disk.finish(work, whole, out, image_format=image_format)
        out.with_name(f"{out.name}.manifest").write_text("".join(f"{line}\n" for line in _manifest(fetched, out)))
    say(f"{out}: {out.stat().st_size / disk.MIB:.1f} MiB")


def _lay_out(fetched: Sequence[Path], tree: Path, kernel_tree: Path) -> tuple[Path, "Modules"]:
    """All packages below `tree`, and the kernel's, whole, below a tree of its own."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for package in fetched:
        if package.name.startswith("linux-image-"):
            packages.lay_out(package, kernel_tree, keep=lambda path: path.startswith(("boot/vm", "usr/lib/modules/")))
        else:
            packages.lay_out(package, tree, keep=_is_kept)
    kernels = list((kernel_tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise BuildError(f"one kernel is needed, not {len(kernels)}")
    version = kernels[0].name.removeprefix("vmlinuz-")
    # Both programs look below /lib only.
    (kernel_tree / "lib").symlink_to("usr/lib")
    run(["depmod", "-b", str(kernel_tree), version])
    return kernels[0], Modules(kernel_tree, version)


class Modules:
    """The kernel's modules, laid out below a directory."""

    def __init__(self, base: Path, version: str) -> None:
        self.version = version
        self._base = base

    def order(self, names: Sequence[str]) -> list[Path]:
        """Files of the modules, with every one after those it depends on; what is built in is left out."""
        order: dict[Path, None] = {}
        for name in names:
            for line in run(["modprobe", "-d", str(self._base), "-S", self.version, "-D", name]).splitlines():
                words = line.split()
                if words and words[0] == "insmod":
                    order[Path(words[1])] = None
        return list(order)

    def place(self, file: Path) -> str:
        """Where a module's file lies in the machine."""
        return "usr/lib/" + str(file).partition("/lib/")[2]

    def copy_lists(self, tree: Path) -> None:
        """What `depmod` needs beside the modules."""
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            here = f"usr/lib/modules/{self.version}/{name}"
            shutil.copyfile(self._base / here, tree / here)


def _is_kept(path: str) -> bool:
    return not any(fnmatch(path, pattern) for pattern in LEFT_OUT)


def _add_drivers(tree: Path, modules: Modules) -> None:
    loaded = modules.order(FIRST)
    early = [file for file in modules.order(EARLY) if file not in loaded]
    for file in dict.fromkeys([*loaded, *early, *modules.order(ON_DEMAND)]):
        target = tree / modules.place(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    modules.copy_lists(tree)
    run(["depmod", "-b", str(tree), modules.version])
    listed = "".join(f"/{modules.place(file)}\n" for file in early)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/modules.order").write_text(listed, encoding="ascii")


def _add_own(tree: Path) -> None:
    """busybox under the names of what no package has put there, then our own files."""
    for name in ("dev", "mnt", "proc", "root", "run", "sys", "tmp", "var/lib/pileus"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "var/run").symlink_to("/run")
    (tree / "etc/mtab").symlink_to("/proc/self/mounts")
    box = tree / "usr/bin/busybox"
    shutil.copyfile(program("busybox"), box)
    box.chmod(0o755)
    for name in run(["busybox", "--list-full"]).split():
        link = tree / packages.merged(name)
        if not link.exists() and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/usr/bin/busybox")
    for source in sorted(FILES.joinpath("root").rglob("*")):
        target = tree / packages.merged(str(source.relative_to(FILES / "root")))
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
            # Only scripts begin with "#!": a checkout or wheel that lost the bit makes no difference.
            target.chmod(0o755 if source.read_bytes().startswith(b"#!") else 0o644)


def _add_python(tree: Path) -> None:
    """The router's code and libraries, and all of Python compiled: nothing can be written there later."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (tree / "usr/lib" / version).is_dir():
        there = ", ".join(sorted(path.name for path in (tree / "usr/lib").glob("python3.*")))
        raise BuildError(f"built by {version}, whose libraries do not fit the distribution's {there or 'none'}")
    home = tree / "usr/lib/pileus"
    own = Path(pileus.__file__).parent
    for name in MODULES_OF_OURS:
        _copy_code(own / name, home / "pileus" / name)
    for library in LIBRARIES:
        found = importlib.util.find_spec(library)
        if found is None or found.origin is None:
            raise BuildError(f"the library {library} is not here")
        _copy_code(Path(found.origin).parent, home / library)
    for place in (f"usr/lib/{version}", "usr/lib/pileus"):
        compiling = [*("-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"), "-s", str(tree)]
        done = subprocess.run(
            [sys.executable, "-I", *compiling, "-p", "/", str(tree / place)],
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")},
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"compiling {place} failed: {done.stdout.strip() or done.stderr.strip()}")


def _copy_code(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
        return
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.suffix in (".py", ".so"):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o644)


def _initial_files(modules: Modules) -> Iterator[Entry]:
    """The initial RAM disk: busybox, the drivers of the disk in the order they load, and `init`."""
    for directory in ("bin", "dev", "mnt", "modules"):
        yield Entry.directory(directory)
    yield Entry.file("bin/busybox", Path(program("busybox")).read_bytes(), 0o755)
    yield Entry.file("init", (FILES / "init").read_bytes(), 0o755)
    # The kernel opens the console before anything can mount devtmpfs.
    yield Entry.character_device("dev/console", 5, 1)
    order = modules.order(FIRST)
    for module in order:
        yield Entry.file(f"modules/{module.name}", module.read_bytes(), 0o644)
    yield Entry.file("modules/order", "".join(f"{module.name}\n" for module in order).encode(), 0o644)


def _manifest(fetched: Sequence[Path], out: Path) -> Iterator[str]:
    yield f"sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}"
    yield f"{SOURCES} {sources()}"
    for package in fetched:
        match = re.fullmatch(r"([^_]+)_([^_]+)_[^_]+\.deb", package.name)
        yield f"{match[1]} {match[2].replace('%3a', ':')}" if match else package.name


def sources() -> str:
    """A checksum of what of ours goes into the image, or decides what does."""
    own = Path(pileus.__file__).parent
    here = [own / name for name in MODULES_OF_OURS] + [Path(__file__).parent]
    files = sorted(file for place in here for file in ([place] if place.is_file() else place.rglob("*")))
    hashed = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            content = file.read_bytes()
            hashed.update(f"{file.relative_to(own)} {len(content)}\n".encode() + content)
    return hashed.hexdigest()


def is_current(out: Path) -> bool:
    """Whether the image was built from the sources that are here."""
    manifest = out.with_name(f"{out.name}.manifest")
    return out.exists() and manifest.exists() and f"{SOURCES} {sources()}\n" in manifest.read_text()


def _uuid(number: int) -> str:
    return f"70696c65-7573-4777-8565-7374000001{number:02}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="pileus.appliance.image.system", description="Build the system VM template.")
    parser.add_argument("out", type=Path, help="the image to write")
    parser.add_argument("--format", choices=("qcow2", "raw"), default="qcow2", help="compressed qcow2, or raw")
    parser.add_argument("--cache", type=Path, default=None, help="where packages are kept (beside the image)")
    chosen = parser.parse_args(arguments)
    cache = chosen.cache or chosen.out.parent / "packages"
    try:
        build(
            chosen.out,
            cache=cache.absolute(),
            image_format=chosen.format,
            say=lambda text: print(text, file=sys.stderr),  # noqa: T201
        )
    except BuildError as error:
        print(f"system template: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
