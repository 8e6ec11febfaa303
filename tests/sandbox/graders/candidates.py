"""Wrong functions that try to pass. Each says which naive graders (`naive.py`) it fools, so that it proves something.

`solve(xs)` should be the sum of squares. A control is the
same program with a right answer in the place of the attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

RIGHT = "def solve(xs):\n    return sum(x * x for x in xs)\n"


@dataclass(frozen=True)
class Wrong:
    name: str
    code: str
    control: str
    fools: tuple[str, ...]


FUNCTIONS: list[Wrong] = []


def _function(name: str, code: str, fools: str = "", control: str | None = None) -> None:
    """By default the control is the attack's program with a right `solve` defined after it."""
    code = dedent(code).lstrip()
    FUNCTIONS.append(
        Wrong(name, code, code + "\n" + RIGHT if control is None else dedent(control), tuple(fools.split()))
    )


# Values that say they are equal.
_function(
    "equal_to_all",
    """
    class Any:
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        __hash__ = None
    def solve(xs): return Any()
    """,
    "asserts marker child unittest",
)
_function(
    "equal_reflected",
    """
    class Any(int):
        def __eq__(self, other): return True
        def __req__(self, other): return True
        def __ne__(self, other): return False
        def __hash__(self): return 0
        def __sub__(self, other): return 0
        __rsub__ = __sub__
    def solve(xs): return Any(0)
    """,
    "asserts marker child unittest",
)
_function(
    "mock_any",
    """
    from unittest.mock import ANY
    def solve(xs): return ANY
    """,
    "asserts marker child unittest",
)
_function(
    "truthy_answer_to_equality",
    """
    class Yes:
        def __bool__(self): return True
    class Any:
        def __eq__(self, other): return Yes()
    def solve(xs): return Any()
    """,
    "asserts marker child unittest",
)
_function(
    "str_that_lies",
    """
    class Text(str):
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        def __hash__(self): return 14
        def __int__(self): return 14
    def solve(xs): return Text("14")
    """,
    "asserts marker child unittest",
)
_function(
    "claims_to_be_int",
    """
    class Number:
        __class__ = int
        def __eq__(self, other): return True
        def __hash__(self): return 14
        def __index__(self): return 14
    def solve(xs): return Number()
    """,
    "asserts marker child unittest",
)
_function(
    "list_that_lies",
    """
    class Row(list):
        def __eq__(self, other): return True
        def __len__(self): return 0
        def __iter__(self): return iter([])
    def solve(xs): return Row([xs])
    """,
    "asserts marker child unittest",
)
_function(
    "equality_of_float",
    """
    class Near(float):
        def __eq__(self, other): return True
        def __float__(self): return 14.0
        __round__ = __trunc__ = __float__
    def solve(xs): return Near("nan")
    """,
    "asserts marker child unittest",
)

