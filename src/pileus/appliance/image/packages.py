"""Packages of the distribution for an image: chosen, fetched and laid out without being installed.

apt says what the wanted packages need, from a machine that has nothing, and fetches it into a directory of its own.
What serves only installation stays away: no script of a package ever runs.
"""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pileus.appliance.image.disk import BuildError, program, run

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Directories that are links into /usr."""


def fetch(wanted: Sequence[str], needless: Sequence[str], cache: Path) -> list[Path]:
    """The files of the wanted packages and of all that they need, but for `needless` (patterns of names), by name.

    They are kept in `cache`: a second call fetches only what is newer. Raises BuildError with what apt said.
    """
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    nothing = cache / "status"
    nothing.write_bytes(b"")
    # Nothing counts as installed, so that everything is named whatever this machine has.
    apt = [
        *("apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", f"Dir::State::status={nothing}"),
        *("-o", f"Dir::Cache::archives={cache / 'archives'}", "-o", "Debug::NoLocking=1"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    # A listing leaves out what is in the cache already, so it is made with an empty one.
    listed = run([*apt, "-qq", "--print-uris", "-o", f"Dir::Cache::archives={cache / 'none'}", *wanted])
    names = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    if not names:
        raise BuildError(f"apt knows no packages {' '.join(wanted)}: apt-get update")
    chosen = sorted(name for name in names if not any(fnmatch(name.split("_")[0], pattern) for pattern in needless))
    if any(not (cache / "archives" / name).exists() for name in chosen):
        run([*apt, "--download-only", *wanted])
    return [cache / "archives" / name for name in chosen]


def lay_out(package: Path, tree: Path, *, keep: Callable[[str], bool]) -> None:
    """Put a package's files for which `keep` (given the path in the tree) holds below `tree`, all owned by us.

    No script and no device comes along, and no program that gives its caller another user's rights.
    """
    unpacking = subprocess.run(
        [program("dpkg-deb"), "--fsys-tarfile", str(package)], capture_output=True, check=False
    )  # fmt: skip
    if unpacking.returncode != 0:
        raise BuildError(f"dpkg-deb cannot read {package.name}: {unpacking.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(unpacking.stdout)) as archive:
        for member in archive:
            path = merged(member.name)
            if path and keep(path):
                _place(archive, member, tree / path, tree)


def merged(name: str) -> str:
    """The path of a package's file in a tree whose /bin, /lib … are links into /usr; "" for the root itself."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        raise BuildError(f"a package has a file {name}")
    path = "/".join(part for part in parts if part != ".")
    return f"usr/{path}" if path.split("/")[0] in MERGED else path


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, tree: Path) -> None:
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.unlink(missing_ok=True)
        target.symlink_to(member.linkname)
    elif member.islnk():
        os.link(tree / merged(member.linkname), target)
    elif member.isreg() and (file := archive.extractfile(member)) is not None:
        target.write_bytes(file.read())
        target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
