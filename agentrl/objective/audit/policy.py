"""A policy as a table of softmaxes over the tokens of a world.

What comes in: logits, one for each token that can be chosen at each row. What goes out: exact log-probabilities, their
gradients (scores), and the value of every place where a token is chosen. All float64. Knows no estimator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agentrl.objective.audit.world import Action, Row, World
from agentrl.objective.batch import Float64Array


@dataclass(frozen=True, eq=False)
class Policy:
    """pi(token | state, the turn's tokens so far)."""

    world: World
    logits: Float64Array  # [D] all rows' logits laid end to end, in the order of `world.rows`

    @classmethod
    def waving(cls, world: World, phase: float, *, height: float = 0.9) -> Policy:
        """Logits height sin(phase + 2 d): neither uniform nor sure, and the same on every computer."""
        size = sum(map(len, world.rows.values()))
        return cls(world, height * np.sin(phase + 2.0 * np.arange(size)))

    def moved(self, phase: float, by: float) -> Policy:
        """Near this one."""
        return Policy(self.world, self.logits + by * np.sin(phase + 3.0 * np.arange(len(self.logits))))

    @cached_property
    def starts(self) -> Mapping[Row, int]:
        """Where each row's logits begin."""
        ends = np.cumsum([len(tokens) for tokens in self.world.rows.values()])
        return {row: int(end) - len(tokens) for (row, tokens), end in zip(self.world.rows.items(), ends, strict=True)}

    @cached_property
    def probabilities(self) -> Mapping[Row, Float64Array]:
        """[tokens] of each row."""
        out = {}
        for row, tokens in self.world.rows.items():
            logits = self.logits[self.starts[row] :][: len(tokens)]
            weights = np.exp(logits - logits.max())
            out[row] = weights / weights.sum()
        return out

    def logprobs(self, state: str, action: Action) -> Float64Array:
        """[tokens of the action] nats."""
        out = np.zeros(len(action.tokens))
        for t, row in enumerate(prefixes(state, action)):
            out[t] = np.log(self.probabilities[row][self.world.rows[row].index(action.tokens[t])])
        return out

    def scores(self, state: str, action: Action) -> Float64Array:
        """[tokens of the action, D] gradient of each token's log-probability in the logits."""
        out = np.zeros((len(action.tokens), len(self.logits)))
        for t, row in enumerate(prefixes(state, action)):
            start, tokens = self.starts[row], self.world.rows[row]
            out[t, start : start + len(tokens)] = -self.probabilities[row]
            out[t, start + tokens.index(action.tokens[t])] += 1
        return out

    @cached_property
    def values(self) -> Mapping[Row, float]:
        """Return to be expected from each row on, of process and outcome rewards."""
        of_state: dict[str, float] = {}
        out: dict[Row, float] = {}

        def state_value(state: str) -> float:
            if state not in of_state:
                of_state[state] = row_value((state, ()))
            return of_state[state]

        def row_value(row: Row) -> float:
            state, done = row
            for action in self.world.states[state]:
                if action.tokens == done:
                    return sum(
                        a.chance * (a.step + a.correct + (0.0 if a.to is None else state_value(a.to)))
                        for a in action.answers
                    )
            after = [row_value((state, (*done, token))) for token in self.world.rows[row]]
            out[row] = float(self.probabilities[row] @ after)
            return out[row]

        state_value(self.world.start)
        return out


def prefixes(state: str, action: Action) -> list[Row]:
    """The row that each token of the action is chosen at."""
    return [(state, action.tokens[:t]) for t in range(len(action.tokens))]
