"""Secondary storage: what keeps a zone's templates and serves them to its hosts."""

from pileus.appliance.storage.options import parse
from pileus.appliance.storage.store import DirectoryStore, Settings


def create(settings: Settings) -> DirectoryStore:
    """The image store named `directory`. Raises ValueError that names a wrong option."""
    return DirectoryStore(settings, parse(settings.options))
