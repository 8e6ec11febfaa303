"""Where tasks come from: an environment and a split.

What comes in: an environment and the name of a split. What goes out: tasks by index, the same on every machine. A
procedural task belongs to "test" if a checksum of its id says so (one in ten does) and to "train" otherwise: so the two
share no task, whatever the environment draws. Knows nothing of episodes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

from agentrl.env.base import Env
from agentrl.env.task import Task
from agentrl.errors import AgentRLError, DataError, EnvDefinitionError

PROCEDURAL_SPLITS = ("train", "test")
TEST_EVERY = 10  # of this many procedural tasks, one is for testing
_MAX_DRAWS = 1000  # seeds tried for one task, and indices tried for one new task


def split_of(task: Task) -> str:
    """The split that a procedural task belongs to."""
    return "test" if zlib.crc32(task.id.encode()) % TEST_EVERY == 0 else "train"


def draw_task(env: Env, seed: int) -> Task:
    """A task for one episode on its own: made from the seed, or the seed's pick of a data set's "train" split.

    Raises:
        DataError: the data set has no "train" split.
    """
    tasks = env.tasks("train")
    if tasks is None:
        return _checked(env, env.make_task(seed))
    return _of_data(env, tasks, "train", _hash(f"draw:{seed}"))


class TaskSource:
    """The tasks of one split.

    Raises:
        DataError: the environment has no such split, or it is empty.
    """

    def __init__(self, env: Env, split: str) -> None:
        self.env = env
        self.split = split
        self._tasks = _called(env, "tasks", split)
        if self._tasks is not None and not isinstance(self._tasks, Sequence):
            raise EnvDefinitionError(
                f"{env.name}.tasks({split!r}) must give a sequence of tasks, got {type(self._tasks).__name__}"
            )
        if self._tasks is None and split not in PROCEDURAL_SPLITS:
            raise DataError(
                f"{env.name} makes its tasks from seeds and has the splits {' and '.join(PROCEDURAL_SPLITS)}; "
                f"got {split!r}"
            )
        if self._tasks is not None and not len(self._tasks):
            raise DataError(f"{env.name} has no tasks in split {split!r}; name another split or check its data")

    @property
    def size(self) -> int | None:
        """How many tasks there are; None where they are made from seeds."""
        return None if self._tasks is None else len(self._tasks)

    def task(self, index: int) -> Task:
        """The task at `index`: a pure function of the split and the index. A data set begins anew after its last.

        Raises:
            EnvDefinitionError: none of 1000 seeds gave a task of this split.
        """
        if self._tasks is not None:
            return _of_data(self.env, self._tasks, self.split, index)
        for draw in range(_MAX_DRAWS):
            task = _checked(self.env, _called(self.env, "make_task", _hash(f"{self.split}:{index}:{draw}")))
            if split_of(task) == self.split:
                return task
        raise EnvDefinitionError(
            f"{self.env.name}: {_MAX_DRAWS} seeds gave no task for split {self.split!r}; make_task must depend on its "
            "seed and have more different tasks (a tenth of them is held out for testing)"
        )

    def distinct(self, n: int, start: int = 0) -> list[Task]:
        """The first `n` tasks with different ids, from index `start` on.

        Raises:
            DataError: there are fewer.
        """
        found: dict[str, Task] = {}
        index = fruitless = 0
        patience = _MAX_DRAWS if self._tasks is None else len(self._tasks)
        while len(found) < n:
            task = self.task(start + index)
            fruitless = fruitless + 1 if task.id in found else 0
            found.setdefault(task.id, task)
            index += 1
            if fruitless >= patience:
                raise DataError(
                    f"{self.env.name} has {len(found)} different tasks in split {self.split!r}; {n} were asked for"
                )
        return list(found.values())


def _called(env: Env, name: str, argument: int | str) -> Any:
    """What the author's `make_task` or `tasks` gives; what it raises is named as the author's."""
    try:
        return getattr(env, name)(argument)
    except AgentRLError:
        raise
    except Exception as error:
        raise EnvDefinitionError(f"{env.name}.{name}({argument!r}) raised {type(error).__name__}: {error}") from error


def _of_data(env: Env, tasks: Sequence[Task], split: str, index: int) -> Task:
    if not len(tasks):
        raise DataError(f"{env.name} has no tasks in split {split!r}; check its data")
    return _checked(env, tasks[index % len(tasks)])


def _checked(env: Env, task: object) -> Task:
    if not isinstance(task, Task):
        raise EnvDefinitionError(f"{env.name}: a Task was wanted from make_task or tasks, got {task!r}")
    return task


def _hash(text: str) -> int:
    """32 bits, so that every random generator takes them as a seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
