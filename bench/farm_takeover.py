"""How long a farm of two feels the death of a server: until it is buried, its hosts are held, and it serves again.

python bench/farm_takeover.py [sqlite|postgresql|mariadb] [ROUNDS]
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

from pileus.testing import servers
from pileus.testing.farm import Farm, ServerProcess, Shape, eventually

GOAL_SECONDS = 8.0
"""Six missed beats, and a look."""


def main(arguments: list[str]) -> int:
    """Measure, and print one JSON object last."""
    kind = arguments[0] if arguments else "postgresql"
    rounds = int(arguments[1]) if len(arguments) > 1 else 3
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    buried: list[float] = []
    held: list[float] = []
    resumed: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        url = f"sqlite:///{directory / 'farm.db'}" if kind == "sqlite" else getattr(servers, kind)().create("pileus_b")
        with Farm(directory, url, Shape(agents=4, hosts_of_agent=2)) as farm:
            farm.start()
            farm.lay_out()
            for number in range(rounds):
                victim, other = farm.servers[number % 2], farm.servers[1 - number % 2]
                before = told(other, "farm.buried")
                began = time.monotonic()
                victim.kill()
                names = {other.name}
                eventually("hosts are held", lambda names=names: set(farm.holders().values()) == names)
                held.append(time.monotonic() - began)
                eventually("it is buried", lambda other=other, before=before: told(other, "farm.buried") > before)
                buried.append(time.monotonic() - began)
                began = time.monotonic()
                victim.start()
                victim.wait_ready()
                resumed.append(time.monotonic() - began)
    print(
        f"buried after {spread(buried)}; its hosts held elsewhere after {spread(held)}; serving again {spread(resumed)}"
    )
    worst = max(buried)
    found = {"name": f"farm_takeover_{kind}", "value": round(worst, 2), "unit": "s", "goal": GOAL_SECONDS}
    print(json.dumps({**found, "ok": worst <= GOAL_SECONDS}))
    return 0


def told(server: ServerProcess, what: str) -> int:
    """How often the server said it."""
    return server.log.read_text().count(f'"{what}"')


def spread(seconds: list[float]) -> str:
    """Least, median and most."""
    return f"{min(seconds):.2f} to {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
