"""Loads a candidate and calls one of its functions: once, in a process of its own.

What it says is the candidate's word: the candidate's code runs in the same process and may change all of this.
"""

from __future__ import annotations

import builtins
import linecache
import sys
import traceback
from types import ModuleType
from typing import Any

from .values import decode, encode


def answer(source: str, function: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """`{"returned": value}` or `{"raised": [built-in exception, "Type: text"]}`; the arguments and the value encoded.

    `function` may be `Class.method`: the class is then made without arguments. An error while the candidate is loaded,
    a value that cannot be encoded, a lack of memory and an exit go through to the process's end.
    """
    call = _find(_load("candidate", "candidate.py", source), function)
    given, named = decode(args), decode(kwargs)
    try:
        value = call(*given, **named)
    except MemoryError:
        raise
    except Exception as error:
        trace = error.__traceback__
        traceback.print_exception(type(error), error, trace.tb_next if trace else None)
        return {"raised": [_built_in(type(error)), f"{type(error).__name__}: {error}"[:500]]}
    return {"returned": encode(value)}


def _load(name: str, file: str, source: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source.removeprefix("\ufeff"), file, "exec", dont_inherit=True), module.__dict__)
    return module


def _find(module: ModuleType, function: str) -> Any:
    owner, _, method = function.rpartition(".")
    place = getattr(module, owner)() if owner else module
    if not hasattr(place, method):
        raise NameError(f"the candidate has no function {function!r}")
    return getattr(place, method)


def _built_in(kind: type[BaseException]) -> str:
    return str(next(each.__name__ for each in kind.__mro__ if getattr(builtins, each.__name__, None) is each))
