"""Runs a program, cells or a call in a process whose walls are up. Never returns: the process ends as the code ends.

All that runs from here on is in the hands of the code, and none of it is believed.
"""

from __future__ import annotations

import atexit
import linecache
import os
import signal
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

MEMORY_EXIT = 137  # exit code for an uncaught MemoryError, as a shell reports a process that was killed for memory


_HERE = os.path.dirname(__file__)


def fresh_main() -> dict[str, Any]:
    """An empty `__main__`; returns its namespace."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    return module.__dict__


def remember_source(name: str, source: str) -> None:
    """Tracebacks can show lines of this source."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def compiled(source: str, name: str) -> Any:
    """A byte order mark at the start counts as nothing, as in a file."""
    return compile(source.removeprefix("\ufeff"), name, "exec", dont_inherit=True)


def run_program(head: dict[str, Any]) -> NoReturn:
    """Runs `head["code"]` as `__main__` with `head["argv"]`, as `python main.py` would."""
    sys.argv[:] = ["main.py", *head["argv"]]
    namespace = fresh_main()
    namespace["__file__"] = "main.py"
    remember_source("main.py", head["code"])
    leave(guarded(lambda: exec(compiled(head["code"], "main.py"), namespace)))


def run_command(command: list[str]) -> NoReturn:
    """Becomes another program. Exit codes as a shell's if it cannot be found or started."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        os.write(2, f"{command[0]}: {error}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def guarded(work: Any) -> int:
    """Runs `work()` and returns the exit code that Python would end with; prints an uncaught error as Python does."""
    try:
        work()
        return 0
    except SystemExit as end:
        return exit_code(end.code)
    except BaseException as error:
        _print_error(error)
        return MEMORY_EXIT if isinstance(error, MemoryError) else 130 if isinstance(error, KeyboardInterrupt) else 1


def exit_code(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return int(value) & 0xFF
    try:
        print(value, file=sys.stderr)
    except BaseException:
        os.write(2, b"an exit code that cannot be printed\n")
    return 1


def _print_error(error: BaseException) -> None:
    """Without the frames of this package, through the code's own `sys.excepthook` if it set one."""
    trace = error.__traceback__
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _HERE:
        trace = trace.tb_next
    try:
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, trace)
        else:
            traceback.print_exception(type(error), error, trace)
    except BaseException:
        os.write(2, b"an error that cannot be printed\n")


def leave(code: int) -> NoReturn:
    """Waits for threads, runs exit handlers and flushes, inside the time limit, then ends without tearing down."""
    code = flush() or code  # at once: what was printed is not lost if a thread never ends
    code = guarded(threading._shutdown) or code  # type: ignore[attr-defined]
    guarded(atexit._run_exitfuncs)
    os._exit(flush() or code)


def flush() -> int:
    """Exit code 120, as Python's own, if what was written cannot be flushed."""
    failed = 0
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            failed = 120
    return failed