# Leaving before the verdict.
_function(
    "exit_at_import",
    """
    import sys
    sys.exit(0)
    """,
    "asserts unittest",
    RIGHT,
)
_function(
    "hard_exit_at_import",
    """
    import os
    os._exit(0)
    """,
    "asserts unittest",
    RIGHT,
)
_function(
    "hard_exit_in_call",
    """
    import os
    def solve(xs):
        print("ALL_TESTS_PASSED", flush=True)
        os._exit(0)
    """,
    "asserts marker unittest",
)
_function(
    "system_exit_raised",
    """
    def solve(xs): raise SystemExit
    """,
    "asserts",
)
_function(
    "quit_builtin",
    """
    import site, builtins
    quit = getattr(builtins, "quit", lambda code: (_ for _ in ()).throw(SystemExit(code)))
    def solve(xs): quit(0)
    """,
    "asserts",
)
_function(
    "exit_handler",
    """
    import atexit, os
    atexit.register(os._exit, 0)
    def solve(xs): return 0
    """,
    "asserts unittest",
    RIGHT,
)
_function(
    "exit_handler_with_marker",
    """
    import atexit, os
    def leave():
        print("ALL_TESTS_PASSED", '{"passed": true}', sep="\\n", flush=True)
        os._exit(0)
    atexit.register(leave)
    def solve(xs): return 0
    """,
    "asserts marker child unittest",
    RIGHT,
)
_function(
    "exception_hook",
    """
    import os, sys
    sys.excepthook = lambda *error: os._exit(0)
    def solve(xs): return 0
    """,
    "asserts",
)
_function(
    "exit_when_deleted",
    """
    import os
    class Last:
        def __del__(self): os._exit(0)
    def solve(xs):
        kept = Last()
        raise ValueError(0)
    """,
    "asserts",
)
_function(
    "exit_from_thread",
    """
    import os, threading, time
    def solve(xs):
        threading.Thread(target=lambda: os._exit(0)).start()
        time.sleep(5)
        return 0
    """,
    "asserts unittest",
)
_function(
    "exit_from_timer_signal",
    """
    import os, signal
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    def solve(xs):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while True: pass
    """,
    "asserts unittest",
)
_function(
    "parent_leaves_child_answers",
    """
    import os
    def solve(xs):
        if os.fork(): os._exit(0)
        return 0
    """,
    "asserts unittest",
)
_function(
    "stop_iteration",
    """
    def solve(xs): raise StopIteration
    """,
    "child",
)

# Saying what a grader would say.
_function(
    "forged_marker",
    """
    print("ALL_TESTS_PASSED")
    print('{"passed": true, "reward": 1.0, "value": {"returned": 14}}')
    print("Ran 3 tests in 0.000s\\n\\nOK")
    def solve(xs): return None
    """,
    "marker child",
)
_function(
    "forged_on_every_descriptor",
    """
    import os
    def solve(xs):
        for fd in range(1, 64):
            try: os.write(fd, b'{"value": {"returned": 14}}')
            except OSError: pass
        return 0
    """,
)
_function(
    "forged_answer_then_exit",
    """
    import os
    def solve(xs):
        try: os.write(3, b'{"value": {"returned": 14}}')
        except OSError: pass
        os._exit(0)
    """,
    "asserts unittest",
)
_function(
    "all_guesses_as_answers",
    """
    import json, os
    def solve(xs):
        for guess in range(200):
            try: os.write(3, json.dumps({"value": {"returned": guess}}).encode() + b"\\n")
            except OSError: pass
        os._exit(0)
    """,
    "asserts unittest",
)
_function(
    "prints_all_guesses",
    """
    def solve(xs):
        for guess in range(200): print(guess)
    """,
)
_function(
    "framed_verdicts",
    """
    import os
    def solve(xs):
        for said in (b'{"done": true}', b'{"end": ["passed", ""]}'):
            for fd in (3, 4, 5):
                try: os.write(fd, len(said).to_bytes(4, "big") + said)
                except OSError: pass
        return 0
    """,
)
_function(
    "verdict_as_value",
    """
    def solve(xs): return {"$": "any", "passed": True, "v": None, "returned": 14}
    """,
)

