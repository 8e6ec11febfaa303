"""GSM8K: grade-school problems solved over several turns with a calculator.

What comes in: the real JSONL files (`train.jsonl`, `test.jsonl`; openai/grade-school-math), whose answers hold the gold
calculator calls as marks `<<48/2=24>>` and end in `#### 24`. What goes out: one task a problem, a reward of 1 for the
right final number, metrics of how many gold marks the tool's results reproduced, and the faults of the data itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentrl.env import Episode, StepResult, Task, ToolEnv, reward
from agentrl.errors import DataError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage
from agentrl.tools.calculator import calculate, calculator, evaluate

SPLITS = ("train", "test")
_MARK = re.compile(r"<<([^<>]*)>>")
_NUMBER = re.compile(r"\$? ?(-?)\$?((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?![0-9])[^0-9\n]*")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


class GSM8K(ToolEnv):
    """Grade-school word problems (GSM8K), with a calculator to call.

    Args:
        data: Folder with train.jsonl and test.jsonl; `$AGENTRL_DATA/gsm8k` if not given.
    """

    name = "gsm8k"
    system_prompt = (
        "Solve the problem step by step and use the calculator for all arithmetic. "
        "End with a line that holds #### and the final number alone."
    )
    max_turns = 12  # the longest gold solution takes 10
    extra_tools = (calculator,)

    def __init__(self, data: str | None = None) -> None:
        super().__init__()
        self._data = data
        self._missing: list[tuple[str, str]] = []  # gold marks of the task that no tool result has reproduced yet
        self._n_marks = 0  # gold marks of the task

    def tasks(self, split: str) -> Sequence[Task]:
        """The problems of "train" or "test", in the file's order.

        Raises:
            DataError: there is no such split, no such file, or a line of it is broken.
        """
        if split not in SPLITS:
            raise DataError(f"gsm8k has no split {split!r}; it has: {', '.join(SPLITS)}")
        return _read(_folder(self._data) / f"{split}.jsonl")

    async def setup(self, task: Task) -> None:
        self._missing = list(task.data["marks"])
        self._n_marks = len(self._missing)

    async def step(self, action: AssistantMessage) -> StepResult:
        result = await super().step(action)
        results = [message.content for message in result.observation if isinstance(message, ToolMessage)]
        self._missing = [
            (expression, shown)
            for expression, shown in self._missing
            if not any(reproduces(got, shown) for got in results)
        ]
        marks = {"gold_marks": self._n_marks, "gold_marks_reproduced": self._n_marks - len(self._missing)}
        metrics = {**result.info["metrics"], **marks}
        return result._replace(info={**result.info, "metrics": metrics})

    @reward(kind="outcome")
    async def correct(self, task: Task, episode: Episode) -> float:
        """1 if the final message's number (see `final_number`) equals the gold one exactly.

        An answer that a limit cut counts as none: its number may be the beginning of another.
        """
        return float(not episode.truncated and final_number(episode.final_text) == Fraction(task.answer))

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        """Play the gold solution: a turn for each reasoning line with marks, then the answer."""
        turns = gold_turns(task.data["solution"])
        said = sum(isinstance(message, AssistantMessage) for message in messages)
        return turns[min(said, len(turns) - 1)]

    def data_faults(self, split: str) -> Sequence[str]:
        """The gold marks whose value the calculator does not reproduce, a line each."""
        return [
            f"gsm8k {split} problem {index}: <<{expression}={shown}>>, but the calculator gives {got}"
            for index, task in enumerate(self.tasks(split))
            for expression, shown in task.data["marks"]
            if not reproduces(got := _tool_result(expression), shown)
        ]


def final_number(text: str) -> Fraction | None:
    """The number a final message answers with, or None.

    Only two forms count: what stands after the last "####" and, in a text without "####", in the last \\boxed{}. A
    dollar sign, thousands separators, a trailing percent sign, full stop or unit are dropped; a second number on the
    line ("#### 3/4", "#### 3 or 4") is no answer. Guesses such as the last number of the text are not made: they
    reward numbers that were never given as the answer.
    """
    if "####" in text:
        given = text.rpartition("####")[2].strip().partition("\n")[0]
    else:
        boxed = _BOXED.findall(text)
        given = boxed[-1] if boxed else ""
    number = _NUMBER.fullmatch(given.strip())
    return Fraction((number[1] + number[2]).replace(",", "")) if number else None


def reproduces(got: str, shown: str) -> bool:
    """Whether a tool result is the value that a mark shows.

    A mark that shows decimals may be rounded to them, so it may be off by half a unit of its last place (0.33 stands
    for 1/3, 0.3 for 0.25 and for 0.35); a whole number must be exact.
    """
    try:
        difference = abs(evaluate(got) - evaluate(shown))
    except ValueError:
        return False
    decimals = len(shown.partition(".")[2])
    return difference <= (Fraction(1, 2 * 10**decimals) if decimals else 0)


def gold_turns(solution: str) -> list[AssistantMessage]:
    """A gold solution as the turns of an episode.

    A line with marks makes a turn: what stands before its first mark, and a call for each of its marks. What follows
    the first mark tells results, so it opens the next turn; the marks themselves are left out of all texts.
    """
    turns: list[AssistantMessage] = []
    said = ""
    for line in solution.split("\n"):
        first = _MARK.search(line)
        if first:
            calls = [
                ToolCall(id=f"{len(turns)}.{n}", name="calculator", arguments={"expression": expression})
                for n, (expression, _) in enumerate(gold_marks(line))
            ]
            turns.append(AssistantMessage(content=(said + line[: first.start()]).strip(), tool_calls=tuple(calls)))
            said = ""
        said += _MARK.sub("", line[first.end() :] if first else line) + "\n"
    return [*turns, AssistantMessage(content=said.strip())]


def gold_marks(solution: str) -> list[tuple[str, str]]:
    """The marks of a gold solution in order: (expression, value shown)."""
    marks = (mark.partition("=") for mark in _MARK.findall(solution))
    return [(expression, shown) for expression, _, shown in marks]


def _tool_result(expression: str) -> str:
    try:
        return calculate(expression)
    except ValueError as error:
        return f"Error: {error}"


def _folder(data: str | None) -> Path:
    if data is not None:
        return Path(data)
    root = os.environ.get("AGENTRL_DATA")
    if not root:
        raise DataError(
            "gsm8k needs the GSM8K files: set the environment variable AGENTRL_DATA to the folder that holds "
            "gsm8k/train.jsonl and gsm8k/test.jsonl, or the env's setting `data` to the folder of the two files"
        )
    return Path(root) / "gsm8k"


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Task, ...]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path} ({error}); set AGENTRL_DATA to the folder that holds gsm8k/{path.name}, or the "
            "env's setting `data` to the folder of the file"
        ) from error
    return tuple(_task(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))


def _task(line: str, place: str) -> Task:
    try:
        row: Any = json.loads(line)
        question, solution = row["question"], row["answer"]
        answer = final_number(solution)
        marks = gold_marks(solution)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{place}: want a JSON object with the texts question and answer, got {error!r}") from error
    if not isinstance(question, str):
        raise DataError(f"{place}: the question is not a text but {question!r}")
    if answer is None:
        raise DataError(f"{place}: the answer does not end in #### and a number")
    return Task(prompt=question, answer=str(answer), data={"solution": solution, "marks": marks})
