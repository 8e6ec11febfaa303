"""A decision process small enough to enumerate, as data.

What comes in: states, the actions of each, and what the environment answers with which chance. What goes out: every
episode it can have. An action is a sequence of tokens and the policy chooses token by token, so actions of one state
share prefixes; no action may be a prefix of another. A state holds all that the future depends on: equal names mean
equal futures. Knows no probabilities of the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from agentrl.trajectory import RewardKind

KINDS: Mapping[str, RewardKind] = {"correct": "outcome", "step": "process"}  # the reward parts of every world


@dataclass(frozen=True, slots=True)
class Answer:
    """What the environment may say to an action, with this chance."""

    chance: float
    to: str | None  # the state it leads to; None: the episode is over
    step: float = 0.0  # process reward
    correct: float = 0.0  # outcome reward
    observed: int = 1  # tokens of the observation
    truncated: bool = False  # a limit ended the episode
    rewrites: bool = False  # the history was rewritten: a new segment begins


@dataclass(frozen=True, slots=True)
class Action:
    tokens: tuple[int, ...]
    answers: tuple[Answer, ...]  # their chances sum to 1
    void: bool = False  # neither a call nor an answer


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of an episode."""

    state: str
    action: Action
    answer: Answer


Row = tuple[str, tuple[int, ...]]  # where a token is chosen: the state, and the turn's tokens so far


@dataclass(frozen=True)
class World:
    """One task's decision process. It must come to an end: no state may lead back to itself."""

    name: str
    start: str
    states: Mapping[str, tuple[Action, ...]]
    ids: Mapping[str, str] = field(default_factory=dict)  # what the environment calls a state; its name, if absent

    @cached_property
    def rows(self) -> Mapping[Row, tuple[int, ...]]:
        """Every place where a token is chosen, and the tokens to choose from, in order."""
        found: dict[Row, set[int]] = {}
        for state, actions in self.states.items():
            for action in actions:
                for t, token in enumerate(action.tokens):
                    found.setdefault((state, action.tokens[:t]), set()).add(token)
        return {row: tuple(sorted(tokens)) for row, tokens in found.items()}

    @cached_property
    def episodes(self) -> tuple[tuple[Step, ...], ...]:
        """Every episode."""
        return tuple(self._episodes_from(self.start))

    def _episodes_from(self, state: str) -> Iterator[tuple[Step, ...]]:
        for action in self.states[state]:
            for answer in action.answers:
                rest = [()] if answer.to is None else self._episodes_from(answer.to)
                for after in rest:
                    yield (Step(state, action, answer), *after)
