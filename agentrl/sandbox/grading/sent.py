"""Programs to send into sandboxes, made of the modules in `inside/`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "inside"
_LOADER = """
import sys, types
for name, text in {texts!r}.items():
    module = types.ModuleType("grading_inside" + (name and "." + name))
    module.__package__, module.__path__ = "grading_inside", []
    sys.modules[module.__name__] = module
    exec(compile(text, f"<grading {{name}}>", "exec", dont_inherit=True), module.__dict__)
"""


@cache
def program(*modules: str) -> str:
    """Source of a program that has `inside/`'s named modules, in this order, as `grading_inside.<name>`."""
    return _LOADER.format(texts={"": "", **{name: (_FOLDER / f"{name}.py").read_text() for name in modules}})


@cache
def caller() -> str:
    """A program for `SandboxPool.call`, whose function `answer` is that of `inside/answer.py`."""
    return program("values", "answer") + "answer = module.answer\n"


def tester(order: str) -> str:
    """A program that runs tests. `order`: JSON of what `inside/tests.py` takes."""
    return program("values", "tests") + f"import json\nmodule.main(json.loads({order!r}))\n"
