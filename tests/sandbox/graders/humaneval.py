"""HumanEval's problems as tasks, and mutants of their solutions: one for each line, each made by one small change."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.sandbox.grading import CodeTask

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitXor: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    name: str
    prompt: str
    solution: str
    task: CodeTask

    @property
    def code(self) -> str:
        return self.prompt + self.solution

    @property
    def entry(self) -> str:
        return self.task.functions[0]


@dataclass(frozen=True)
class Mutant:
    name: str
    line: str  # as it is now
    code: str


def problems(folder: Path) -> list[Problem]:
    """The tests need what the prompt defines, so that is their setup."""
    rows = [json.loads(line) for line in (folder / "humaneval" / "problems_first_half.jsonl").open()]
    return [
        Problem(
            row["task_id"], row["prompt"], row["canonical_solution"],
            CodeTask([row["entry_point"]], tests=row["test"], setup=row["prompt"]),
        )
        for row in rows
    ]  # fmt: skip


def mutants(problem: Problem) -> Iterator[Mutant]:
    """For each line of the solution that can be changed, the first change that there is."""
    tree = ast.parse(problem.code)
    first = problem.prompt.count("\n") + 1
    nodes = list(ast.walk(tree))
    for line in range(first, problem.code.count("\n") + 2):
        here = [n for n, node in enumerate(nodes) if getattr(node, "lineno", 0) == line]
        for number in sorted(here, key=lambda n: (nodes[n].col_offset, n)):  # type: ignore[attr-defined]
            fresh = copy.deepcopy(tree)
            if _change(list(ast.walk(fresh))[number]):
                name = f"{problem.name}:{line - first}"
                yield Mutant(name, _line(ast.unparse(tree), ast.unparse(fresh)), ast.unparse(fresh))
                break


def _change(node: Any) -> bool:
    """Changes this node in place. Says whether there was something to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        node.ops[0] = _COMPARED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COUNTED:
        node.op = _COUNTED[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant) and node.value is not None and node.value is not ...:
        node.value = _other(node.value)
    elif (type(node), type(getattr(node, "value", None))) in ((ast.Return, ast.Name), (ast.Expr, ast.Call)):
        node.value = ast.Constant(None)
    elif isinstance(node, ast.If | ast.While):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        return False
    return True


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + "x" if isinstance(value, str) else value + 1


def _line(before: str, after: str) -> str:
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    return next(new.strip() for old, new in pairs if old != new)
