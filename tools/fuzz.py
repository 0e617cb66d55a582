"""Call every command with right, wrong and hostile values and say what came back: tools/fuzz.py --calls 100000.

Each batch works on a cloud of its own. Exits 1 if an answer was internal (530), malformed, unnamed, leaking or late.
"""

import argparse
import logging
import sys
import time
from collections import Counter

import structlog

from pileus.server.registered import register_all
from pileus.testing.fuzz import Fuzzer, cheap_hashes, run
from pileus.testing.tenancy import Tenancy
from pileus.testing.world import World

BATCH = 5000


def main() -> int:
    """Run batches until the calls are made."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--errors", action="store_true", help="show the server's log of errors")
    chosen = options.parse_args()
    level = logging.ERROR if chosen.errors else logging.CRITICAL
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    register_all()
    cheap_hashes()
    by_status: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    slowest, made, began = 0.0, 0, time.monotonic()
    while made < chosen.calls:
        size = min(BATCH, chosen.calls - made)
        with World.open() as world:
            fuzzer = Fuzzer(Tenancy.settle(world))
            try:
                report = run(fuzzer, size, chosen.seed + made)
            finally:
                fuzzer.close()
        made += report.calls
        by_status.update(report.by_status)
        if report.slowest > slowest:
            slowest = report.slowest
            print(f"slowest so far: {slowest:.2f} s: {report.slowest_query[:300]!r}", file=sys.stderr)
        for attempt, told, wrong in report.complaints:
            kinds.update(wrong)
            sent = {name: value[:60] for name, value in attempt.sent.items()}
            print(f"{attempt.spec.name} as {attempt.who}: {wrong} {told.body[:300]!r}\n  sent {sent}", file=sys.stderr)
        print(f"{made} calls, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"{made} calls in {time.monotonic() - began:.0f} s, slowest {slowest:.2f} s")
    print("answers by code: " + ", ".join(f"{code}: {n}" for code, n in sorted(by_status.items())))
    print(f"530: {by_status[530]}; complaints: {sum(kinds.values())} {dict(kinds) if kinds else ''}")
    return 1 if kinds or by_status[530] else 0


if __name__ == "__main__":
    sys.exit(main())
