"""Random episodes for the learner's tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.trajectory import Group, Outcome, Segment, Trajectory, Turn
from tests.learner.conftest import VOCABULARY


def make_trajectory(
    rng: np.random.Generator, group: int, lengths: Sequence[tuple[int, int]], *, a_segment: int = 100
) -> Trajectory:
    """Turns of (observation tokens, action tokens); random ids, rewards and behavior log-probs.

    Args:
        a_segment: turns after which the history is rewritten.
    """
    segments, turns = [], []
    for first in range(0, len(lengths), a_segment):
        masks: list[bool] = []
        for observed, acted in lengths[first : first + a_segment]:
            span = slice(len(masks) + observed, len(masks) + observed + acted)
            turns.append(Turn(len(segments), span, {"r": float(rng.normal())}))
            masks += [False] * observed + [True] * acted
        mask = np.array(masks)
        logprobs = np.where(mask, -rng.random(len(mask)), 0).astype(np.float32)
        segments.append(Segment(rng.integers(0, VOCABULARY, len(mask)), mask, logprobs, np.where(mask, 0, -1)))
    reward = sum(turn.rewards["r"] for turn in turns)
    return Trajectory(
        f"t{group}", f"g{group}", 0, tuple(segments), tuple(turns), Outcome.TERMINATED, reward, {"r": "outcome"}
    )


def make_groups(seed: int, *, groups: int = 3, size: int = 4, a_segment: int = 100) -> list[Group]:
    """Groups of episodes of 1 to 3 turns."""
    rng = np.random.default_rng(seed)
    return [
        Group(
            f"g{g}",
            f"t{g}",
            tuple(
                make_trajectory(
                    rng, g, [tuple(rng.integers(1, 7, 2)) for _ in range(rng.integers(1, 4))], a_segment=a_segment
                )
                for _ in range(size)
            ),
        )
        for g in range(groups)
    ]
