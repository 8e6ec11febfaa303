"""Arithmetic questions that a calculator tool answers.

What comes in: a difficulty. What goes out: procedural tasks, the calculator tool, a reward of 1 for the right number.
The demonstrator often guesses instead of calling, so that a policy warmed up on it has something left to find out:
that calling pays. All texts are short, because the smallest models are trained on this.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

from agentrl.env import Episode, Task, ToolEnv, reward
from agentrl.errors import ConfigError
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage
from agentrl.tools.calculator import calculate, calculator

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)
LUCKY_SHARE = 0.05  # of the guesses that happen to be right
_ANSWER = re.compile(r"=? ?(-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\.?")


class Calculator(ToolEnv):
    """Arithmetic questions, with a calculator to call.

    Args:
        difficulty: "easy" (7*8, 34+58), "medium" (37*46+12) or "hard" ((37+46)*12-85).
        guess_share: how often, in [0, 1], the demonstrator guesses instead of calling the tool.
    """

    name = "calculator"
    system_prompt = "Answer with the number."
    max_turns = 3
    extra_tools = (calculator,)

    def __init__(self, difficulty: Difficulty = "medium", guess_share: float = 0.6) -> None:
        super().__init__()
        if difficulty not in DIFFICULTIES:
            raise ConfigError(f"difficulty is one of {', '.join(DIFFICULTIES)}; got {difficulty!r}")
        if not 0 <= guess_share <= 1:
            raise ConfigError(f"guess_share is a share between 0 and 1, got {guess_share}")
        self.difficulty = difficulty
        self.guess_share = guess_share

    def make_task(self, seed: int) -> Task:
        """An expression drawn from `seed` and its value. Pure: equal seeds and difficulties give equal tasks."""
        expression = _expression(random.Random(seed), self.difficulty)
        return Task(prompt=f"What is {expression}?", answer=calculate(expression), data={"expression": expression})

    def state_id(self) -> str:
        """What was called so far, and the answers: with the question, what the next action is chosen by."""
        turns = [] if self._play is None else self._play.turns
        return " | ".join("; ".join(f"{c.name}{dict(c.arguments)} = {r.content}" for c, r in t.calls) for t in turns)

    @reward(kind="outcome")
    async def correct(self, task: Task, episode: Episode) -> float:
        """1 if the final answer is the right number and nothing else, such as "1714" or "=1714".

        An answer that a limit cut counts as none: its number may be the beginning of another.
        """
        if episode.truncated:
            return 0.0
        answer = _ANSWER.fullmatch(episode.final_text.strip())
        return float(answer is not None and Fraction(answer[1].replace(",", "")) == Fraction(task.answer))

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        """Call the calculator, then answer with its result."""
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return _answer(last.content)
        call = ToolCall(id="1", name="calculator", arguments={"expression": task.data["expression"]})
        return AssistantMessage(tool_calls=(call,))

    def demonstrate(self, task: Task, messages: Sequence[Message], rng: random.Random) -> AssistantMessage:
        """Guess outright with probability `guess_share`, otherwise play the oracle."""
        asked = not isinstance(messages[-1], ToolMessage)
        if asked and rng.random() < self.guess_share:
            return _answer(_guess(int(task.answer), rng))
        return self.oracle(task, messages)


def _answer(number: object) -> AssistantMessage:
    """Answers open with "=", so that one token decides between answering outright and calling the tool."""
    return AssistantMessage(content=f"={number}")


def _guess(value: int, rng: random.Random) -> int:
    """A number of about the right size: wrong, but for a lucky few."""
    if rng.random() < LUCKY_SHARE:
        return value
    miss = rng.randint(1, max(9, abs(value) // 10))
    return value + rng.choice((-miss, miss))


def _expression(rng: random.Random, difficulty: Difficulty) -> str:
    def number() -> int:
        return rng.randint(11, 99)

    if difficulty == "easy":
        if rng.random() < 0.5:
            return f"{rng.randint(2, 9)}*{rng.randint(2, 9)}"
        return f"{number()}{rng.choice('+-')}{number()}"
    if difficulty == "medium":
        return f"{number()}*{number()}{rng.choice('+-')}{number()}"
    form = rng.choice(("({}+{})*{}-{}", "{}*({}-{})+{}", "({}+{})*({}-{})", "{}-({}+{})*{}"))
    return form.format(number(), number(), number(), number())
