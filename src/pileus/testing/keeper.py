"""Keeps one program alive for as long as whoever started it: `python keeper.py DIRECTORY SIGNAL COMMAND…`.

Standard input is the life line: at its end, also that of a killed test run, the program gets the signal, and its
directory is removed. Imports nothing of ours, so that it starts at once and outlives a broken tree.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE_SECONDS = 20.0
LOG = "log"
_TOLD_BYTES = 4000


def main(arguments: list[str]) -> int:
    """Run the command until standard input ends. Its log is told on standard output when it ends by itself."""
    directory, number, *command = arguments
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    log = Path(directory, LOG)
    with log.open("wb") as out:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    ended = os.pidfd_open(program.pid)
    try:
        ready, _, _ = select.select([sys.stdin, ended], [], [])
        if ended in ready:
            program.wait()
            sys.stdout.write(log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace"))
            return 1
        program.send_signal(int(number))
        try:
            program.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        return 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
