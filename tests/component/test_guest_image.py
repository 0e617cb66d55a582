"""The small guest template as an image file: built twice, looked into, never booted here."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.appliance.image import disk, guest
from pileus.appliance.image.guest import BuildError, build, find_kernel, main, module_order
from pileus.appliance.image.initramfs import Entry, archive

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("image") / "guest.qcow2"
    build(out)
    return out


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "guest.img"
    build(out, image_format="raw")
    return out


def output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_template_is_small_and_stands_alone(image: Path) -> None:
    facts = json.loads(output("qemu-img", "info", "--output=json", str(image)))
    assert facts["format"] == "qcow2"
    assert "backing-filename" not in facts
    assert facts["virtual-size"] < 100 * MIB
    assert image.stat().st_size <= 25 * MIB
    assert list(image.parent.iterdir()) == [image]


def test_two_builds_are_equal(image: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.qcow2"
    build(again)
    assert again.read_bytes() == image.read_bytes()


def test_raw_and_qcow2_hold_the_same_disk(image: Path, raw: Path) -> None:
    assert "identical" in output("qemu-img", "compare", str(image), str(raw))


@pytest.fixture(scope="module")
def root(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system, cut out of the disk."""
    start = 1 + guest.BOOT_MIB
    path = tmp_path_factory.mktemp("root") / "root.ext4"
    path.write_bytes(raw.read_bytes()[start * MIB : (start + guest.ROOT_MIB) * MIB])
    yield path


def test_the_root_file_system_is_sound(root: Path) -> None:
    assert subprocess.run(["e2fsck", "-fn", str(root)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/shadow", "0600"),
        ("/etc/rcS", "0755"),
        ("/etc/passwd", "0644"),
        ("/etc/init.d/cloud-set-guest-password", "0755"),
        ("/www/cgi-bin/status", "0755"),
        ("/root", "0700"),
    ],
)
def test_files_belong_to_root_with_their_modes(root: Path, path: str, mode: str) -> None:
    shown = output("debugfs", "-R", f"stat {path}", str(root))
    assert f"Mode:  {mode}" in shown
    assert "User:     0   Group:     0" in shown


def test_every_script_is_one_that_busybox_understands() -> None:
    scripts = [path for path in guest.FILES.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!")]
    assert len(scripts) >= 10
    for script in scripts:
        subprocess.run(["busybox", "sh", "-n", str(script)], check=True, timeout=10)


def test_modules_come_after_what_they_need() -> None:
    _, version = find_kernel(Path("/boot"), Path("/lib/modules"))
    names = [path.name for path in module_order(version, ["virtio_net", "virtio_blk", "ext4"])]
    assert names.index("virtio_ring.ko") < names.index("virtio.ko") < names.index("virtio_net.ko")
    assert len(names) == len(set(names))
    assert "ext4.ko" not in names


def test_the_newest_kernel_with_modules_is_taken(tmp_path: Path) -> None:
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.1.0-11-cloud-amd64", "6.1.0-99-amd64"):
        (tmp_path / f"vmlinuz-{version}").touch()
        (tmp_path / version).mkdir()
        if "-11-" not in version:
            (tmp_path / version / "modules.dep").touch()
    assert find_kernel(tmp_path, tmp_path)[1] == "6.1.0-10-cloud-amd64"


def test_without_a_kernel_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="linux-image-cloud-amd64"):
        find_kernel(tmp_path, tmp_path)


def test_without_its_programs_every_package_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(disk, "SYSTEM_PATH", str(tmp_path))
    assert main([str(tmp_path / "out.qcow2")]) == 1
    complaint = capsys.readouterr().err
    for package in ("busybox-static", "mtools", "syslinux", "dosfstools", "e2fsprogs", "qemu-utils", "kmod", "fdisk"):
        assert package in complaint
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_fails_is_quoted_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guest, "ROOT_MIB", 1)
    with pytest.raises(BuildError, match="mke2fs"):
        build(tmp_path / "out.qcow2")
    assert list(tmp_path.iterdir()) == []


def test_an_initial_ram_disk_is_an_archive_that_others_unpack(tmp_path: Path) -> None:
    entries = [Entry.directory("bin"), Entry.file("bin/one", b"12345", 0o755), Entry.character_device("console", 5, 1)]
    unpack = ["busybox", "cpio", "-i"]
    subprocess.run(unpack, input=archive(entries), check=True, timeout=10, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "bin/one").read_bytes() == b"12345"
    assert (tmp_path / "bin/one").stat().st_mode == 0o100755
    console = (tmp_path / "console").stat()
    assert (os.major(console.st_rdev), os.minor(console.st_rdev)) == (5, 1)
