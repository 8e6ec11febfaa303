"""Hostile and faulty programs that use too much, end strangely, or never end."""

from __future__ import annotations

from tests.sandbox.attack import Attack, hostile

LOADING: list[Attack] = [
    hostile(
        "fork_bomb",
        """
            import os
            while True:
                try: os.fork()
                except OSError: pass
        """,
        status=["error", "memory", "signal", "timeout"],
        no_leftover=True,
    ),
    hostile(
        "thread_bomb",
        """
            import threading, time
            for _ in range(10**4): threading.Thread(target=time.sleep, args=(9,)).start()
        """,
        status=["error", "memory", "signal", "timeout"],
    ),
    hostile(
        "children_with_memory",
        """
            import os, time
            for _ in range(20):
                if os.fork() == 0: x = b'x' * (100 << 20); time.sleep(9)
            time.sleep(9)
        """,
        status=["error", "memory", "signal", "timeout"],
    ),
    hostile(
        "children_with_shared_memory",
        """
            import os, time, mmap
            for _ in range(20):
                if os.fork() == 0:
                    m = mmap.mmap(-1, 100 << 20)
                    for i in range(0, 100 << 20, 4096): m[i] = 1
                    time.sleep(9)
            time.sleep(9)
        """,
        status=["error", "memory", "signal", "timeout"],
    ),
    hostile(
        "memory_at_once",
        "x = bytearray(10**12)",
        status=["memory"],
    ),
    hostile(
        "many_files",
        """
            n = 0
            try:
                while n < 10**6: open(f'f{n}', 'w').close(); n += 1
                print('ESCAPED')
            except OSError as e: print('stopped', e)
        """,
        status=["ok", "timeout", "error"],
    ),
    hostile(
        "disk_in_parts",
        """
            import os
            t = 0
            try:
                for n in range(100):
                    t += open(f'/tmp/f{n}', 'wb').write(bytes(10**7))
                print('ESCAPED', t)
            except OSError as e: print('stopped', t, e)
        """,
    ),
    hostile(
        "one_large_file",
        """
            f = open('f', 'wb')
            try:
                for _ in range(200): f.write(bytes(10**6)); f.flush()
                print('ESCAPED')
            except OSError as e: print('stopped', e)
        """,
    ),
    hostile(
        "pipes_filled",
        """
            import os
            n = 0
            try:
                while n < 10**4:
                    r, w = os.pipe(); os.set_blocking(w, False)
                    n += os.write(w, bytes(65536)) > 0
                print('ESCAPED')
            except OSError as e: print(n, e)
        """,
    ),
    hostile(
        "both_streams",
        """
            import os
            while True: os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)
        """,
        status=["output_limit"],
    ),
    hostile(
        "output_from_children",
        """
            import os
            for _ in range(8):
                if os.fork() == 0: break
            while True: os.write(1, b'x' * 999)
        """,
        status=["output_limit", "error"],
        no_leftover=True,
    ),
    hostile(
        "drip",
        """
            import time
            while True: print('drip', flush=True); time.sleep(0.05)
        """,
        status=["timeout"],
        stdout_contains=["drip"],
    ),
    hostile(
        "terminal_escapes",
        r"""
            print('\x1b]0;title\x07\x1b[2J\x9b31m', end='')
        """,
        status=["ok"],
    ),
    hostile(
        "hanging_exit_handler",
        """
            import atexit, time
            atexit.register(time.sleep, 10**6)
            print('done')
        """,
        status=["timeout"],
        stdout_contains=["done"],
    ),
    hostile(
        "exit_handler_exits",
        """
            import atexit, os
            atexit.register(os._exit, 0)
            1 / 0
        """,
    ),
    hostile(
        "hook_exits",
        """
            import os, sys
            sys.excepthook = lambda *a: os._exit(0)
            1 / 0
        """,
    ),
    hostile(
        "text_as_exit_code",
        "raise SystemExit('because')",
        status=["error"],
        stdout_contains=["because"],
        exit_code=1,
    ),
    hostile(
        "exit_code_that_cannot_be_printed",
        """
            class E:
                def __str__(self): raise SystemExit(0)
            raise SystemExit(E())
        """,
        status=["error"],
    ),
    hostile(
        "exit_code_of_a_subclass",
        """
            class I(int):
                def __and__(self, other): raise KeyError
            raise SystemExit(I(3))
        """,
        status=["error"],
        exit_code=3,
    ),
    hostile(
        "harness_taken_apart",
        """
            import os, sys
            for m in list(sys.modules.values()):
                if hasattr(m, 'exit_code'): m.exit_code = m.leave = m.guarded = m.flush = None
            raise ValueError
        """,
        status=["error"],
    ),
    hostile("no_streams", "import sys; sys.stdout = sys.stderr = sys.stdin = None", status=["ok", "error"]),
    hostile(
        "kills_itself",
        """
            import os
            os.kill(os.getpid(), 9)
            os.kill(os.getpid(), 15)
        """,
    ),
    hostile(
        "slow_pattern",
        """
            import re
            re.match(r'(a+)+$', 'a' * 99 + 'b')
        """,
        status=["timeout"],
    ),
    hostile(
        "printed_power",
        """
            import sys
            sys.set_int_max_str_digits(0)
            print(10 ** 10 ** 8)
        """,
        status=["timeout", "memory"],
    ),
    hostile(
        "recursion",
        """
            def f(): f()
            f()
        """,
        status=["error"],
    ),
    hostile(
        "recursion_unlimited",
        """
            import sys
            sys.setrecursionlimit(10**9)
            class A:
                def __getattr__(s, n): return getattr(s, n)
            A().x
        """,
        status=["signal", "error", "memory"],
    ),
    hostile(
        "closed_streams",
        """
            import os
            for fd in range(3): os.close(fd)
            print('x')
        """,
        status=["ok", "error"],
    ),
    hostile(
        "another_program",
        """
            import os
            os.execv('/bin/true', ['true'])
        """,
        status=["ok", "error"],
    ),
    hostile(
        "stopped_child",
        """
            import os, signal
            if os.fork() == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
            print('end')
        """,
        no_leftover=True,
    ),
    hostile(
        "syntax",
        "def f(:",
        status=["error"],
        stdout_contains=["SyntaxError"],
    ),
    hostile(
        "nul",
        "print(1)\x00",
        status=["error"],
    ),
    hostile(
        "every_call",
        """
            import ctypes
            c = ctypes.CDLL(None).syscall
            spared = {0, 15, 34, 35, 60, 61, 130, 202, 230, 231, 232, 247, 270, 271, 281}  # they wait, or end it
            for n in range(1000):
                if n not in spared: c(n, -1, 0, 0, 0, 0, 0)
        """,
    ),
    hostile(
        "numbers_of_another_kind",
        """
            import ctypes
            print('ESCAPED' if ctypes.CDLL(None).syscall(0x40000000 + 39) > 0 else 'no')
        """,
    ),
]
