"""What becomes of failed episodes: which are played anew, and when a run gives up.

What comes in: trajectories as they are sealed. What goes out: how often and how late to retry, or a `RunStoppedError`
that names what broke. Knows no engine and no environment.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from agentrl.errors import RunStoppedError
from agentrl.rollout.settings import RetrySettings
from agentrl.trajectory import Outcome, Trajectory

_SETTING: Mapping[Outcome, str] = {
    Outcome.FAILED_ENGINE: "engine",
    Outcome.FAILED_ENV: "env",
    Outcome.FAILED_TOOL: "tool",
    Outcome.FAILED_SANDBOX: "sandbox",
    Outcome.FAILED_VERIFIER: "verifier",
    Outcome.CANCELLED: "engine",  # the engine aborted a request that nobody here had cancelled
}


def retries(settings: RetrySettings, outcome: Outcome) -> int:
    """How often an episode that ended so is played anew."""
    return int(getattr(settings, _SETTING[outcome])) if outcome.failed else 0


def backoff_s(settings: RetrySettings, attempt: int, seed: int) -> float:
    """Seconds before the `attempt`-th retry, from 1 on: doubling, and spread by half so that not all come at once."""
    longest = min(settings.backoff_s * 2.0 ** min(attempt - 1, 60), settings.backoff_max_s)
    return longest * random.Random(seed).uniform(0.5, 1.0)


class FailureWatch:
    """Counts the episodes of a step, and stops the run as soon as too many must have failed when it ends.

    Args:
        max_share: of the step's episodes that may have failed, all their retries used up.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._episodes = 0
        self._failed: list[Trajectory] = []

    def expect(self, episodes: int) -> None:
        """So many more episodes will be played, whatever comes."""
        self._episodes += episodes

    def saw(self, trajectory: Trajectory) -> None:
        """An episode has ended for good.

        Raises:
            RunStoppedError: names each way to fail, how often it came up, and one error's text.
        """
        if scored(trajectory):
            return
        self._failed.append(trajectory)
        if len(self._failed) <= self._max_share * self._episodes:
            return
        counts = Counter(t.outcome for t in self._failed)
        examples = {outcome: next(t.error for t in self._failed if t.outcome is outcome) for outcome in counts}
        told = "; ".join(f"{outcome.value} x{n}: {examples[outcome]}" for outcome, n in counts.most_common())
        raise RunStoppedError(
            f"{len(self._failed)} of {self._episodes} episodes failed, and rollout.max_failed_share = "
            f"{self._max_share}: {told}"
        )


def scored(trajectory: Trajectory) -> bool:
    """Whether it says anything of the policy: it did not fail, nor end before the policy could speak."""
    return trajectory.reward is not None and bool(trajectory.turns)
