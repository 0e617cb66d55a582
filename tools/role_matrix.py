"""The role matrix: --write calls every command as everybody and writes it, --check only looks for missing rows."""

import argparse
import logging
import sys
from pathlib import Path

import structlog

from pileus.server.registered import register_all
from pileus.testing.roles import Callers, leaks, matrix, missing, written
from pileus.testing.tenancy import Tenancy
from pileus.testing.world import World

FILE = Path(__file__).parent.parent / "tests" / "component" / "role_matrix.txt"


def main() -> int:
    """Write or check the committed matrix; exits 1 if a row is missing or an id of another tenant can be used."""
    options = argparse.ArgumentParser(description=__doc__)
    doing = options.add_mutually_exclusive_group(required=True)
    doing.add_argument("--write", action="store_true")
    doing.add_argument("--check", action="store_true")
    chosen = options.parse_args()
    register_all()
    if chosen.check:
        found = missing(FILE.read_text())
        for one in found:
            print(f"{one}; run tools/role_matrix.py --write and review the difference")
        return 1 if found else 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with World.open() as world:
        rows = matrix(Callers(Tenancy.settle(world)))
    FILE.write_text(written(rows))
    found = leaks(rows)
    for one in found:
        print(one)
    print(f"{len(rows)} commands, {sum(len(row.foreign) for row in rows)} id parameters, {len(found)} leaks")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
