"""Graders that cannot be fooled: what a candidate says is data, and every verdict is formed in the caller's process.

    async with SandboxPool() as pool:
        task = FunctionTask("solve", [FunctionCase(([1, 2, 3],), 14), FunctionCase(([],), 0)])
        grade = await Grader(pool).grade(code, task)
        if not grade.failed:
            reward = grade.share

What is compared how, and what is promised, is in docs/grading.md.
"""

from __future__ import annotations

from .cases import Pace
from .equal import Equality
from .grader import Grader
from .result import CaseResult, CaseStatus, Grade
from .task import CodeTask, FunctionCase, FunctionTask, Raises, Task, TextCase, TextTask
from .text import Output

__all__ = [
    "CaseResult",
    "CaseStatus",
    "CodeTask",
    "Equality",
    "FunctionCase",
    "FunctionTask",
    "Grade",
    "Grader",
    "Output",
    "Pace",
    "Raises",
    "Task",
    "TextCase",
    "TextTask",
]
