"""Whether a process has ended, whatever its kernel says of its number."""

import errno
import os
import subprocess

import pytest

from pileus.appliance.router.processes import ended

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_leader_whose_session_lives_on_has_ended() -> None:
    leader = subprocess.Popen(  # noqa: ASYNC220
        ["sh", "-c", "cat & exec true"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        assert leader.wait() == 0
        assert await ended(leader.pid, 1.0)
    finally:
        assert leader.stdin is not None
        leader.stdin.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESRCH])
async def test_older_kernels_say_it_otherwise(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert await ended(4711)


async def test_another_failure_is_none_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        await ended(4711)
