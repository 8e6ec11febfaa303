"""Runs code that tests a candidate, in a sandbox where the candidate is not: its functions are stand-ins that ask the
grader, over descriptor 3, and get plain data back.

To the grader, each as 4 bytes of length and JSON: `{"case": name}`, `{"call": [function, args, kwargs]}`, `{"end":
[status, detail]}`, `{"done": true}`. Back, after a call: `{"returned": value}`, `{"raised": [built-in exception,
text]}`, or `{"ended": status}` if there is neither.
"""

from __future__ import annotations

import builtins
import json
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from .values import decode, encode

_CHANNEL = 3
# Raised in here, these two would end a loop of the tests as if all were well.
_NEVER_RAISED = ("StopIteration", "StopAsyncIteration")


class CandidateError(Exception):
    """The candidate raised something that has no built-in name, or one that must not be raised here."""


class _CandidateEnded(BaseException):
    """There is neither a value nor an error. Not an Exception, so that tests do not catch it."""


class _BrokenTask(BaseException):
    """The tests cannot be run as they are."""


def main(order: dict[str, Any]) -> None:
    """`order`: `setup`, `tests` and `checks` (sources), `functions` (names), `module` (a name or ""), `stop_early`."""
    module = ModuleType("tests")
    module.__file__ = "tests.py"
    sys.modules["tests"] = module
    space = module.__dict__
    stand_ins = {name: _stand_in(name) for name in order["functions"]}
    if order["module"]:
        sys.modules[order["module"]] = imported = ModuleType(order["module"])
        imported.__dict__.update(stand_ins)

    def load() -> None:
        _execute(order["setup"], "setup.py", space)
        space.update(stand_ins, candidate=stand_ins[order["functions"][0]])
        _execute(order["tests"], "tests.py", space)

    good = _case("module", load)
    if good:
        for name, work in _found(space, order["checks"]):
            if not _case(name, work) and order["stop_early"]:
                break
    _send({"done": True})


def _execute(source: str, name: str, space: dict[str, Any]) -> None:
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec", dont_inherit=True), space)


def _stand_in(name: str) -> Callable[..., Any]:
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        try:
            said = {"call": [name, encode(list(args)), encode(kwargs)]}
        except TypeError as error:
            raise _BrokenTask(f"an argument cannot be handed over: {error}") from None
        except ValueError as error:  # a candidate's value, handed back to it with another level around
            raise _CandidateEnded("error", f"an argument cannot be handed over: {error}") from None
        return _value(_ask(said))

    stand_in.__name__ = stand_in.__qualname__ = name.rpartition(".")[2]
    return stand_in


def _value(said: dict[str, Any]) -> Any:
    if "returned" in said:
        try:
            return decode(said["returned"])
        except Exception as error:
            raise _CandidateEnded("error", f"its value cannot be read: {error}") from None
    if "raised" in said:
        raise _error(*said["raised"])
    raise _CandidateEnded(said["ended"], "")


def _error(name: str, text: str) -> Exception:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or name in _NEVER_RAISED:
        return CandidateError(text)
    try:
        return kind(text)
    except TypeError:  # it wants more than a text
        return CandidateError(text)


def _found(space: dict[str, Any], checks: list[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """The cases that the tests define: `check(candidate)`, functions `test_*`, unittest's, and the single checks."""
    if callable(check := space.get("check")):
        yield "check", lambda: check(space["candidate"])
    unittest: Any = sys.modules.get("unittest")  # not there if the tests have not imported it: it takes its time
    for name, thing in list(space.items()):
        if isinstance(thing, FunctionType) and name.startswith("test") and thing.__module__ == "tests":
            yield name, thing
        elif unittest and isinstance(thing, type) and issubclass(thing, unittest.TestCase):
            for test in unittest.defaultTestLoader.loadTestsFromTestCase(thing):
                yield f"{name}.{test.id().rpartition('.')[2]}", test.debug
    for number, source in enumerate(checks):
        yield f"check {number}", partial(_execute, source, f"check_{number}.py", space)


def _case(name: str, work: Callable[[], object]) -> bool:
    _send({"case": name})
    status, detail = _outcome(work)
    _send({"end": [status, detail[:2000]]})
    return status == "passed"


def _outcome(work: Callable[[], object]) -> tuple[str, str]:
    try:
        work()
    except _CandidateEnded as ended:
        return ended.args[0], ended.args[1]
    except AssertionError as error:
        return "wrong", _where(error)
    except Exception as error:
        return "broken_task" if type(error).__name__ == "SkipTest" else "error", _where(error)
    except BaseException as error:  # pytest's own are no Exceptions
        return "wrong" if type(error).__name__ == "Failed" else "broken_task", _where(error)
    return "passed", ""


def _where(error: BaseException) -> str:
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.endswith(".py")]
    line = f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line} | " if frames else ""
    return f"{line}{type(error).__name__}: {error}"


def _ask(question: dict[str, Any]) -> dict[str, Any]:
    _send(question)
    size = int.from_bytes(_exactly(4), "big")
    said: dict[str, Any] = json.loads(_exactly(size))
    return said


def _send(message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(_CHANNEL, data) :]


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(_CHANNEL, size - len(data))
        if not part:
            os._exit(3)  # the grader is gone
        data += part
    return data
