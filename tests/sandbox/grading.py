"""Candidates for `sum_of_squares` that want a reward for nothing, and two that deserve one."""

from __future__ import annotations

from tests.sandbox.attack import Attack, candidate

GRADED: list[Attack] = [
    candidate(
        "replies_itself",
        """
            import os
            def solve(xs):
                os.write(3, b'{"value": 14}')
                os._exit(0)
        """,
    ),
    candidate(
        "replies_twice",
        """
            import os
            def solve(xs):
                os.write(3, b'{"value": 14}')
                return sum(x * x for x in xs)
        """,
    ),
    candidate(
        "replies_later",
        """
            import atexit, os
            atexit.register(os.write, 3, b' ')
            atexit.register(os.write, 3, b'{}')
            def solve(xs): return sum(x * x for x in xs)
        """,
    ),
    candidate(
        "patched_json",
        """
            import json
            json.dumps = lambda *a, **k: '{"value": 14}'
            def solve(xs): return 0
        """,
    ),
    candidate(
        "patched_harness",
        """
            import sys
            for m in list(sys.modules.values()):
                if hasattr(m, '_plain'): m._plain = lambda v, d=0: 14
            def solve(xs): return 0
        """,
    ),
    candidate(
        "another_program",
        """
            import os
            def solve(xs): os.execv('/bin/echo', ['echo', '{"value": 14}'])
        """,
    ),
    candidate(
        "exits",
        "def solve(xs): raise SystemExit(0)",
    ),
    candidate(
        "exits_at_import",
        """
            raise SystemExit(0)
            def solve(xs): return 0
        """,
    ),
    candidate(
        "deep",
        """
            def solve(xs):
                x = []
                for _ in range(10**5): x = [x]
                return x
        """,
    ),
    candidate(
        "deep_by_hand",
        """
            import os
            def solve(xs):
                os.write(3, b'[' * 10**5)
                os._exit(0)
        """,
    ),
    candidate(
        "huge_integer",
        "def solve(xs): return 10 ** 10**6",
    ),
    candidate(
        "huge_text",
        "def solve(xs): return 'x' * 10**7",
    ),
    candidate(
        "text",
        "def solve(xs): return str(sum(x * x for x in xs))",
    ),
    candidate(
        "float",
        "def solve(xs): return float(sum(x * x for x in xs))",
    ),
    candidate(
        "subclass",
        """
            class I(int): pass
            def solve(xs): return I(sum(x * x for x in xs))
        """,
    ),
    candidate(
        "generator",
        "def solve(xs): yield sum(x * x for x in xs)",
    ),
    candidate(
        "right_then_hangs",
        """
            import threading, time
            def solve(xs):
                threading.Thread(target=time.sleep, args=(99,)).start()
                return sum(x * x for x in xs)
        """,
    ),
    candidate(
        "right_then_crashes",
        """
            import atexit, os
            atexit.register(os.abort)
            def solve(xs): return sum(x * x for x in xs)
        """,
    ),
    candidate(
        "right_then_fails",
        """
            import atexit, os
            atexit.register(os._exit, 1)
            def solve(xs): return sum(x * x for x in xs)
        """,
    ),
    candidate(
        "no_function",
        "solution = 1",
    ),
    candidate(
        "only_the_first",
        "def solve(xs): return 14",
    ),
    candidate(
        "right",
        """
            def solve(xs):
                print('noise')
                return sum(x * x for x in xs)
        """,
        reward=1,
    ),
]
