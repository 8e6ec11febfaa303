"""A journey whose first fork decides, and whose later forks do not matter.

What comes in: how many forks follow, what they tip, when the sender pays. What goes out: procedural tasks, an outcome
reward for delivery, a process reward at every later fork, and a name for every state. The demonstrator knows which
roads are closed to the goods and chooses blindly among the four others, so a policy warmed up on it reads and speaks,
finds the way one time in four, and has to find out the rest.

An example of a plain `Env` with declared process rewards and state ids, and a test bed for credit: only the first
word said matters, the same words are said later to no effect, and what they are tipped is chance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from agentrl.env import Env, StepResult, Task
from agentrl.errors import ConfigError, EnvFailure
from agentrl.messages import AssistantMessage, Message, UserMessage

Payment = Literal["at the end", "at once"]
ROADS = ("dale", "fell", "glen", "lake", "moor", "wood")
RIGHT = {  # goods -> the one road at the first fork that gets them there
    "coal": "lake",
    "fish": "moor",
    "glass": "dale",
    "gold": "wood",
    "post": "fell",
    "salt": "glen",
    "silk": "lake",
    "wine": "dale",
}
CLOSED = {  # goods -> roads that everybody knows are closed to them; after the first fork it does not matter
    "coal": ("glen", "wood"),
    "fish": ("dale", "lake"),
    "glass": ("fell", "wood"),
    "gold": ("lake", "moor"),
    "post": ("dale", "glen"),
    "salt": ("fell", "moor"),
    "silk": ("dale", "wood"),
    "wine": ("fell", "glen"),
}


class Courier(Env):
    """Parcels to deliver: the road named first decides whether they arrive.

    Args:
        forks: forks after the first one; there every road leads on.
        tip: what a later fork gives with probability 1/2, whichever road is named; nothing for what is no road.
        pays: whether the outcome's reward comes with the last turn or with the first.
    """

    name = "courier"

    def __init__(self, forks: int = 6, tip: float = 0.1, pays: Payment = "at the end") -> None:
        if forks < 1:
            raise ConfigError(f"forks is {forks}, wanted at least 1")
        if not tip >= 0:
            raise ConfigError(f"tip is {tip}, wanted 0 or more")
        if pays not in get_args(Payment):
            raise ConfigError(f"pays is one of {', '.join(get_args(Payment))}; got {pays!r}")
        self.forks, self.tip, self.pays = forks, tip, pays
        self.max_turns = 1 + forks

    def make_task(self, seed: int) -> Task:
        """Goods and a parcel number drawn from `seed`; the number means nothing."""
        rng = random.Random(seed)
        goods = rng.choice(tuple(RIGHT))
        prompt = f"Parcel {rng.randrange(10_000):04}: {goods}. Fork 1. Road?"
        return Task(prompt, answer=RIGHT[goods], data={"goods": goods})

    @property
    def reward_kinds(self) -> Mapping[str, Literal["outcome", "process"]]:
        return {"delivered": "outcome", "tip": "process"}

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Sequence[Message], Mapping[str, Any]]:
        seed = random.randrange(2**32) if seed is None else seed
        task = (options or {}).get("task")
        self.task: Task = self.make_task(seed) if task is None else task
        self.rng = random.Random(seed)
        self.road: str | None = None  # the one taken at the first fork
        self.passed = 0  # later forks that are behind
        return [UserMessage(content=self.task.prompt)], {"state_id": self._state()}

    async def step(self, action: AssistantMessage) -> StepResult:
        """Take the road that is named, at the first fork and at every later one."""
        said = "" if action.tool_calls else action.content.strip()
        if self.road is None:
            self.road = said if said in ROADS else "none"
            return self._result({"delivered": self._delivered()} if self.pays == "at once" else {}, arrived=False)
        if self.passed == self.forks:
            raise EnvFailure("courier: the episode has ended; call reset() before the next step()")
        self.passed += 1
        arrived = self.passed == self.forks
        lucky = self.rng.random() < 0.5
        rewards = {"tip": self.tip * (lucky and said in ROADS)}
        if arrived and self.pays == "at the end":
            rewards["delivered"] = self._delivered()
        return self._result(rewards, arrived=arrived)

    async def oracle(self, task: Task, messages: Sequence[Message]) -> AssistantMessage:
        """The right road, then any."""
        return AssistantMessage(content=task.answer if len(messages) == 1 else ROADS[0])

    async def demonstrate(self, task: Task, messages: Sequence[Message], rng: random.Random) -> AssistantMessage:
        """Any road that is not closed to the goods, at every fork."""
        return AssistantMessage(content=rng.choice([r for r in ROADS if r not in CLOSED[task.data["goods"]]]))

    def _delivered(self) -> float:
        return float(self.road == self.task.answer)

    def _result(self, rewards: Mapping[str, float], *, arrived: bool) -> StepResult:
        observation = [] if arrived else [UserMessage(content=f"Fork {self.passed + 2}. Road?")]
        info = {"rewards": rewards, "state_id": self._state(), "metrics": {"right_road": self._delivered()}}
        return StepResult(observation, sum(rewards.values()), arrived, False, info)

    def _state(self) -> str:
        """All that the rewards to come depend on, beside what will be said."""
        goods = str(self.task.data["goods"])
        return goods if self.road is None else f"{goods}/{self._delivered():g}/{self.passed}"
