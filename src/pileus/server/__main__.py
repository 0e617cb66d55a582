"""`python -m pileus.server --config FILE` runs a management server.

What is done here is done before anything else is loaded, because it makes a third of the start.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Within the block, importing the package says that it is not installed."""
    kept = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if kept is not None:
            sys.modules[name] = kept


# Nearly all that is loaded stays for good: looking for garbage in it again and again is in vain.
gc.disable()
# The log draws tracebacks with rich wherever there is rich. Ours are JSON, and rich with what it needs is 70 modules.
with _without("rich"):
    importlib.import_module("structlog")
main = importlib.import_module("pileus.server.main").main
gc.freeze()
gc.enable()

if __name__ == "__main__":
    sys.exit(main())
