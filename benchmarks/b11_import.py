"""B11: how long `import agentrl` and `agentrl --help` take, in fresh processes, beside `import trl`.

Floor: `python -c pass`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time

from report import Row, arguments, repeat, show


def timed(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    options = arguments(__doc__ or "")
    times = 3 if options.quick else 9
    floor, _ = repeat(lambda: timed("-c", "pass"), times)
    peer, peer_name = None, "trl is not installed"
    if importlib.util.find_spec("trl"):
        peer, _ = repeat(lambda: timed("-c", "import trl"), times)
        peer_name = "import trl"
    rows = []
    for name, command in {
        "import agentrl": ("-c", "import agentrl"),
        "agentrl --help": ("-m", "agentrl", "--help"),
    }.items():
        median, p95 = repeat(lambda command=command: timed(*command), times)
        rows.append(Row(name, "s", median, p95, peer, peer_name, floor))
    show("B11 import", rows, options.json)


if __name__ == "__main__":
    main()
