"""What a system VM reads of its SMBIOS: strings of ours, and nothing else."""

from pathlib import Path

import pytest

from pileus.appliance.machine.arguments import Arguments, NoArguments, read, strings

GUEST, PUBLIC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def table(*texts: str) -> bytes:
    """A structure of type 11 as the firmware lays it out."""
    head = bytes([11, 5, 0, 1, len(texts)])
    return head + b"".join(text.encode() + b"\0" for text in texts) + b"\0"


def entries(directory: Path, *tables: bytes) -> Path:
    for number, content in enumerate(tables):
        (directory / f"11-{number}").mkdir()
        (directory / f"11-{number}/raw").write_bytes(content)
    (directory / "1-0").mkdir()
    (directory / "1-0/raw").write_bytes(table("pileus.name=r-9-VM"))
    return directory


def test_the_strings_follow_the_formatted_part() -> None:
    assert strings(table("one", "two words")) == ["one", "two words"]
    assert strings(table("one") + b"next\0\0") == ["one"]
    assert strings(b"\x0b\x05\0\0\0\0\0") == []
    assert strings(b"") == []


def test_the_arguments_may_be_in_several_tables_among_others(tmp_path: Path) -> None:
    told = entries(
        tmp_path, table("vendor=x", f"pileus.guest={GUEST}"), table("pileus.name=r-5-VM", f"pileus.public={PUBLIC}")
    )
    assert read(told) == Arguments("r-5-VM", GUEST, PUBLIC)


def test_a_router_may_have_no_public_side(tmp_path: Path) -> None:
    assert read(entries(tmp_path, table("pileus.name=r-5-VM", f"pileus.guest={GUEST}"))).public == ""


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "name"),
        ((f"pileus.guest={GUEST}",), "name"),
        (("pileus.name=a b", f"pileus.guest={GUEST}"), "name"),
        (("pileus.name=r-5-VM",), "guest"),
        (("pileus.name=r-5-VM", "pileus.guest=nonsense"), "guest"),
        (("pileus.name=r-5-VM", f"pileus.guest={GUEST}", "pileus.public=02:00"), "public"),
        (("name=r-5-VM", f"guest={GUEST}"), "name"),
    ],
)
def test_a_machine_that_was_told_too_little_says_what_lacks(tmp_path: Path, texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(NoArguments, match=said):
        read(entries(tmp_path, table(*texts)))


def test_a_machine_without_tables_was_told_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoArguments):
        read(tmp_path / "none")
