"""An environment for the evaluation's tests: add two numbers, with faults on demand."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.env import Episode, Task, ToolEnv, reward, tool
from agentrl.errors import DataError, ToolFailure
from agentrl.messages import AssistantMessage, Message, ToolCall, ToolMessage


class Sums(ToolEnv):
    """Add two numbers.

    Args:
        n: How many tasks the split "test" has.
        broken: The tool breaks at tasks below this number.
        unsolved: The oracle errs at tasks of `n - unsolved` and above.
    """

    max_turns = 4

    def __init__(self, n: int = 12, broken: int = 0, unsolved: int = 0) -> None:
        super().__init__()
        self.n, self.broken, self.unsolved = n, broken, unsolved

    def tasks(self, split: str) -> Sequence[Task]:
        if split != "test":
            raise DataError(f"sums has no split {split!r}; it has: test")
        return [Task(prompt=f"{i} + 1 = ?", answer=i + 1, data={"index": i}) for i in range(self.n)]

    @tool
    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The one.
            b: The other.
        """
        if a < self.broken:
            raise ToolFailure("the adding machine is jammed")
        return a + b

    @reward(kind="outcome")
    def correct(self, task: Task, episode: Episode) -> float:
        return float(episode.final_text == str(task.answer))

    @reward(kind="process", weight=0.25)
    def spoke(self, turn: object) -> float:
        return 1.0

    def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        index = task.data["index"]
        last = messages[-1]
        if isinstance(last, ToolMessage):
            return AssistantMessage(content="?" if index >= self.n - self.unsolved else last.content)
        return AssistantMessage(tool_calls=(ToolCall(id="1", name="add", arguments={"a": index, "b": 1}),))

    def data_faults(self, split: str) -> Sequence[str]:
        return [f"{split} task {i} is dull" for i in range(5)]
