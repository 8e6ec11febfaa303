"""A small process that keeps one vLLM server: starts it, and ends it, with all it started, when its own parent is gone.

Run as a script, by path, with the standard library alone: `keeper.py PARENT_PID GRACE_S COMMAND...`, in a session of
its own. The server is asked to end (SIGTERM) when the keeper is, when the keeper's parent has died in whatever way, and
never by the terminal's Ctrl-C. When the server has ended, or will not, the whole process group is killed, the keeper
included. Knows nothing of vLLM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

POLL_S = 0.2


def keep(parent_pid: int, grace_s: float, command: list[str]) -> None:
    """Run `command` until it ends or may go on no longer. Does not return."""
    asked = False

    def ask_to_end(number: int, frame: object) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and not asked and os.getppid() == parent_pid:
        time.sleep(POLL_S)
    if server.poll() is None:
        server.terminate()
        end = time.monotonic() + grace_s
        while server.poll() is None and time.monotonic() < end:
            time.sleep(POLL_S)
    print(f"keeper: the server ended with {server.poll()}", flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
