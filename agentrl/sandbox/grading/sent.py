"""Programs to send into sandboxes, made of the modules in `inside/`."""

from __future__ import annotations

import marshal
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path

_FOLDER = Path(__file__).parent / "inside"
# Compiled here once, since compiling them takes longer than a run; another interpreter's sandbox compiles the text.
_LOADER = """
import marshal, sys, types
from _frozen_importlib_external import MAGIC_NUMBER
for name, compiled, text in {modules!r}:
    module = types.ModuleType("grading_inside" + (name and "." + name))
    module.__package__, module.__path__ = "grading_inside", []
    sys.modules[module.__name__] = module
    if MAGIC_NUMBER == {magic!r}:
        code = marshal.loads(compiled)
    else:
        code = compile(text, f"<grading {{name}}>", "exec", dont_inherit=True)
    exec(code, module.__dict__)
"""


@cache
def program(*names: str) -> str:
    """Source of a program that has these modules of `inside/`, in this order, as `grading_inside.<name>`.

    The last one is in its variable `module`.
    """
    texts = {"": "", **{name: (_FOLDER / f"{name}.py").read_text() for name in names}}
    modules = [(name, _compiled(name, text), text) for name, text in texts.items()]
    return _LOADER.format(modules=modules, magic=MAGIC_NUMBER)


def _compiled(name: str, text: str) -> bytes:
    return marshal.dumps(compile(text, f"<grading {name}>", "exec", dont_inherit=True))


@cache
def caller() -> str:
    """A program for `SandboxPool.call`, whose function `answer` is that of `inside/answer.py`."""
    return program("values", "answer") + "answer = module.answer\n"


def tester(order: str) -> str:
    """A program that runs tests. `order`: JSON of what `inside/tests.py` takes."""
    return program("values", "tests") + f"import json\nmodule.main(json.loads({order!r}))\n"
