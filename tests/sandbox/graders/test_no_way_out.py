"""No candidate can choose to be left out of the scores, whatever it does to its own process: an infrastructure failure
is never its doing. A candidate that expects to be wrong would rather have no reward than 0.
"""

from __future__ import annotations

import pytest

from agentrl.sandbox import Limits
from agentrl.sandbox.grading import CodeTask, FunctionCase, FunctionTask, Grader, TextCase, TextTask

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(wall_s=1, cpu_s=0.7, address_bytes=512 << 20, memory_bytes=400 << 20, disk_bytes=16 << 20)
WAYS = {
    "kills all": "import os\nos.kill(-1, 9)\nos.kill(os.getpid(), 9)",
    "kills its group": "import os\nos.killpg(0, 9)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "stops": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nwhile True: pass",
    "closes all": "import os\nos.closerange(0, 1 << 16)",
    "closes all and sleeps": "import os, time\nos.closerange(0, 1 << 16)\ntime.sleep(99)",
    "forks for ever": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads for ever": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "no limits left": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\nopen('/dev/null')",
    "no stack": "import resource, sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "fills memory": "import mmap\nkept = [mmap.mmap(-1, 1 << 28, flags=0x8022) for _ in range(99)]",
    "fills disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * (1 << 20))",
    "ignores signals": "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
                       "    except (OSError, ValueError): pass\nwhile True: pass",
    "replaced by another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'kill -9 $$'])",
    "fills its descriptors": "import os\nfor fd in range(3, 9):\n    try: os.write(fd, b'R' * 50000)\n"
                             "    except OSError: pass",
    "words of the protocol": "import os\nfor fd in range(1, 9):\n    for word in (b'F', b'D{}', b'R', b'K'):\n"
                             "        try: os.write(fd, word)\n        except OSError: pass",
}  # fmt: skip
FUNCTION_TASK = FunctionTask("solve", [FunctionCase((1,), 2)])
CODE_TASK = CodeTask(["solve"], "def check(candidate):\n    assert candidate(1) == 2")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_function_that_is_called_is_wrong_and_not_left_out(grader: Grader, way: str) -> None:
    assert (await grader.grade(_in_a_call(way), FUNCTION_TASK)).passed is False


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_anything_is_wrong_and_not_left_out(grader: Grader, way: str) -> None:
    assert (await grader.grade(_in_a_call(way), CODE_TASK)).passed is False
    assert (await grader.grade(f"{way}\nprint(3)", TextTask([TextCase("", "2")]))).passed is False
    for task in (FUNCTION_TASK, CODE_TASK):
        assert (await grader.grade(f"{way}\ndef solve(n): return 3", task)).passed is False


def _in_a_call(way: str) -> str:
    return "def solve(n):\n" + "".join(f"    {line}\n" for line in way.splitlines()) + "    return 3"
