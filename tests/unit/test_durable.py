"""Flushes that several commits share."""

import os
import threading
from pathlib import Path

import pytest

from pileus.server.db.durable import DiskFailed, LogFlush

SECONDS = 20.0


class Disk:
    """Stands for `os.fdatasync`: each flush waits until it is let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = True) -> None:
        self.flushes = 0
        self.fails = False
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0 if held else 1000)
        monkeypatch.setattr(os, "fdatasync", self._flush)

    def _flush(self, _file: int) -> None:
        self.flushes += 1
        self.began.release()
        assert self.go_on.acquire(timeout=SECONDS)
        if self.fails:
            raise OSError(5, "input/output error")


@pytest.fixture
def log(tmp_path: Path) -> LogFlush:
    (tmp_path / "a.db-wal").write_bytes(b"log")
    return LogFlush(tmp_path / "a.db")


def test_commits_that_come_during_a_flush_share_the_next(log: LogFlush, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    first = threading.Thread(target=log.wait, args=(log.written(),))
    first.start()
    assert disk.began.acquire(timeout=SECONDS)
    later = [threading.Thread(target=log.wait, args=(log.written(),)) for _ in range(5)]
    for thread in later:
        thread.start()
    disk.go_on.release()
    assert disk.began.acquire(timeout=SECONDS)
    first.join(SECONDS)
    assert not first.is_alive(), "its flush is over"
    assert all(thread.is_alive() for thread in later), "theirs has only begun: the one before may not cover them"
    disk.go_on.release()
    for thread in later:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert disk.flushes == 2


def test_nothing_new_is_no_reason_to_flush(log: LogFlush, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, held=False)
    log.wait()
    assert disk.flushes == 0
    log.wait(log.written())
    log.wait()
    assert disk.flushes == 1


def test_after_a_failed_flush_nothing_is_acknowledged(log: LogFlush, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, held=False)
    disk.fails = True
    with pytest.raises(DiskFailed):
        log.wait(log.written())
    disk.fails = False
    with pytest.raises(DiskFailed):
        log.wait(log.written())
    assert disk.flushes == 1


def test_a_log_made_anew_is_the_one_that_is_flushed(log: LogFlush, tmp_path: Path) -> None:
    log.wait(log.written())
    (tmp_path / "new").write_bytes(b"another")
    (tmp_path / "new").rename(tmp_path / "a.db-wal")
    log.wait(log.written())
    assert os.fstat(log._file or 0).st_ino == (tmp_path / "a.db-wal").stat().st_ino
    log.close()
