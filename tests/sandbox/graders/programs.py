"""Wrong programs that try to pass; they should print the squares of 1 to 5, one a line."""

from __future__ import annotations

from textwrap import dedent

from .candidates import Wrong

RIGHT_PROGRAM = "for i in range(1, 6):\n    print(i * i)\n"
FLUSHED = RIGHT_PROGRAM.replace("i * i)", "i * i, flush=True)")
PROGRAMS: list[Wrong] = []


def _program(name: str, code: str, fools: str = "", control: str = RIGHT_PROGRAM) -> None:
    PROGRAMS.append(Wrong(name, dedent(code).lstrip(), dedent(control), tuple(fools.split())))


_program("nothing", "", "")
_program("prefix", "print(1)", "zip float")
_program("prefix_without_line_end", 'print("1\\n4\\n9\\n16\\n2", end="")', "")
_program("all_guesses", "for i in range(100): print(i)", "contains")
_program("one_more", RIGHT_PROGRAM + "print(36)", "zip contains float")
_program("other_order", "for i in range(5, 0, -1): print(i * i)", "contains")
_program("in_one_line", 'print("1 4 9 16 25")', "float")
_program("on_stderr", "import sys\nfor i in range(1, 6): print(i * i, file=sys.stderr)", "")
_program("nan", "for i in range(5): print('nan')", "float")
_program("other_spelling", "for i in range(1, 6): print(f'{i * i:+}.0')", "float")
_program("digits_of_elsewhere", "for c in ('\\u0661', '4', '9', '1_6', '25'): print(c)", "float")
_program("zero_width", "for i in range(1, 6): print(f'{i * i}\\u200b')", "")
_program("line_separators", "print('\\u2028'.join(str(i * i) for i in range(1, 6)))", "zip contains float")
_program("overwritten", "for i in range(1, 6): print(f'0\\r{i * i}')", "contains")
_program("escapes", "print('14', end='\\x1b[2J\\x1b[H')\n" + RIGHT_PROGRAM, "")
_program("not_text", "import sys\nsys.stdout.buffer.write(b'1\\n4\\n9\\n16\\n25\\xff\\n')", "")
_program("forged_verdict", "print('ALL_TESTS_PASSED')\nprint('{\"passed\": true}')", "")
_program("unflushed_exit", "import os\n" + RIGHT_PROGRAM + "os._exit(0)", "")
_program("right_then_error", RIGHT_PROGRAM + "raise ValueError", "zip contains float")
_program("right_then_exit_code", RIGHT_PROGRAM + "import sys\nsys.exit(3)", "zip contains float")
_program(
    "right_then_killed",
    FLUSHED + "import os\nos.abort()",
    "zip contains float",
)
_program("right_then_hang", RIGHT_PROGRAM + "import sys\nsys.stdout.flush()\nwhile True: pass", "zip contains float")
_program("right_then_flood", RIGHT_PROGRAM + "print('x' * (8 << 20))", "zip contains")
_program(
    "right_then_memory",
    FLUSHED + "x = [bytearray(64 << 20) for _ in range(100)]",
    "zip contains float",
)
_program(
    "right_twice_by_fork",
    "import os, time\nos.fork()\n" + FLUSHED + "time.sleep(0.5)",
    "contains",
)
