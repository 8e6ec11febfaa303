"""Hostile and faulty programs that use too much, end strangely, or never end; and candidates that want a reward for nothing."""

from __future__ import annotations

from tests.sandbox.attack import Attack, hostile

_ENDS = ["ok", "error", "memory", "signal", "timeout", "output_limit"]
_STOPPED = ["error", "memory", "signal", "timeout"]

LOADING: list[Attack] = [
    hostile("fork_bomb", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", status=_STOPPED, no_leftover=True),
    hostile("thread_bomb", "import threading, time\nfor _ in range(10**4): threading.Thread(target=time.sleep, args=(9,)).start()",
            status=_STOPPED),
    hostile("children_with_memory",
            "import os, time\nfor _ in range(20):\n    if os.fork() == 0: x = b'x' * (100 << 20); time.sleep(9)\ntime.sleep(9)",
            status=_STOPPED),
    hostile("children_with_shared_memory",
            "import os, time, mmap\nfor _ in range(20):\n    if os.fork() == 0:\n        m = mmap.mmap(-1, 100 << 20)\n"
            "        for i in range(0, 100 << 20, 4096): m[i] = 1\n        time.sleep(9)\ntime.sleep(9)",
            status=_STOPPED),
    hostile("memory_at_once", "x = bytearray(10**12)", status=["memory"]),
    hostile("many_files", "n = 0\ntry:\n    while n < 10**6: open(f'f{n}', 'w').close(); n += 1\n    print('ESCAPED')\n"
            "except OSError as e: print('stopped', e)", status=["ok", "timeout"], limited_on=["zygote"]),
    hostile("disk_in_parts", "import os\nt = 0\ntry:\n    for n in range(100):\n        t += open(f'/tmp/f{n}', 'wb').write(bytes(10**7))\n"
            "    print('ESCAPED', t)\nexcept OSError as e: print('stopped', t, e)", limited_on=["zygote"]),
    hostile("one_large_file", "f = open('f', 'wb')\ntry:\n    for _ in range(200): f.write(bytes(10**6)); f.flush()\n    print('ESCAPED')\n"
            "except OSError as e: print('stopped', e)"),
    hostile("pipes_filled", "import os\nn = 0\ntry:\n    while n < 10**4:\n        r, w = os.pipe(); os.set_blocking(w, False)\n"
            "        n += os.write(w, bytes(65536)) > 0\n    print('ESCAPED')\nexcept OSError as e: print(n, e)"),
    hostile("both_streams", "import os\nwhile True: os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)", status=["output_limit"]),
    hostile("output_from_children", "import os\nfor _ in range(8):\n    if os.fork() == 0: break\nwhile True: os.write(1, b'x' * 999)",
            status=["output_limit", "error"], no_leftover=True),
    hostile("drip", "import time\nwhile True: print('drip', flush=True); time.sleep(0.05)", status=["timeout"], stdout_contains=["drip"]),
    hostile("terminal_escapes", "print('\\x1b]0;title\\x07\\x1b[2J\\x9b31m', end='')", status=["ok"]),
    hostile("hanging_exit_handler", "import atexit, time\natexit.register(time.sleep, 10**6)\nprint('done')",
            status=["timeout"], stdout_contains=["done"]),
    hostile("exit_handler_exits", "import atexit, os\natexit.register(os._exit, 0)\n1 / 0", status=_ENDS),
    hostile("hook_exits", "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n1 / 0", status=_ENDS),
    hostile("text_as_exit_code", "raise SystemExit('because')", status=["error"], stdout_contains=["because"], exit_code=1),
    hostile("kills_itself", "import os\nos.kill(os.getpid(), 9)\nos.kill(os.getpid(), 15)", status=_ENDS),
    hostile("slow_pattern", "import re\nre.match(r'(a+)+$', 'a' * 99 + 'b')", status=["timeout"]),
    hostile("printed_power", "import sys\nsys.set_int_max_str_digits(0)\nprint(10 ** 10 ** 8)", status=["timeout", "memory"]),
    hostile("recursion", "def f(): f()\nf()", status=["error"]),
    hostile("recursion_unlimited", "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(s, n): return getattr(s, n)\nA().x",
            status=["signal", "error", "memory"]),
    hostile("closed_streams", "import os\nfor fd in range(3): os.close(fd)\nprint('x')", status=["ok", "error"]),
    hostile("another_program", "import os\nos.execv('/bin/true', ['true'])", status=["ok", "error"]),
    hostile("stopped_child", "import os, signal\nif os.fork() == 0:\n    os.kill(os.getpid(), signal.SIGSTOP)\nprint('end')", no_leftover=True),
    hostile("syntax", "def f(:", status=["error"], stdout_contains=["SyntaxError"]),
    hostile("nul", "print(1)\0", status=["error"]),
    hostile("every_call", "import ctypes\nc = ctypes.CDLL(None).syscall\nfor n in range(1000):\n"
            "    if n not in (0, 15, 34, 35, 60, 61, 130, 202, 230, 231, 232, 247, 270, 271, 281): c(n, -1, 0, 0, 0, 0, 0)",
            status=_ENDS),
    hostile("numbers_of_another_kind", "import ctypes\nprint('ESCAPED' if ctypes.CDLL(None).syscall(0x40000000 + 39) > 0 else 'no')"),
]  # fmt: skip

_TASK = {"kind": "grade", "task": "sum_of_squares", "reward": 0}

GRADED: list[Attack] = [
    hostile(name, code, **_TASK)
    for name, code in {
        "replies_itself": "import os\ndef solve(xs):\n    os.write(3, b'{\"value\": 14}')\n    os._exit(0)",
        "replies_twice": "import os\ndef solve(xs):\n    os.write(3, b'{\"value\": 14}')\n    return sum(x * x for x in xs)",
        "replies_later": "import atexit, os\natexit.register(os.write, 3, b' ')\natexit.register(os.write, 3, b'{}')\n"
        "def solve(xs): return sum(x * x for x in xs)",
        "patched_json": "import json\njson.dumps = lambda *a, **k: '{\"value\": 14}'\ndef solve(xs): return 0",
        "patched_harness": "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, '_plain'): m._plain = lambda v, d=0: 14\n"
        "def solve(xs): return 0",
        "another_program": "import os\ndef solve(xs): os.execv('/bin/echo', ['echo', '{\"value\": 14}'])",
        "exits": "def solve(xs): raise SystemExit(0)",
        "exits_at_import": "raise SystemExit(0)\ndef solve(xs): return 0",
        "deep": "def solve(xs):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
        "deep_by_hand": "import os\ndef solve(xs):\n    os.write(3, b'[' * 10**5)\n    os._exit(0)",
        "huge_integer": "def solve(xs): return 10 ** 10**6",
        "huge_text": "def solve(xs): return 'x' * 10**8",
        "text": "def solve(xs): return str(sum(x * x for x in xs))",
        "float": "def solve(xs): return float(sum(x * x for x in xs))",
        "subclass": "class I(int): pass\ndef solve(xs): return I(sum(x * x for x in xs))",
        "generator": "def solve(xs): yield sum(x * x for x in xs)",
        "right_then_hangs": "import threading, time\ndef solve(xs):\n    threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "    return sum(x * x for x in xs)",
        "right_then_crashes": "import atexit, os\natexit.register(os.abort)\ndef solve(xs): return sum(x * x for x in xs)",
        "right_then_fails": "import atexit, os\natexit.register(os._exit, 1)\ndef solve(xs): return sum(x * x for x in xs)",
        "no_function": "solution = 1",
        "only_the_first": "def solve(xs): return 14",
    }.items()
] + [hostile("right", "def solve(xs):\n    print('noise')\n    return sum(x * x for x in xs)", **_TASK | {"reward": 1})]  # fmt: skip