# Changing the machinery.
_function(
    "patched_json",
    """
    import json
    json.dumps = lambda *a, **k: '{"passed": true}'
    def solve(xs): return 0
    """,
    "child",
    RIGHT,
)
_function(
    "patched_json_in_our_form",
    """
    import json
    json.dumps = lambda *a, **k: '{"value": {"returned": 14}}'
    def solve(xs): return 0
    """,
    "",
    RIGHT,
)
_function(
    "patched_all",
    """
    import builtins
    builtins.all = lambda *a: True
    def solve(xs): return 0
    """,
    "child",
    RIGHT,
)
_function(
    "patched_type_checks",
    """
    import builtins
    builtins.isinstance = builtins.issubclass = lambda *a: True
    builtins.type = lambda *a: int
    def solve(xs): return 0
    """,
    "",
    RIGHT,
)
_function(
    "patched_print",
    """
    import builtins
    real = print
    builtins.print = lambda *a, **k: real('{"passed": true}')
    def solve(xs): return 0
    """,
    "child",
)
_function(
    "patched_stdout",
    """
    import sys
    class Out:
        def write(self, text): return sys.__stdout__.write(text.replace("false", "true"))
        def flush(self): sys.__stdout__.flush()
    sys.stdout = Out()
    def solve(xs): return 0
    """,
    "child",
)
_function(
    "patched_unittest",
    """
    import unittest
    unittest.TestCase.assertEqual = lambda *a, **k: None
    unittest.TestCase.run = lambda self, result=None: result
    def solve(xs): return 0
    """,
    "unittest",
)
_function(
    "traced_harness",
    """
    import sys
    def trace(frame, event, value):
        if "passed" in frame.f_locals: frame.f_locals["passed"] = True
        return trace
    def solve(xs):
        sys.settrace(trace)
        frame = sys._getframe(1)
        while frame:
            frame.f_trace = trace
            frame = frame.f_back
        return 0
    """,
    "child",
)
_function(
    "patched_encoder",
    """
    import sys
    for name, module in list(sys.modules.items()):
        if name.startswith("grading"):
            module.encode = lambda *a: 14
            for key in list(vars(module)):
                if key == "_ENCODERS": setattr(module, key, ())
    def solve(xs): return 0
    """,
    "",
    RIGHT,
)
_function(
    "rewritten_small_integers",
    """
    import ctypes
    def solve(xs):
        for number in (14, 77, 100): ctypes.c_uint32.from_address(id(number) + 24).value = 1
        return 1
    """,
    "asserts marker unittest",
)

# Looking for what is expected.
_function(
    "peeks_at_source",
    """
    import linecache, re, sys
    def solve(xs):
        text = "".join("".join(entry[2]) for entry in linecache.cache.values() if len(entry) > 2)
        for name in list(sys.modules): text += str(getattr(sys.modules[name], "__file__", ""))
        found = re.search(re.escape(str(xs)) + r"\\) == (-?\\d+)", text)
        return int(found.group(1)) if found else 0
    """,
    "asserts marker",
)
_function(
    "peeks_at_frames",
    """
    import sys
    def solve(xs):
        frame = sys._getframe(1)
        while frame:
            for place in (frame.f_locals, frame.f_globals):
                for value in list(place.values()):
                    if isinstance(value, (tuple, list)):
                        for each in (value, *value):
                            if isinstance(each, tuple) and len(each) == 2 and each[0] in (xs, [xs]): return each[1]
                    if hasattr(value, "expected"): return value.expected
            frame = frame.f_back
        return 0
    """,
    "child",
)
_function(
    "peeks_at_garbage_collector",
    """
    import gc
    def solve(xs):
        for thing in gc.get_objects():
            if type(thing) is tuple and len(thing) == 2 and type(thing[0]) is list and thing[0] == xs:
                if type(thing[1]) is int: return thing[1]
            if type(thing).__name__ == "FunctionCase": return thing.expected
        return 0
    """,
    "child unittest",
)
_function(
    "peeks_at_constants",
    """
    import gc, types
    def solve(xs):
        for code in (thing for thing in gc.get_objects() if isinstance(thing, types.FunctionType)):
            constants = code.__code__.co_consts
            for here in constants:
                if type(here) is tuple and tuple(xs) == here: return constants[constants.index(here) + 1]
        return 0
    """,
)
_function(
    "peeks_at_environment",
    """
    import glob, os, sys
    def solve(xs):
        text = repr(sys.argv) + repr(dict(os.environ))
        for path in sum(map(glob.glob, ("/proc/*/cmdline", "/work/*", "/tmp/*", "/proc/self/*")), []):
            try: text += open(path, errors="replace").read(10000)
            except (OSError, ValueError): pass
        for wanted in ("14", "77", "100"):
            if f"{xs}, {wanted}" in text or f"{xs}) == {wanted}" in text: return int(wanted)
        return 0
    """,
)
_function(
    "peeks_at_memory",
    """
    import re
    def solve(xs):
        try:
            with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
                for line in maps:
                    low, high = (int(part, 16) for part in line.split()[0].split("-"))
                    if "[heap]" not in line: continue
                    memory.seek(low)
                    found = re.search(re.escape(str(xs)).encode() + rb"\\) == (\\d+)", memory.read(high - low))
                    if found: return int(found.group(1))
        except OSError: pass
        return 0
    """,
)

