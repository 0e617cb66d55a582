"""A directory of images: `images/NAME` are complete, `facts/NAME` says so, `partial/` is what is being made.

An image is complete when its facts are written, which is the last thing a download does. Whatever else is found when
the store opens is thrown away, so no half file is ever served.
"""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from pileus.wire.operations import ImageFacts, Reason, Refused


class Directory:
    """Blocking; for threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.images = path / "images"
        self._facts = path / "facts"
        self._partial = path / "partial"

    def open(self) -> None:
        """Make what is missing and throw away what is incomplete."""
        for part in (self.images, self._facts, self._partial):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
        for half in self._partial.iterdir():
            half.unlink()
        for image in self.images.iterdir():
            if self.facts(image.name) is None:
                image.unlink()
        for note in self._facts.iterdir():
            if not (self.images / note.name).exists():
                note.unlink()

    def facts(self, name: str) -> ImageFacts | None:
        """Facts of a complete image, without its URL; None when there is none."""
        try:
            stored = (self._facts / name).read_bytes()
            if (self.images / name).exists():
                return msgspec.json.decode(stored, type=ImageFacts)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return None

    def partial(self, name: str) -> Path:
        """A file to write into; nothing is there."""
        path = self._partial / name
        path.unlink(missing_ok=True)
        return path

    def free_bytes(self) -> int:
        """Room on the file system."""
        return shutil.disk_usage(self._partial).free

    def space_bytes(self) -> tuple[int, int]:
        """All room of the file system, and what of it is in use."""
        usage = shutil.disk_usage(self._path)
        return usage.total, usage.used

    def keep(self, source: Path, name: str, virtual_bytes: int) -> ImageFacts:
        """Make a finished partial file the image `name`; durable when this returns."""
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        facts = ImageFacts(virtual_bytes, source.stat().st_size, sha256)
        note = self.partial(f"{name}.facts")
        with note.open("wb") as written:
            written.write(msgspec.json.encode(facts))
            written.flush()
            os.fsync(written.fileno())
        source.replace(self.images / name)
        _sync(self.images)
        note.replace(self._facts / name)
        _sync(self._facts)
        return facts

    def delete(self, name: str) -> None:
        """Have no image `name`. The facts go first: from then on it is incomplete."""
        (self._facts / name).unlink(missing_ok=True)
        _sync(self._facts)
        (self.images / name).unlink(missing_ok=True)
        for half in self._partial.glob(f"{name}.*"):
            half.unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """Throw away what a failed download left."""
        for half in self._partial.glob(f"{name}.*"):
            half.unlink(missing_ok=True)


class Writer:
    """Writes a stream to a file, leaving holes for zeros. Raises Refused: NO_ROOM when the file system is full."""

    _BLOCK = 4096
    _ZEROS = bytes(_BLOCK)

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Append."""
        view = memoryview(piece)
        try:
            for at in range(0, len(view), self._BLOCK):
                block = view[at : at + self._BLOCK]
                if block == self._ZEROS[: len(block)]:
                    self._file.seek(len(block), os.SEEK_CUR)
                else:
                    self._file.write(block)
        except OSError as error:
            raise Refused(Reason.NO_ROOM, f"secondary storage cannot take the image: {error.strerror}") from error
        self.size += len(piece)

    def close(self) -> None:
        """Give the file its full length. Raises Refused: NO_ROOM."""
        try:
            self._file.truncate(self.size)
        except OSError as error:
            raise Refused(Reason.NO_ROOM, f"secondary storage cannot take the image: {error.strerror}") from error
        finally:
            self._file.close()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
