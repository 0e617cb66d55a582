"""An ext4 file system from a directory: every inode root's, of one time, and laid out in one order.

`mke2fs -d` takes files in the order in which this machine's own file system lists them; here they go in by name.
"""

import stat
from pathlib import Path

from pileus.appliance.image.disk import MIB, run


def make(tree: Path | None, out: Path, *, label: str, uuid: str, size_mib: int, journal: bool) -> None:
    """Write the file system, with what is in `tree`, to `out`. Raises BuildError when it has no room.

    Names in it hold neither quotes nor line ends.
    """
    with out.open("wb") as file:
        file.truncate(size_mib * MIB)
    features = ["-O", "has_journal" if journal else "^has_journal"]
    seed = f"hash_seed={uuid},lazy_itable_init=0,root_owner=0:0"
    ext4 = ["-t", "ext4", "-m", "0", "-b", "4096", "-I", "256", *features, "-L", label, "-U", uuid, "-E", seed]
    run(["mke2fs", "-q", "-F", *ext4, str(out)])
    if tree is not None:
        script = out.with_name(f"{out.name}.debugfs")
        script.write_text("\n".join([*_commands(tree), ""]), encoding="utf-8")
        run(["debugfs", "-w", "-f", str(script), str(out)], banner="debugfs 1.")
        script.unlink()


def _commands(tree: Path) -> list[str]:
    lines = []
    for path in sorted(tree.rglob("*")):
        name = "/" + str(path.relative_to(tree))
        if path.is_symlink():
            lines.append(f'symlink "{name}" "{path.readlink()}"')
        elif path.is_dir():
            lines += [f'mkdir "{name}"', f'set_inode_field "{name}" mode 0{path.stat().st_mode:o}']
        else:
            lines += [f'write "{path}" "{name}"', f'set_inode_field "{name}" mode 0{_file_mode(path):o}']
    return lines


def _file_mode(path: Path) -> int:
    return stat.S_IFREG | stat.S_IMODE(path.stat().st_mode)