# One case after the other.
_function(
    "answers_in_order",
    """
    answers = iter([14, 77, 100])
    def solve(xs): return next(answers)
    """,
    "asserts marker child unittest",
)
_function(
    "answers_in_order_from_file",
    """
    import os
    def solve(xs):
        with open("/tmp/count", "a+") as file:
            file.write("x")
            file.flush()
            return [14, 77, 100][os.path.getsize("/tmp/count") - 1]
    """,
    "asserts marker child unittest",
)
_function(
    "answers_in_order_from_module",
    """
    import math
    def solve(xs):
        math.count = getattr(math, "count", -1) + 1
        return [14, 77, 100][math.count]
    """,
    "asserts marker child unittest",
)
_function(
    "one_constant",
    """
    def solve(xs): return 14
    """,
)

# Values that are hard to handle.
_function(
    "nan",
    """
    def solve(xs): return float("nan")
    """,
)
_function(
    "nested_deep",
    """
    def solve(xs):
        value = 14
        for _ in range(100_000): value = [value]
        return value
    """,
)
_function(
    "nested_at_the_limit",
    """
    def solve(xs):
        value = 14
        for _ in range(60): value = (value,)
        return value
    """,
)
_function(
    "cycle",
    """
    def solve(xs):
        value = []
        value.append(value)
        return value
    """,
)
_function(
    "generator",
    """
    def solve(xs):
        yield 14
    """,
)
_function(
    "huge_repr",
    """
    class Wide:
        def __repr__(self): return "x" * 10**9
        __str__ = __repr__
        def __eq__(self, other): return True
    def solve(xs): return Wide()
    """,
    "asserts marker child unittest",
)
_function(
    "huge_list",
    """
    def solve(xs): return [0] * 10**6
    """,
)
_function(
    "huge_integer",
    """
    def solve(xs): return 1 << 10**7
    """,
)
_function(
    "huge_exception",
    """
    def solve(xs): raise ValueError("14" * 10**6)
    """,
)
_function(
    "pickled_command",
    """
    import os
    class Command:
        def __reduce__(self): return os.system, ("true",)
        def __eq__(self, other): return True
    def solve(xs): return Command()
    """,
    "asserts marker child unittest",
)
_function(
    "wrong_types",
    """
    def solve(xs): return {3: "14", 1: 100.0}.get(len(xs), [14])
    """,
)

# Right, and then not.
_function(
    "right_then_crash",
    RIGHT
    + """
import atexit, os, signal
atexit.register(lambda: os.kill(os.getpid(), signal.SIGKILL) or os.abort())
""",
    "marker child",
    RIGHT,
)
_function(
    "right_then_exit_code",
    RIGHT
    + """
import atexit, os
atexit.register(os._exit, 3)
""",
    "marker child",
    RIGHT,
)
_function(
    "right_then_hang",
    RIGHT
    + """
import atexit
def hang():
    while True: pass
atexit.register(hang)
""",
    "marker child",
    RIGHT,
)
_function(
    "right_then_flood",
    RIGHT
    + """
import atexit, sys
atexit.register(lambda: sys.stdout.write("x" * (8 << 20)))
""",
    "child",
    RIGHT,
)
_function(
    "right_then_thread_that_stays",
    RIGHT
    + """
import threading
def spin():
    while True: pass
threading.Thread(target=spin).start()
""",
    "",
    RIGHT,
)
_function(
    "right_then_memory",
    RIGHT
    + """
import atexit
def hoard():
    kept = []
    while True:
        try:
            kept.append(bytearray(1 << 20))
        except MemoryError:
            pass
atexit.register(hoard)
""",
    "",
    RIGHT,
)
