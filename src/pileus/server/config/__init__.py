"""Settings: `value(tx, keys.expunge_delay)` is typed and live on every server as soon as a change is committed."""

from pileus.server.config import accepted, keys
from pileus.server.config.added import add, added
from pileus.server.config.key import Key, every, is_used
from pileus.server.config.values import change, text_of, value

__all__ = ["Key", "accepted", "add", "added", "change", "every", "is_used", "keys", "text_of", "value"]
