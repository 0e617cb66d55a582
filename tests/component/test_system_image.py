"""What the recipe of the system VM is made of: packages laid out, file systems, and what is not on the disk."""

import subprocess
from pathlib import Path

import pytest

from pileus.appliance.image import filesystem, packages, system
from pileus.appliance.image.disk import BuildError

IMAGE = Path(__file__).parents[2] / "build/systemvm.qcow2"
UUID = "70696c65-7573-4777-8565-737400000199"


def package(directory: Path) -> Path:
    """A package with what must be moved, kept and left."""
    root = directory / "content"
    for name, text in (
        ("DEBIAN/control", "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: n <n@x.test>\nDescription: x\n"),
        ("DEBIAN/postinst", "#!/bin/sh\ntouch /tmp/never\n"),
        ("bin/tool", "#!/bin/sh\n"),
        ("usr/bin/other", "x"),
        ("usr/share/doc/toy/README", "long"),
        ("lib/toy/part", "y"),
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "DEBIAN/postinst").chmod(0o755)
    (root / "bin/tool").chmod(0o4755)
    (root / "usr/bin/alias").symlink_to("tool")
    made = directory / "toy_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(made)], check=True, capture_output=True)
    return made


def test_a_package_is_laid_out_in_a_merged_tree_without_what_is_not_kept(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    packages.lay_out(package(tmp_path), tree, keep=lambda path: not path.startswith("usr/share/doc"))
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    assert files == {"usr/bin/tool", "usr/bin/other", "usr/bin/alias", "usr/lib/toy/part"}
    # Nobody else's rights come along.
    assert (tree / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (tree / "usr/bin/other").stat().st_mode & 0o7777 == 0o644
    assert (tree / "usr/bin/alias").readlink() == Path("tool")


def test_a_broken_package_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken_1_all.deb"
    broken.write_bytes(b"nothing")
    with pytest.raises(BuildError, match="broken_1_all"):
        packages.lay_out(broken, tmp_path / "tree", keep=lambda path: True)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./bin/sh", "usr/bin/sh"),
        ("./lib64/ld.so", "usr/lib64/ld.so"),
        ("./usr/bin/x", "usr/bin/x"),
        ("./etc/x", "etc/x"),
        ("./", ""),
        ("./library/x", "library/x"),
    ],
)
def test_directories_that_are_links_lead_into_usr(name: str, path: str) -> None:
    assert packages.merged(name) == path


@pytest.mark.parametrize("name", ["/etc/passwd", "./../x", "./a/../../x"])
def test_a_file_outside_the_tree_is_refused(name: str) -> None:
    with pytest.raises(BuildError):
        packages.merged(name)


def test_a_file_system_does_not_show_in_what_order_its_files_were_made(tmp_path: Path) -> None:
    names = [f"d{number % 7}/file {number}" for number in range(60)]
    images = []
    for turn, order in enumerate((names, names[::-1])):
        tree = tmp_path / f"tree{turn}"
        for name in order:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
            (tree / name).chmod(0o755 if name.endswith("1") else 0o644)
        (tree / "link").symlink_to("d1/file 1")
        out = tmp_path / f"{turn}.ext4"
        filesystem.make(tree, out, label="toy", uuid=UUID, size_mib=8, journal=False)
        images.append(out.read_bytes())
    assert images[0] == images[1]
    out = tmp_path / "0.ext4"
    assert subprocess.run(["e2fsck", "-fn", str(out)], capture_output=True, check=False).returncode == 0
    shown = subprocess.run(["debugfs", "-R", 'stat "/d1/file 1"', str(out)], capture_output=True, text=True, check=True)
    assert "Mode:  0755" in shown.stdout
    assert "User:     0   Group:     0" in shown.stdout


def test_a_file_system_without_room_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(bytes(range(256)) * 40_000)
    with pytest.raises(BuildError):
        filesystem.make(tmp_path / "tree", tmp_path / "out", label="toy", uuid=UUID, size_mib=4, journal=False)


def test_an_image_of_other_sources_is_not_current(tmp_path: Path) -> None:
    out = tmp_path / "image"
    assert not system.is_current(out)
    out.touch()
    (tmp_path / "image.manifest").write_text(f"sha256 x\nsources {system.sources()}\nbash 1\n")
    assert system.is_current(out)
    (tmp_path / "image.manifest").write_text(f"sha256 x\nsources {'0' * 64}\n")
    assert not system.is_current(out)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system of the image that was built, cut out of the disk."""
    if not system.is_current(IMAGE):
        pytest.skip("there is no system template of these sources: make systemvm")
    directory = tmp_path_factory.mktemp("system")
    raw, root = directory / "raw", directory / "root.ext4"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(IMAGE), str(raw)], check=True)
    with raw.open("rb") as disk:
        disk.seek((1 + system.BOOT_MIB) << 20)
        root.write_bytes(disk.read(system.ROOT_MIB << 20))
    return root


def inside(root: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, str(root)], capture_output=True, text=True, check=True).stdout


def test_nobody_can_log_in(root: Path) -> None:
    accounts = [line.split(":") for line in inside(root, "cat /etc/passwd").splitlines()]
    assert {account[1] for account in accounts} == {"*"}
    assert {account[6] for account in accounts} == {"/bin/false"}
    assert inside(root, "cat /etc/shadow") == ""
    assert "getty" not in inside(root, "cat /etc/inittab")
    assert "sshd" not in inside(root, "ls -p /usr/sbin")


def test_no_program_gives_its_caller_another_users_rights(root: Path) -> None:
    for directory in ("/usr/bin", "/usr/sbin", "/usr/lib"):
        modes = [line.split("/")[2] for line in inside(root, f"ls -p {directory}").splitlines() if line.count("/") > 4]
        assert len(modes) > 5
        assert [mode for mode in modes if int(mode, 8) & 0o6000] == []


def test_the_image_is_small(root: Path) -> None:
    assert IMAGE.stat().st_size < 60 << 20
